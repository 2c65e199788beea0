//! Members that are started in doubt about the end of their logs.

use std::sync::Arc;
use std::time::Duration;

use slotcast::bus::Bus;
use slotcast::id::NodeId;
use slotcast::raft::groups::{Groups, seed_elections};
use slotcast::raft::state::{GroupError, GroupOptions, Member, Timing};
use slotcast::wal::record::{Kind, Record};
use slotcast::wal::recovery::{WalOptions, open};
use slotcast::wal::simulated::SimulatedDisk;
use slotcast::wal::trust::{Boot, Sync};
use slotcast::wal::writer::Sizes;
use tokio::time::sleep;

use crate::cluster::{GROUP, Journal, host, in_virtual_time, network};

const MEMBER: u64 = 11;

fn options(disk: &SimulatedDisk, boot: u128) -> WalOptions {
    let (disk, boot) = (Arc::new(disk.clone()), Some(Boot(boot)));
    WalOptions { disk, sync: Sync::Background, boot, draw: 1, sizes: Sizes::default() }
}

/// A node whose machine has died under its member.
async fn in_doubt() -> Groups {
    seed_elections(1);
    let disk = SimulatedDisk::default();
    let (wal, _, _) = open(options(&disk, 1)).unwrap();
    wal.append([Record::new(Kind::Committed, (GROUP, MEMBER), 1, 1)], Box::new(drop));
    disk.kill();
    let (wal, _, past) = open(options(&disk, 2)).unwrap();
    assert!(past.doubted.is_some() && past.members.contains_key(&(GROUP, MEMBER)));
    let id = NodeId::from_bytes([1; 20]);
    let bus = Bus::start(id, host(1), Arc::new(network(1).host(host(1)))).await.unwrap();
    Groups::durable(bus, wal, past.members, true)
}

async fn start(groups: &Groups, member: u64) -> Result<(), GroupError> {
    let me = Member { node: NodeId::from_bytes([1; 20]), addr: host(1) };
    let (timing, log_bytes) = (Timing::default(), 1 << 20);
    let options = GroupOptions { group: GROUP, member, me, timing, log_bytes, snapshots: None };
    groups.start(options, Box::new(Journal::default())).await.map(drop)
}

/// A former member waits for a lease before it runs. Were its end noted after the doubt is over, this node would pass for
/// one in doubt for ever, whose copies are not there; whoever has lost power later would wait for them in vain.
#[test]
fn a_member_on_its_way_back_when_the_doubt_ends_does_not_come_and_leaves_no_end() {
    in_virtual_time(async {
        let groups = in_doubt().await;
        let ending = async {
            sleep(Duration::from_millis(100)).await;
            groups.end_doubt();
        };
        let (started, ()) = tokio::join!(start(&groups, MEMBER), ending);
        assert!(matches!(started, Err(GroupError::Stopped(_))), "{started:?}");
        assert!(groups.ends().is_empty() && groups.all().is_empty() && !groups.is_doubted());
        start(&groups, MEMBER + 1).await.unwrap();
        assert!(groups.ends().is_empty() && !groups.any_doubt(), "a new member is in none");
    });
}

#[test]
fn a_member_in_doubt_says_where_its_log_ended() {
    in_virtual_time(async {
        let groups = in_doubt().await;
        assert!(groups.is_doubted(), "though nothing is open yet, others must not count on it");
        start(&groups, MEMBER).await.unwrap();
        assert!(groups.any_doubt() && groups.is_doubted());
        assert_eq!(groups.ends().into_keys().collect::<Vec<_>>(), [(GROUP, MEMBER)]);
    });
}
