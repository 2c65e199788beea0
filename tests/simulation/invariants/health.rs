//! Liveness, the opposite of an invariant: once nothing goes wrong any more, every group has a leader within bounded
//! time, at home, with all its copies voting, and every node knows; writes succeed.

use std::collections::{BTreeMap, BTreeSet};

use slotcast::id::{GroupId, MemberId};

use crate::client::{Client, Outcome};
use crate::node::{NODES, Node};
use crate::workload::{CLIENTS, probe};
use crate::world::World;

/// A cluster forms, and is in good health again after all faults, within this (ms).
pub const PATIENCE: u64 = 20_000;
/// And then it takes a write to every shard within this.
const WRITES: u64 = 1_000;

/// Waits until the cluster is in good health, and tries whether it is; how long that took (ms). `None`: never.
pub fn recover(world: &mut World, seed: u64) -> Option<u64> {
    let begun = world.now;
    if !world.step_until(PATIENCE, |world| missing(world.nodes()).is_none()) {
        let why = missing(world.nodes());
        world.trace.violation(format!("not in good health after {PATIENCE} ms: {why:?}"));
        return None;
    }
    let healthy = world.now;
    let mut client = Client::new(98, seed, world.doors.clone(), world.trace.clone());
    let probing = world.spawn(async move {
        for number in 0..CLIENTS {
            if !matches!(client.request(&probe(number)).await, Outcome::Replies(_)) {
                return false;
            }
        }
        true
    });
    if world.wait_for(probing, WRITES) != Some(true) {
        world.trace.violation(format!("healthy, and yet not all writes succeed within {WRITES} ms"));
        return None;
    }
    Some(healthy - begun)
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
            if group.is_doubted() {
                return Some(format!("node {number}, {}: its log may lack its end", group.id()));
            }
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
