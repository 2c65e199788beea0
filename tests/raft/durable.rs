//! Members whose logs outlast them, on simulated disks.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use slotcast::bus::Bus;
use slotcast::bus::memory::Network;
use slotcast::bus::transport::Tcp;
use slotcast::id::NodeId;
use slotcast::raft::group::Group;
use slotcast::raft::groups::{Groups, seed_elections};
use slotcast::raft::proposal::Outcome;
use slotcast::wal::disk::Disk;
use slotcast::wal::record::{Kind, Record};
use slotcast::wal::recovery::{WalOptions, open};
use slotcast::wal::segment::number;
use slotcast::wal::simulated::{Failure, SimulatedDisk};
use slotcast::wal::trust::{Boot, Sync};
use slotcast::wal::writer::Sizes;
use tokio::task::JoinHandle;

use crate::cluster::{
    GROUP, Journal, Node, Scratch, becomes, eventually, host, in_virtual_time, network, numbered, propose,
    write, write_all,
};

const LOG: usize = 1 << 20;

/// A node, its disk, and what runs its log.
struct Life {
    node: Node,
    group: Group,
    journal: Journal,
    flusher: JoinHandle<()>,
}

/// Three nodes in a network in memory.
struct Machines {
    network: Network,
    disks: [SimulatedDisk; 3],
    boots: [u128; 3],
    sync: Sync,
    lives: [Option<Life>; 3],
}

impl Machines {
    async fn start(seed: u64, sync: Sync) -> Machines {
        seed_elections(seed);
        let (disks, lives) = (Default::default(), [None, None, None]);
        let mut machines = Machines { network: network(seed), disks, boots: [1; 3], sync, lives };
        machines.start_all().await;
        let members = (0..3).map(|n| (11 + n as u64, machines.life(n).node.as_member())).collect();
        machines.life(0).group.initialize(members).await.unwrap();
        machines
    }

    fn life(&self, n: usize) -> &Life {
        self.lives[n].as_ref().unwrap()
    }

    async fn start_all(&mut self) {
        for n in 0..3 {
            if self.lives[n].is_none() {
                self.start_one(n).await.unwrap();
            }
        }
    }

    async fn start_one(&mut self, n: usize) -> io::Result<()> {
        let disk = Arc::new(self.disks[n].clone());
        let options = WalOptions {
            disk,
            sync: self.sync,
            boot: Some(Boot(self.boots[n])),
            draw: n as u64,
            sizes: Sizes::default(),
        };
        let (wal, flusher, past) = open(options)?;
        assert_eq!(past.distrusted, None);
        let flusher = tokio::spawn(flusher.run());
        let (id, addr) = (NodeId::from_bytes([n as u8 + 1; 20]), host(n as u8 + 1));
        let bus = Bus::start(id, addr, Arc::new(self.network.host(addr))).await.unwrap();
        let groups = Groups::durable(bus.clone(), wal, past.members, false);
        let node = Node { id, bus, groups };
        let (group, journal) = node.join(11 + n as u64, LOG).await;
        self.lives[n] = Some(Life { node, group, journal, flusher });
        Ok(())
    }

    /// The process dies.
    async fn kill(&mut self, n: usize) {
        self.disks[n].kill();
        self.bury(n).await;
    }

    /// The machine dies.
    async fn lose_power(&mut self, n: usize, seed: u64) {
        self.boots[n] += 1;
        self.disks[n].lose_power(&mut StdRng::seed_from_u64(seed));
        self.bury(n).await;
    }

    async fn bury(&mut self, n: usize) {
        let Some(life) = self.lives[n].take() else { return };
        life.flusher.abort();
        self.network.crash(host(n as u8 + 1));
        life.group.shutdown().await;
        life.node.bus.shutdown();
    }

    async fn leader(&self) -> usize {
        eventually("a leader", || {
            (0..3).find(|n| {
                let Some(life) = &self.lives[*n] else { return false };
                life.group.state().borrow().ready && life.group.lease().is_valid(tokio::time::Instant::now())
            })
        })
        .await
    }

    async fn write(&self, payloads: impl Iterator<Item = Bytes>) {
        write_all(&self.life(self.leader().await).group, payloads).await;
    }

    /// All that live have applied exactly this.
    async fn all_have(&self, expected: &[Bytes]) {
        for life in self.lives.iter().flatten() {
            let what = format!("member {} to have all {} entries", life.group.member(), expected.len());
            eventually(&what, || (life.journal.0.lock().len() >= expected.len()).then_some(())).await;
            assert_eq!(*life.journal.0.lock(), expected);
        }
    }
}

fn payloads(range: std::ops::Range<usize>) -> Vec<Bytes> {
    range.map(|n| numbered(n, 100)).collect()
}

#[test]
fn all_members_killed_at_once_come_back_with_everything_acknowledged() {
    for sync in [Sync::Background, Sync::Always] {
        in_virtual_time(async {
            let mut machines = Machines::start(1, sync).await;
            let mut term = 0;
            for round in 0..4 {
                machines.write(payloads(round * 100..(round + 1) * 100).into_iter()).await;
                for n in 0..3 {
                    machines.kill(n).await;
                }
                machines.start_all().await;
                let leader = machines.leader().await;
                let state = machines.life(leader).group.state().borrow().clone();
                assert!(state.term > term, "no leader comes back without an election");
                assert_eq!(state.voters.keys().copied().collect::<Vec<_>>(), [11, 12, 13]);
                term = state.term;
                machines.all_have(&payloads(0..(round + 1) * 100)).await;
            }
        });
    }
}

#[test]
fn all_machines_losing_power_at_once_come_back_if_the_disks_were_waited_for() {
    in_virtual_time(async {
        let mut machines = Machines::start(2, Sync::Always).await;
        for round in 0..3 {
            machines.write(payloads(round * 100..(round + 1) * 100).into_iter()).await;
            for n in 0..3 {
                machines.lose_power(n, round as u64).await;
            }
            machines.start_all().await;
            machines.all_have(&payloads(0..(round + 1) * 100)).await;
        }
    });
}

#[test]
fn one_that_was_away_catches_up_by_the_log_under_its_old_id() {
    in_virtual_time(async {
        let mut machines = Machines::start(3, Sync::Background).await;
        machines.write(payloads(0..100).into_iter()).await;
        let away = (machines.leader().await + 1) % 3;
        machines.kill(away).await;
        machines.write(payloads(100..300).into_iter()).await;
        machines.start_one(away).await.unwrap();
        assert!(
            machines.life(away).journal.0.lock().len() >= 64,
            "what it knew to be committed is there at once"
        );
        machines.all_have(&payloads(0..300)).await;
        assert_eq!(machines.life(away).journal.installed(), 0, "no snapshot was needed");
    });
}

#[test]
fn whatever_operation_of_a_disk_is_its_last_nothing_acknowledged_is_lost() {
    for at in (1..400).step_by(25) {
        in_virtual_time(async {
            let mut machines = Machines::start(5 + at, Sync::Always).await;
            let leader = machines.leader().await;
            let group = machines.life(leader).group.clone();
            let fail = Failure {
                at: machines.disks[leader].operations() + at,
                for_ever: true,
                kind: io::ErrorKind::Other,
                half: true,
            };
            machines.disks[leader].fail(Some(fail));
            let mut acknowledged = Vec::new();
            for payload in payloads(0..100) {
                let outcome = propose(&group, payload.clone());
                match tokio::time::timeout(std::time::Duration::from_secs(2), outcome).await {
                    Ok(Ok(Outcome::Applied { .. })) => acknowledged.push(payload),
                    _ => break,
                }
            }
            for n in 0..3 {
                machines.lose_power(n, at).await;
            }
            machines.start_all().await;
            let leader = machines.leader().await;
            assert!(matches!(write(&machines.life(leader).group, "after").await, Outcome::Applied { .. }));
            let journal = machines.life(leader).journal.0.lock().clone();
            assert!(
                journal.starts_with(&acknowledged),
                "{} acknowledged, {} there",
                acknowledged.len(),
                journal.len()
            );
        });
    }
}

#[test]
fn a_member_of_another_id_begins_empty_and_the_former_one_is_forgotten() {
    in_virtual_time(async {
        let disk = SimulatedDisk::default();
        let network = network(6);
        let start = async |member: u64| {
            let options = WalOptions {
                disk: Arc::new(disk.clone()),
                sync: Sync::Background,
                boot: Some(Boot(1)),
                draw: 1,
                sizes: Sizes::default(),
            };
            let (wal, _, past) = open(options).unwrap();
            let known: Vec<u64> = past.members.keys().map(|key| key.1).collect();
            let bus = Bus::start(NodeId::from_bytes([1; 20]), host(1), Arc::new(network.host(host(1))))
                .await
                .unwrap();
            let groups = Groups::durable(bus.clone(), wal.clone(), past.members, false);
            let node = Node { id: NodeId::from_bytes([1; 20]), bus, groups };
            let (group, journal) = node.join(member, LOG).await;
            (wal, node, group, journal, known)
        };
        let (wal, node, ..) = start(11).await;
        wal.append([Record::new(Kind::Committed, (GROUP, 11), 1, 1)], Box::new(drop));
        network.crash(host(1));
        node.bus.shutdown();
        disk.kill();
        let (_wal, node, group, journal, known) = start(24).await;
        assert_eq!(known, [11]);
        assert!(journal.0.lock().is_empty() && group.state().borrow().voters.is_empty());
        network.crash(host(1));
        node.bus.shutdown();
        disk.kill();
        assert!(!start(24).await.4.contains(&11));
    });
}

#[tokio::test]
async fn snapshots_let_the_log_go_and_both_together_bring_everything_back() {
    const LOG: usize = 256 << 10;
    let scratch = Scratch::new();
    let disk = SimulatedDisk::default();
    let (mut written, mut gone) = (0, 1);
    for life in 0..3 {
        let options = WalOptions {
            disk: Arc::new(disk.clone()),
            sync: Sync::Background,
            boot: Some(Boot(1)),
            draw: 1,
            sizes: Sizes::default(),
        };
        let (wal, flusher, past) = open(options).unwrap();
        let flusher = tokio::spawn(flusher.run());
        let bus =
            Bus::start(NodeId::from_bytes([1; 20]), ([127, 0, 0, 1], 0).into(), Arc::new(Tcp)).await.unwrap();
        let groups = Groups::durable(bus.clone(), wal, past.members, false);
        let node = Node { id: NodeId::from_bytes([1; 20]), bus, groups };
        let (group, journal) = node.join_in(Some(&scratch.0), 11, LOG).await;
        let begun_with = journal.0.lock().len();
        if life == 0 {
            group.initialize(BTreeMap::from([(11, node.as_member())])).await.unwrap();
        }
        becomes(&group, "to lead", |state| state.ready).await;
        assert_eq!(*journal.0.lock(), (0..written).map(|n| numbered(n, 60_000)).collect::<Vec<_>>());
        assert_eq!((begun_with > 0, group.saved_snapshot().is_some()), (life > 0, life > 0));
        write_all(&group, (written..written + 100).map(|n| numbered(n, 60_000))).await;
        written += 100;
        eventually("a snapshot", || group.saved_snapshot().filter(|index| *index > 0)).await;
        let oldest = || disk.list().unwrap().iter().filter_map(|name| number(name)).min();
        eventually("the log to go", || (oldest() > Some(gone)).then_some(())).await;
        gone = oldest().unwrap();
        disk.kill();
        flusher.abort();
        group.shutdown().await;
        node.bus.shutdown();
    }
}

#[test]
fn a_leader_with_a_full_disk_loses_nothing_and_goes_on_when_there_is_room() {
    in_virtual_time(async {
        let mut machines = Machines::start(7, Sync::Background).await;
        machines.write(payloads(0..50).into_iter()).await;
        let full = machines.leader().await;
        machines.disks[full].limit(Some(machines.disks[full].used()));
        // A majority has room: what is acknowledged is on the two others.
        machines.write(payloads(50..100).into_iter()).await;
        let group = machines.life(full).group.clone();
        let heir = (11..14).find(|member| *member != group.member()).unwrap();
        group.transfer_leader(heir).await.unwrap();
        let leader = machines.leader().await;
        assert_ne!(leader, full);
        machines.write(payloads(100..150).into_iter()).await;
        let refused = machines.life(leader).group.transfer_leader(group.member()).await;
        assert!(refused.is_err(), "it cannot lead");
        machines.disks[full].limit(None);
        machines.leader().await;
        machines.all_have(&payloads(0..150)).await;
        for n in 0..3 {
            machines.kill(n).await;
        }
        machines.start_all().await;
        machines.all_have(&payloads(0..150)).await;
    });
}

#[test]
fn with_all_disks_full_nothing_is_acknowledged_until_there_is_room() {
    in_virtual_time(async {
        let machines = Machines::start(8, Sync::Background).await;
        machines.write(payloads(0..50).into_iter()).await;
        let group = machines.life(machines.leader().await).group.clone();
        machines.disks.iter().for_each(|disk| disk.limit(Some(disk.used())));
        let mut waiting = propose(&group, payloads(50..51).remove(0));
        let early = tokio::time::timeout(std::time::Duration::from_secs(3), &mut waiting).await;
        assert!(!matches!(early, Ok(Ok(Outcome::Applied { .. }))), "nobody has it on a disk");
        machines.disks.iter().for_each(|disk| disk.limit(None));
        let leader = machines.leader().await;
        eventually("writes again", || machines.life(leader).group.state().borrow().ready.then_some(())).await;
        assert!(matches!(write(&machines.life(leader).group, "after").await, Outcome::Applied { .. }));
        assert!(machines.lives.iter().flatten().all(|life| life.group.state().borrow().failed.is_none()));
    });
}

#[test]
fn after_a_failed_fsync_the_member_fails_and_the_others_go_on() {
    in_virtual_time(async {
        let machines = Machines::start(9, Sync::Always).await;
        machines.write(payloads(0..50).into_iter()).await;
        let bad = machines.leader().await;
        let at = machines.disks[bad].operations() + 1;
        machines.disks[bad].fail(Some(Failure {
            at,
            for_ever: true,
            kind: io::ErrorKind::Other,
            half: true,
        }));
        let _ = propose(&machines.life(bad).group, Bytes::from_static(b"perhaps")).await;
        becomes(&machines.life(bad).group, "to fail", |state| state.failed.is_some()).await;
        let leader = eventually("another leader", || {
            (0..3).find(|n| *n != bad && machines.life(*n).group.state().borrow().ready)
        })
        .await;
        assert!(matches!(write(&machines.life(leader).group, "after").await, Outcome::Applied { .. }));
    });
}
