//! Groups of three members: what a user of the raft room relies on. Over real loopback sockets where it can be had
//! so, over a simulated network in virtual time where something has to be cut or to replay.

mod chaos;
mod cluster;
mod doubt;
mod durable;
mod leaving;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use slotcast::id::MemberId;
use slotcast::raft::groups::seed_elections;
use slotcast::raft::proposal::{Outcome, Proposal};
use slotcast::raft::state::{GroupError, GroupOptions, Timing};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use crate::cluster::{
    Cluster, GROUP, Journal, PATIENCE, becomes, eventually, host_of, in_virtual_time, network, numbered,
    propose, write, write_all,
};

#[tokio::test]
async fn three_members_agree_on_ten_thousand_entries_and_go_on_without_their_leader() {
    let mut cluster = Cluster::start(64 << 20).await;
    let leader = cluster.leader(&[11, 12, 13]).await;
    write_all(&leader, (0..10_000).map(|n| numbered(n, 0))).await;
    let expected: Vec<Bytes> = (0..10_000).map(|n| numbered(n, 0)).collect();
    assert_eq!(cluster.journal(leader.member()), expected, "acknowledged means applied on the leader");
    for member in [11, 12, 13] {
        eventually("all to apply", || (cluster.journal(member).len() == 10_000).then_some(())).await;
        assert_eq!(cluster.journal(member), expected);
    }

    let lost = leader.member();
    leader.shutdown().await;
    assert!(!leader.lease().is_valid(Instant::now()));
    cluster.members.retain(|(group, _)| group.member() != lost);
    let others: Vec<MemberId> = cluster.members.iter().map(|(group, _)| group.member()).collect();
    let new_leader = cluster.leader(&others).await;
    assert!(matches!(write(&new_leader, "after").await, Outcome::Applied { .. }));
    assert_eq!(cluster.journal(new_leader.member()).len(), 10_001);
    new_leader.read_barrier().await.unwrap();
}

#[tokio::test]
async fn a_new_member_catches_up_by_snapshot_and_takes_the_place_of_a_lost_one() {
    const LOG: usize = 256 << 10;
    let mut cluster = Cluster::start(LOG).await;
    let leader = cluster.leader(&[11, 12, 13]).await;
    let lost =
        cluster.members.iter().map(|(group, _)| group.member()).find(|id| *id != leader.member()).unwrap();
    cluster.group(lost).shutdown().await;
    cluster.members.retain(|(group, _)| group.member() != lost);
    let home = (lost - 11) as usize;

    write_all(&leader, (0..2_000).map(|n| numbered(n, 1000))).await;
    // Two megabytes written, an eighth kept: whoever starts from nothing needs a snapshot.
    becomes(&leader, "the log to be purged", |state| state.last_log >= 2_000 && state.log_bytes <= LOG).await;
    let (newcomer, journal) = cluster.nodes[home].join(24, LOG).await;
    leader.add_learner(24, cluster.nodes[home].as_member()).await.unwrap();
    becomes(&leader, "the learner to catch up", |state| {
        state
            .followers
            .get(&24)
            .and_then(|follower| follower.matched)
            .is_some_and(|matched| matched >= state.last_log)
    })
    .await;
    let voters: BTreeSet<MemberId> =
        BTreeSet::from([11, 12, 13, 24]).into_iter().filter(|id| *id != lost).collect();
    leader.change_voters(voters.clone()).await.unwrap();
    assert_eq!(journal.installed(), 1, "the log no longer held the beginning");
    cluster.members.push((newcomer.clone(), journal));
    becomes(&newcomer, "the newcomer to vote", |state| {
        state.voters.keys().copied().collect::<BTreeSet<_>>() == voters
    })
    .await;
    assert!(matches!(write(&leader, "last").await, Outcome::Applied { .. }));
    eventually("the newcomer to have all", || (cluster.journal(24).len() == 2_001).then_some(())).await;
    assert_eq!(cluster.journal(24), cluster.journal(leader.member()));
    assert_eq!(cluster.journal(24)[17], numbered(17, 1000));
}

#[tokio::test]
async fn leadership_is_handed_over_in_milliseconds() {
    let cluster = Cluster::start(1 << 20).await;
    let leader = cluster.leader(&[11, 12, 13]).await;
    assert!(matches!(write(&leader, "before").await, Outcome::Applied { .. }));
    let to = [11, 12, 13].into_iter().find(|id| *id != leader.member()).unwrap();
    let lease = leader.lease();
    let begun = Instant::now();
    leader.transfer_leader(to).await.unwrap();
    assert!(!lease.is_valid(Instant::now()), "no reads on the former leader");
    let took = begun.elapsed();
    assert!(took < Timing::default().election_min, "a handover is no election: {took:?}");
    let new_leader = cluster.leader(&[11, 12, 13]).await;
    assert_eq!(new_leader.member(), to);
    assert!(matches!(write(&new_leader, "after").await, Outcome::Applied { .. }));
    assert_eq!(leader.transfer_leader(to).await, Err(GroupError::NotLeader { leader: Some(to) }));
}

#[tokio::test]
async fn a_follower_names_the_leader_and_certainly_did_nothing() {
    let cluster = Cluster::start(1 << 20).await;
    let leader = cluster.leader(&[11, 12, 13]).await;
    let follower = [11, 12, 13].into_iter().find(|id| *id != leader.member()).unwrap();
    let outcome = write(cluster.group(follower), "lost").await;
    assert_eq!(outcome, Outcome::NotLeader { leader: Some(leader.member()) });
    assert!(!cluster.group(follower).lease().is_valid(Instant::now()));
    let barrier = cluster.group(follower).read_barrier().await;
    assert_eq!(barrier, Err(GroupError::NotLeader { leader: Some(leader.member()) }));
}

#[tokio::test]
async fn a_leader_without_its_quorum_stops_reading_and_proposing() {
    let cluster = Cluster::start(1 << 20).await;
    let leader = cluster.leader(&[11, 12, 13]).await;
    let others: Vec<MemberId> = [11, 12, 13].into_iter().filter(|id| *id != leader.member()).collect();
    for id in &others {
        cluster.nodes[(*id - 11) as usize].bus.shutdown();
        cluster.group(*id).shutdown().await;
    }
    // Its lease may still hold: then the proposal is in the log, and nobody knows what becomes of it.
    let early = propose(&leader, Bytes::from_static(b"early"));
    eventually("the lease to end", || (!leader.lease().is_valid(Instant::now())).then_some(())).await;
    sleep(Timing::default().election_max).await;
    let late = write(&leader, "late").await;
    assert_eq!(late, Outcome::NotLeader { leader: None }, "after the lease nothing is put into the log");
    assert!(matches!(leader.read_barrier().await, Err(GroupError::Unavailable(_))));
    leader.shutdown().await;
    assert_eq!(timeout(PATIENCE, early).await.unwrap().unwrap(), Outcome::Unknown);
}

#[tokio::test]
async fn the_proposers_own_part_reaches_its_own_apply_only_and_is_not_kept() {
    let cluster = Cluster::start(1 << 20).await;
    let leader = cluster.leader(&[11, 12, 13]).await;
    let seen = Arc::new(Mutex::new(0u32));
    let (tell, outcome) = oneshot::channel();
    let proposal = Proposal { bytes: Bytes::from_static(b"mine"), local: Some(seen.clone()) };
    leader.propose(proposal, Box::new(move |outcome| drop(tell.send(outcome))));
    assert!(matches!(outcome.await.unwrap(), Outcome::Applied { .. }));
    for member in [11, 12, 13] {
        eventually("all to apply", || (cluster.journal(member).len() == 1).then_some(())).await;
    }
    assert_eq!(*seen.lock(), 1, "one of three applies saw it");
    eventually("the log to let go of it", || (Arc::strong_count(&seen) == 1).then_some(())).await;
}

#[tokio::test]
async fn a_group_is_formed_once_and_a_member_id_runs_once() {
    let cluster = Cluster::start(1 << 20).await;
    let leader = cluster.leader(&[11, 12, 13]).await;
    let again = BTreeMap::from([(leader.member(), cluster.nodes[0].as_member())]);
    assert!(matches!(leader.initialize(again).await, Err(GroupError::Refused(_))));
    let options = GroupOptions {
        group: GROUP,
        member: 99,
        me: cluster.nodes[0].as_member(),
        timing: Timing::default(),
        log_bytes: 1 << 20,
        snapshots: None,
    };
    let second = cluster.nodes[0].groups.start(options, Box::new(Journal::default())).await;
    assert!(matches!(second.err(), Some(GroupError::Refused(_))));
}

#[tokio::test(start_paused = true)]
async fn a_stalled_follower_keeps_no_log_alive_and_gets_a_snapshot_when_it_is_back() {
    const LOG: usize = 256 << 10;
    let network = network(1);
    let cluster = Cluster::start_on(Some(&network), LOG).await;
    let leader = cluster.leader(&[11, 12, 13]).await;
    let stalled = [11, 12, 13].into_iter().find(|id| *id != leader.member()).unwrap();
    assert!(matches!(write(&leader, "first").await, Outcome::Applied { .. }));
    network.isolate(host_of(stalled));
    let mut most = 0;
    for block in 0..47 {
        write_all(&leader, (block * 64..(block + 1) * 64).map(|n| numbered(n, 1000))).await;
        sleep(Duration::from_millis(40)).await;
        most = most.max(leader.state().borrow().log_bytes);
    }
    // It may grow for the second that the stream's patience lasts.
    becomes(&leader, "the log to be purged", |state| state.log_bytes <= LOG).await;
    assert!(most < 2 << 20, "{most} bytes of log kept");
    let healthy = [11, 12, 13].into_iter().find(|id| *id != leader.member() && *id != stalled).unwrap();
    becomes(cluster.group(healthy), "followers to purge too", |state| state.log_bytes <= LOG).await;
    network.mend();
    let (_, journal) = cluster.members.iter().find(|(group, _)| group.member() == stalled).unwrap();
    eventually("the stalled one to catch up", || {
        (cluster.journal(stalled).len() == 47 * 64 + 1).then_some(())
    })
    .await;
    assert_eq!(journal.installed(), 1);
    assert_eq!(cluster.journal(stalled), cluster.journal(leader.member()));
}

/// Runs writes, cuts the leader off in the middle, mends; what happened as text, with the virtual time.
async fn partition_story(seed: u64) -> String {
    seed_elections(seed);
    let network = network(seed);
    let cluster = Cluster::start_on(Some(&network), 1 << 20).await;
    let old = cluster.leader(&[11, 12, 13]).await;
    let begun = Instant::now();
    let mut story = format!("{} leads at {:?}", old.member(), begun.elapsed());
    for n in 0..50 {
        assert!(matches!(write(&old, numbered(n, 0)).await, Outcome::Applied { .. }));
    }
    network.isolate(host_of(old.member()));
    let cut = Instant::now();
    let doubtful = propose(&old, Bytes::from_static(b"doubtful"));
    let others: Vec<MemberId> = [11, 12, 13].into_iter().filter(|id| *id != old.member()).collect();
    let mut overlap = Vec::new();
    let new = eventually("a new leader", || {
        let valid = |id: &&MemberId| cluster.group(**id).lease().is_valid(Instant::now());
        overlap.push([11, 12, 13].iter().filter(valid).count());
        others
            .iter()
            .map(|id| cluster.group(*id))
            .find(|group| group.lease().is_valid(Instant::now()))
            .cloned()
    })
    .await;
    assert!(overlap.iter().all(|leases| *leases <= 1), "two leases at a time");
    story += &format!(", {} at {:?}", new.member(), begun.elapsed());
    assert!(cut.elapsed() < Duration::from_millis(700), "a failover takes {:?}", cut.elapsed());
    for n in 50..100 {
        assert!(matches!(write(&new, numbered(n, 0)).await, Outcome::Applied { .. }));
    }
    network.mend();
    assert_eq!(timeout(PATIENCE, doubtful).await.unwrap().unwrap(), Outcome::Unknown);
    eventually("the old leader to follow", || (cluster.journal(old.member()).len() == 100).then_some(()))
        .await;
    let expected: Vec<Bytes> = (0..100).map(|n| numbered(n, 0)).collect();
    assert!(
        [11, 12, 13].into_iter().all(|id| cluster.journal(id) == expected),
        "no acknowledged write is lost"
    );
    story + &format!(", all at {:?}, term {}", begun.elapsed(), new.state().borrow().term)
}

#[test]
fn a_cut_off_leader_is_replaced_without_loss_and_a_seed_replays_it() {
    let stories: Vec<String> = (1..=5).map(|seed| in_virtual_time(partition_story(seed))).collect();
    let again: Vec<String> = (1..=5).map(|seed| in_virtual_time(partition_story(seed))).collect();
    assert_eq!(stories, again);
    assert!(stories.iter().any(|story| *story != stories[0]), "seeds make a difference: {stories:?}");
}
