//! Invariant: a group has at most one leader a term. And the opposite of an invariant, the goal after all faults:
//! every group has one, at home, with all its copies voting, and every node knows.

use std::collections::{BTreeMap, BTreeSet};

use slotcast::id::{GroupId, MemberId};

use crate::node::{NODES, Node};
use crate::trace::Trace;

/// Who led when.
#[derive(Default)]
pub struct Leaders {
    by_term: BTreeMap<(GroupId, u64), MemberId>,
}

impl Leaders {
    /// Looks at what a node thinks of itself.
    pub fn look(&mut self, node: usize, life: &Node, trace: &Trace) {
        for group in life.cluster.groups() {
            let state = group.state();
            let state = state.borrow();
            if !state.am_leader {
                continue;
            }
            let (id, me) = (group.id(), group.member());
            let first = *self.by_term.entry((id, state.term)).or_insert_with(|| {
                trace.note(format!("node {node} leads {id} in term {} (member {me})", state.term));
                me
            });
            if first != me {
                trace.violation(format!("{id}: members {first} and {me} both lead in term {}", state.term));
            }
        }
    }

    /// Terms with a leader, over all groups.
    pub fn count(&self) -> usize {
        self.by_term.len()
    }
}

/// What keeps the nodes from agreeing that all copies vote; `None`: nothing, and any one of them may be lost.
pub fn unsettled(nodes: &[Option<Node>]) -> Option<String> {
    let mut agreed: BTreeMap<GroupId, BTreeSet<MemberId>> = BTreeMap::new();
    for (number, node) in nodes.iter().enumerate() {
        let Some(node) = node else { return Some(format!("node {number} is down")) };
        if let Some(what) = node.cluster.waits().borrow().as_ref() {
            return Some(format!("node {number} waits for {what}"));
        }
        let groups = node.cluster.groups();
        if groups.len() != NODES + 1 {
            return Some(format!("node {number} has {} groups", groups.len()));
        }
        let topology = node.cluster.topology().borrow().clone();
        for group in groups {
            let copies = match topology.shards.get(&group.id()) {
                Some(shard) => &shard.copies,
                None => &topology.meta,
            };
            let copies: BTreeSet<MemberId> = copies.values().copied().collect();
            let state = group.state();
            let state = state.borrow();
            let voters: BTreeSet<MemberId> = state.voters.keys().copied().collect();
            let first = agreed.entry(group.id()).or_insert_with(|| voters.clone());
            let learns = !state.learners.is_empty();
            if voters != copies || voters != *first || learns || copies.len() != NODES {
                return Some(format!("node {number}, {}: {voters:?} vote, of {copies:?}", group.id()));
            }
        }
    }
    None
}

/// What is missing from a cluster in good health; `None`: nothing.
pub fn missing(nodes: &[Option<Node>]) -> Option<String> {
    if let Some(why) = unsettled(nodes) {
        return Some(why);
    }
    for (number, node) in nodes.iter().enumerate() {
        let Some(node) = node else { continue };
        let view = node.cluster.view().load_full();
        for (id, shard) in &view.topology.shards {
            let leader = view.leader(*id);
            if leader != Some(shard.home) {
                return Some(format!(
                    "node {number} has {leader:?} lead {id}, not its home {:?}",
                    shard.home
                ));
            }
            if view.me == shard.home && !view.serves(*id) {
                return Some(format!("node {number} leads {id} and does not serve it"));
            }
        }
    }
    None
}
