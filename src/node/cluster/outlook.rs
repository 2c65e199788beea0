//! Publishes the view this node routes by: the topology, what its own members see, who answers on the bus.
//!
//! To answer is not enough: a node that was restarted answers within milliseconds, but it has lost what the
//! topology says it has until the cluster lets it in anew. So each node that answers is asked which life
//! (incarnation) it is in, and counts as reachable only if it is the one the topology names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::bus::Bus;
use crate::id::{GroupId, NodeId};
use crate::meta::message::{Hello, hello};
use crate::topology::view::{Observed, View};
use crate::topology::{Node, Topology};

/// Between two questions to a node that is not in the life the topology names.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// What this node found out itself.
#[derive(Default)]
struct Facts {
    observed: BTreeMap<GroupId, Observed>,
    /// Nodes that said who they are: their incarnation, and at which connection they were asked.
    lives: BTreeMap<NodeId, (u64, u64)>,
}

/// The current view and those who change it.
pub struct Outlook {
    bus: Bus,
    topology: watch::Receiver<Arc<Topology>>,
    /// Locked while a view is built, so that the newest facts make the last view.
    facts: Mutex<Facts>,
    view: Arc<ArcSwap<View>>,
    changes: watch::Sender<u64>,
}

impl Outlook {
    /// A view of what is known now.
    pub fn new(bus: Bus, topology: watch::Receiver<Arc<Topology>>) -> Outlook {
        let (me, observed, unreachable) = (bus.me(), BTreeMap::new(), BTreeSet::new());
        let view = View { me, topology: topology.borrow().clone(), observed, unreachable };
        let view = Arc::new(ArcSwap::from_pointee(view));
        Outlook { bus, topology, facts: Mutex::default(), view, changes: watch::Sender::new(0) }
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
        let mut facts = self.facts.lock();
        let before = match seen {
            Some(seen) => facts.observed.insert(group, seen),
            None => facts.observed.remove(&group),
        };
        if before != seen {
            self.publish(&facts);
        }
    }

    /// Follows the topology and the bus for ever.
    pub async fn follow(&self) {
        let (mut topology, mut reachability) = (self.topology.clone(), self.bus.reachability());
        loop {
            self.publish(&self.facts.lock());
            let ended = tokio::select! {
                biased;
                changed = topology.changed() => changed.is_err(),
                changed = reachability.changed() => changed.is_err(),
                () = self.ask_strangers() => false,
            };
            if ended {
                return;
            }
        }
    }

    /// Asks the nodes that answer and are not known to be in the life the topology names; for ever, if there is
    /// none.
    async fn ask_strangers(&self) {
        let topology = self.topology.borrow().clone();
        let strangers: Vec<(SocketAddr, u64)> = topology
            .nodes
            .iter()
            .filter(|(id, node)| self.bus.is_reachable(**id) && !self.is_met(&self.facts.lock(), **id, node))
            .map(|(id, node)| (node.bus, self.bus.connections(*id)))
            .collect();
        if strangers.is_empty() {
            return std::future::pending().await;
        }
        let ask = async |(addr, connection): &(SocketAddr, u64)| (hello(&self.bus, *addr).await, *connection);
        let answers = join_all(strangers.iter().map(ask)).await;
        self.learn(answers);
        sleep(ASK_AGAIN).await;
    }

    fn learn(&self, answers: Vec<(Result<Hello, String>, u64)>) {
        let mut facts = self.facts.lock();
        for (answer, connection) in answers {
            if let Ok(hello) = answer {
                facts.lives.insert(hello.id, (hello.node.incarnation, connection));
            }
        }
        self.publish(&facts);
    }

    fn is_met(&self, facts: &Facts, id: NodeId, node: &Node) -> bool {
        let life = (node.incarnation, self.bus.connections(id));
        id == self.bus.me() || (facts.lives.get(&id) == Some(&life) && self.bus.is_reachable(id))
    }

    fn publish(&self, facts: &Facts) {
        let topology = self.topology.borrow().clone();
        let strangers = topology.nodes.iter().filter(|(id, node)| !self.is_met(facts, **id, node));
        let unreachable: BTreeSet<NodeId> = strangers.map(|(id, _)| *id).collect();
        let before = self.view.load_full();
        let same_topology = Arc::ptr_eq(&before.topology, &topology);
        if same_topology && before.unreachable == unreachable && before.observed == facts.observed {
            return;
        }
        let view = View { me: before.me, topology, observed: facts.observed.clone(), unreachable };
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
