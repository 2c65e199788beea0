//! Publishes the view this node routes by: the topology, what its own members see, who answers on the bus.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::bus::Bus;
use crate::id::{GroupId, NodeId};
use crate::topology::Topology;
use crate::topology::view::{Observed, View};

/// The current view and those who change it.
pub struct Outlook {
    bus: Bus,
    topology: watch::Receiver<Arc<Topology>>,
    /// Locked while a view is built, so that the newest facts make the last view.
    observed: Mutex<BTreeMap<GroupId, Observed>>,
    view: Arc<ArcSwap<View>>,
    changes: watch::Sender<u64>,
}

impl Outlook {
    /// A view of what is known now.
    pub fn new(bus: Bus, topology: watch::Receiver<Arc<Topology>>) -> Outlook {
        let (me, observed, unreachable) = (bus.me(), BTreeMap::new(), BTreeSet::new());
        let view = View { me, topology: topology.borrow().clone(), observed, unreachable };
        let view = Arc::new(ArcSwap::from_pointee(view));
        Outlook { bus, topology, observed: Mutex::default(), view, changes: watch::Sender::new(0) }
    }

    /// Where the current view is found.
    pub fn view(&self) -> Arc<ArcSwap<View>> {
        self.view.clone()
    }

    /// A counter that changes after each new view.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What this node's member of a group sees now; `None`: it has none any more.
    pub fn observe(&self, group: GroupId, seen: Option<Observed>) {
        let mut observed = self.observed.lock();
        let before = match seen {
            Some(seen) => observed.insert(group, seen),
            None => observed.remove(&group),
        };
        if before != seen {
            self.publish(&observed);
        }
    }

    /// Follows the topology and the bus for ever.
    pub async fn follow(&self) {
        let (mut topology, mut reachability) = (self.topology.clone(), self.bus.reachability());
        loop {
            self.publish(&self.observed.lock());
            let ended = tokio::select! {
                changed = topology.changed() => changed.is_err(),
                changed = reachability.changed() => changed.is_err(),
            };
            if ended {
                return;
            }
        }
    }

    fn publish(&self, observed: &BTreeMap<GroupId, Observed>) {
        let topology = self.topology.borrow().clone();
        let silent = topology.nodes.keys().filter(|node| !self.bus.is_reachable(**node));
        let unreachable: BTreeSet<NodeId> = silent.copied().collect();
        let before = self.view.load_full();
        let same_topology = Arc::ptr_eq(&before.topology, &topology);
        if same_topology && before.unreachable == unreachable && before.observed == *observed {
            return;
        }
        let view = View { me: before.me, topology, observed: observed.clone(), unreachable };
        tell(&before, &view);
        self.view.store(Arc::new(view));
        self.changes.send_modify(|changes| *changes += 1);
    }
}

/// One log line for each node that falls silent or answers again, with the shards it leads.
fn tell(before: &View, now: &View) {
    for node in now.unreachable.difference(&before.unreachable) {
        let Some(known) = now.topology.nodes.get(node).filter(|_| before.topology.nodes.contains_key(node))
        else {
            continue;
        };
        let led = now.topology.shards.keys().filter(|shard| before.master(**shard) == Some(*node));
        let led: Vec<String> = led.map(GroupId::to_string).collect();
        let led = if led.is_empty() { "nothing".into() } else { led.join(", ") };
        tracing::warn!("node {} ({}:{}) does not answer; it led {led}", node.short(), known.host, known.port);
    }
    for node in before.unreachable.difference(&now.unreachable) {
        if let Some(known) = now.topology.nodes.get(node) {
            tracing::info!("node {} ({}:{}) answers", node.short(), known.host, known.port);
        }
    }
}
