//! Snapshots: to disk and back, and from one member to another while writes go on.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use slotcast::id::MemberId;
use slotcast::keyspace::effect::Nobody;
use slotcast::keyspace::snapshot::digest;
use slotcast::raft::group::Group;
use slotcast::raft::proposal::Outcome;
use slotcast::raft::state::{GroupError, GroupOptions, Timing};
use slotcast::shard::Shard;
use slotcast::shard::machine::ShardMachine;
use slotcast::shard::proposal;
use slotcast::time::Clock;
use slotcast_wire::args::OwnedArgs;

use crate::cluster::{
    Cluster, GROUP, Journal, Node, Scratch, becomes, eventually, numbered, snapshots, write, write_all,
};

#[tokio::test]
async fn a_member_begins_with_what_it_saved() {
    let scratch = Scratch::new();
    let node = Node::start(1, None).await;
    let (group, journal) = node.join_in(Some(&scratch.0), 11, 1 << 20).await;
    group.initialize(BTreeMap::from([(11, node.as_member())])).await.unwrap();
    becomes(&group, "to lead", |state| state.ready).await;
    write_all(&group, (0..1000).map(|n| numbered(n, 100))).await;
    assert_eq!(group.saved_snapshot(), None);
    let saved = group.save_snapshot().await.unwrap();
    assert_eq!((saved, group.saved_snapshot()), (group.state().borrow().last_applied, Some(saved)));
    assert!(matches!(write(&group, "not in it").await, Outcome::Applied { .. }));
    group.shutdown().await;

    let (again, restored) = node.join_in(Some(&scratch.0), 11, 1 << 20).await;
    assert_eq!(*restored.0.lock(), journal.0.lock()[..1000]);
    assert_eq!(again.saved_snapshot(), Some(saved));
    becomes(&again, "to know what it holds", |state| state.last_applied == saved).await;
    assert!(again.state().borrow().voters.contains_key(&11), "the membership is in it");
}

#[tokio::test]
async fn a_damaged_file_is_refused_with_its_name() {
    let scratch = Scratch::new();
    let node = Node::start(1, None).await;
    let (group, _) = node.join_in(Some(&scratch.0), 11, 1 << 20).await;
    group.initialize(BTreeMap::from([(11, node.as_member())])).await.unwrap();
    becomes(&group, "to lead", |state| state.ready).await;
    group.save_snapshot().await.unwrap();
    group.shutdown().await;
    let file = std::fs::read_dir(scratch.0.join("snapshots")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let options = GroupOptions {
        group: GROUP,
        member: 11,
        me: node.as_member(),
        timing: Timing::default(),
        log_bytes: 1 << 20,
        snapshots: snapshots(Some(&scratch.0)),
    };
    let refused = node.groups.start(options, Box::new(Journal::default())).await.err().unwrap();
    assert!(refused.to_string().contains(&*file.to_string_lossy()), "{refused}");
}

async fn join_with_shard(node: &Node, member: MemberId, dir: Option<&Path>) -> (Group, Arc<Shard>) {
    let shard = Arc::new(Shard::new(GROUP, Arc::new(Nobody), Clock::System, member));
    let options = GroupOptions {
        group: GROUP,
        member,
        me: node.as_member(),
        timing: Timing::default(),
        log_bytes: 256 << 10,
        snapshots: snapshots(dir),
    };
    let group = node.groups.start(options, Box::new(ShardMachine::new(shard.clone()))).await.unwrap();
    (group, shard)
}

/// An entry of one request.
fn entry(words: &[&str]) -> Bytes {
    let mut bytes = Vec::new();
    proposal::begin(1, 7, &mut bytes);
    let request: OwnedArgs = words.iter().map(|word| word.to_string()).collect();
    proposal::put_request(request.encoded(), &mut bytes);
    bytes.into()
}

/// Writes of all kinds over keys that the snapshot holds and such that it doesn't.
fn change(n: usize) -> Bytes {
    let (key, other) = (format!("{{{}}}{}", n % 500, n % 7), format!("{{{}}}b", n % 500));
    match n % 11 {
        0 => entry(&["DEL", &key]),
        1 => entry(&["HSET", &other, &format!("f{}", n % 13), &format!("{n}")]),
        2 => entry(&["APPEND", &key, "tail"]),
        3 => entry(&["PEXPIREAT", &key, "99999999999999"]),
        4 => entry(&["HDEL", &other, "f1", "absent"]),
        5 if n == 500 => entry(&["FLUSHALL"]),
        _ => entry(&["SET", &key, &format!("{n}{}", "x".repeat(n % 200))]),
    }
}

/// A leader with ten megabytes of keys and no log that goes back to their beginning.
async fn filled(node: &Node, dir: Option<&Path>) -> (Group, Arc<Shard>) {
    let (leader, shard) = join_with_shard(node, 11, dir).await;
    leader.initialize(BTreeMap::from([(11, node.as_member())])).await.unwrap();
    becomes(&leader, "to lead", |state| state.ready).await;
    let value = "x".repeat(500);
    let filling = (0..20_000).map(|n| entry(&["SET", &format!("{{{}}}{}", n % 500, n), &value]));
    write_all(&leader, filling).await;
    becomes(&leader, "the log to lose its beginning", |state| state.log_bytes < 1 << 20).await;
    (leader, shard)
}

fn digests(shard: &Shard) -> Vec<u64> {
    (0..16384).map(|slot| digest(&shard.keyspace, slot)).collect()
}

#[tokio::test]
async fn a_file_being_written_gives_way_to_a_follower_and_is_written_then() {
    let scratch = Scratch::new();
    let node = Node::start(1, None).await;
    let (leader, shard) = filled(&node, Some(&scratch.0)).await;
    let other = Node::start(2, None).await;
    let (_follower, copy) = join_with_shard(&other, 12, None).await;
    let saving = tokio::spawn({
        let leader = leader.clone();
        async move { leader.save_snapshot().await }
    });
    let begun = || std::fs::read_dir(scratch.0.join("snapshots")).ok()?.next().map(drop);
    eventually("the file to be begun", begun).await;
    leader.add_learner(12, other.as_member()).await.unwrap();
    let (expected, has_it) = (digests(&shard), || copy.keyspace.usage().keys > 0);
    eventually("the copy to be brought up", || has_it().then_some(())).await;
    assert!(!saving.is_finished(), "the follower comes first");
    assert!(digests(&copy) == expected);
    let saved = saving.await.unwrap().unwrap();
    assert_eq!(leader.saved_snapshot(), Some(saved));
}

#[tokio::test]
async fn a_copy_that_joins_while_its_keys_change_comes_to_hold_the_same() {
    let node = Node::start(1, None).await;
    let (leader, shard) = filled(&node, None).await;
    let other = Node::start(2, None).await;
    let (_follower, copy) = join_with_shard(&other, 12, None).await;
    leader.add_learner(12, other.as_member()).await.unwrap();
    let mut written = 0;
    // Ten megabytes take a while to come over; it is being written to for all of it.
    while copy.keyspace.usage().keys == 0 {
        write_all(&leader, (written..written + 100).map(change)).await;
        written += 100;
    }
    write_all(&leader, (written..written + 100).map(change)).await;
    let expected = digests(&shard);
    eventually("the copy to hold the same", || (digests(&copy) == expected).then_some(())).await;
    assert_eq!(shard.keyspace.usage().keys, copy.keyspace.usage().keys);
}

#[tokio::test]
async fn nothing_is_saved_where_nothing_is_kept() {
    let node = Node::start(1, None).await;
    let (group, _) = node.join(11, 1 << 20).await;
    assert!(matches!(group.save_snapshot().await, Err(GroupError::Refused(_))));
}

#[tokio::test]
async fn a_learner_catches_up_by_stream_while_writes_go_on_and_has_it_on_disk() {
    const LOG: usize = 256 << 10;
    let scratch = Scratch::new();
    let cluster = Cluster::start(LOG).await;
    let leader = cluster.leader(&[11, 12, 13]).await;
    write_all(&leader, (0..2_000).map(|n| numbered(n, 1000))).await;
    let node = Node::start(4, None).await;
    let (learner, journal) = node.join_in(Some(&scratch.0), 24, LOG).await;
    leader.add_learner(24, node.as_member()).await.unwrap();
    write_all(&leader, (2_000..4_000).map(|n| numbered(n, 10))).await;
    eventually("the learner to have it all", || (journal.0.lock().len() == 4_000).then_some(())).await;
    let expected: Vec<Bytes> = cluster.journal(leader.member());
    assert_eq!(*journal.0.lock(), expected);
    assert!(journal.installed() >= 1, "the log no longer held the beginning");
    let on_disk = learner.saved_snapshot().expect("the file is there before the snapshot is installed");
    assert!(on_disk >= 2_000 && scratch.0.join(format!("snapshots/1-24-{on_disk}.snap")).exists());
}
