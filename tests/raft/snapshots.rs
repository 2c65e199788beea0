//! Snapshots: to disk and back, and from one member to another while writes go on.

use std::collections::BTreeMap;

use bytes::Bytes;
use slotcast::raft::proposal::Outcome;
use slotcast::raft::state::{GroupError, GroupOptions, Timing};

use crate::cluster::{
    Cluster, GROUP, Journal, Node, Scratch, becomes, eventually, numbered, write, write_all,
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
        dir: Some(scratch.0.clone()),
    };
    let refused = node.groups.start(options, Box::new(Journal::default())).await.err().unwrap();
    assert!(refused.to_string().contains(&*file.to_string_lossy()), "{refused}");
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
