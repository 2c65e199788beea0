//! What can happen to the topology. Applying a change is deterministic and total: one that no longer fits (it was
//! overtaken) does nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{GroupId, MemberId, NodeId};
use crate::topology::slot_map::SlotMap;
use crate::topology::{Founder, Leadership, Node, Shard, Topology};

/// One change, as it goes through the metadata group's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The cluster begins: its nodes, one shard at home on each of the first `shards`, each with `copies` copies.
    Form {
        /// The first nodes.
        nodes: BTreeMap<NodeId, Node>,
        /// Their members in the metadata group.
        meta: BTreeMap<NodeId, MemberId>,
        /// Number of shards.
        shards: usize,
        /// Copies of each.
        copies: usize,
    },
    /// A node is here, perhaps anew: if its incarnation is new, it gets fresh member ids in the metadata group and
    /// in every group it holds a copy of.
    Join {
        /// Which.
        id: NodeId,
        /// Where, and which incarnation.
        node: Node,
    },
    /// A new node takes the place of one that is gone for good (its memory and its identity with it): the homes and
    /// copies of `old` become those of `id`, with fresh member ids.
    Replace {
        /// Which node is gone.
        old: NodeId,
        /// Which node comes in its place; one that is not known yet.
        id: NodeId,
        /// Where, and which incarnation.
        node: Node,
    },
    /// A node's member of one group has stopped for good; it gets a fresh one.
    Renew {
        /// Which group.
        group: GroupId,
        /// Which node.
        id: NodeId,
        /// The member that has stopped.
        member: MemberId,
    },
    /// A shard gets another home among the nodes that hold copies of it; its leadership follows.
    Home {
        /// Which shard.
        shard: GroupId,
        /// Which node.
        id: NodeId,
    },
    /// A shard's leader says so itself.
    Lead {
        /// Which shard.
        shard: GroupId,
        /// Since which term, and who.
        leadership: Leadership,
    },
}

impl Topology {
    /// Applies the change at this index of the metadata group's log.
    pub fn apply(&mut self, index: u64, change: &Change) {
        let changed = match change {
            Change::Form { nodes, meta, shards, copies } => self.form(nodes, meta, *shards, *copies),
            Change::Join { id, node } => self.join(*id, node),
            Change::Replace { old, id, node } => self.replace(*old, *id, node),
            Change::Renew { group, id, member } => self.renew(*group, *id, *member),
            Change::Home { shard, id } => self.rehome(*shard, *id),
            Change::Lead { shard, leadership } => self.lead(*shard, *leadership),
        };
        if changed {
            self.epoch = index;
        }
    }

    fn form(
        &mut self,
        nodes: &BTreeMap<NodeId, Node>,
        meta: &BTreeMap<NodeId, MemberId>,
        shards: usize,
        copies: usize,
    ) -> bool {
        if !self.nodes.is_empty() || nodes.is_empty() {
            return false;
        }
        self.nodes = nodes.clone();
        self.meta = meta.clone();
        self.next_member = meta.values().max().copied().unwrap_or(0) + 1;
        // Homes follow the nodes' addresses, so that an operator finds shard 1 on the first of the seeds.
        let mut order: Vec<(&Node, NodeId)> = nodes.iter().map(|(id, node)| (node, *id)).collect();
        order.sort_by_key(|(node, _)| (node.bus, node.port));
        let groups: Vec<GroupId> = (1..=shards as u32).map(GroupId).collect();
        for (at, group) in groups.iter().enumerate() {
            let mut shard = Shard {
                home: order[at % order.len()].1,
                copies: BTreeMap::new(),
                founders: BTreeMap::new(),
                leadership: None,
            };
            for step in 0..copies.min(order.len()) {
                let (node, id) = order[(at + step) % order.len()];
                let member = self.fresh_member();
                shard.copies.insert(id, member);
                shard.founders.insert(member, Founder { node: id, bus: node.bus });
            }
            self.shards.insert(*group, shard);
        }
        self.slots = SlotMap::even(&groups);
        true
    }

    fn join(&mut self, id: NodeId, node: &Node) -> bool {
        let known = self.nodes.insert(id, node.clone());
        if known.as_ref() == Some(node) {
            return false;
        }
        if known.is_none_or(|known| known.incarnation != node.incarnation) {
            let member = self.fresh_member();
            self.meta.insert(id, member);
            let held: Vec<GroupId> = self
                .shards
                .iter()
                .filter(|(_, shard)| shard.copies.contains_key(&id))
                .map(|(group, _)| *group)
                .collect();
            for group in held {
                let member = self.fresh_member();
                if let Some(shard) = self.shards.get_mut(&group) {
                    shard.copies.insert(id, member);
                }
            }
        }
        true
    }

    fn replace(&mut self, old: NodeId, id: NodeId, node: &Node) -> bool {
        if self.nodes.contains_key(&id) || self.nodes.remove(&old).is_none() {
            return false;
        }
        self.nodes.insert(id, node.clone());
        self.meta.remove(&old);
        let member = self.fresh_member();
        self.meta.insert(id, member);
        for group in self.shards.keys().copied().collect::<Vec<_>>() {
            let fresh = self.next_member;
            let Some(shard) = self.shards.get_mut(&group) else { continue };
            if shard.home == old {
                shard.home = id;
            }
            if shard.leadership.is_some_and(|leadership| leadership.node == old) {
                shard.leadership = None;
            }
            if shard.copies.remove(&old).is_some() {
                shard.copies.insert(id, fresh);
                self.next_member = fresh + 1;
            }
        }
        true
    }

    fn renew(&mut self, group: GroupId, id: NodeId, member: MemberId) -> bool {
        let fresh = self.next_member;
        let held = match group {
            GroupId::META => self.meta.get_mut(&id),
            _ => self.shards.get_mut(&group).and_then(|shard| shard.copies.get_mut(&id)),
        };
        let Some(held) = held.filter(|held| **held == member) else { return false };
        *held = fresh;
        self.next_member = fresh + 1;
        true
    }

    fn rehome(&mut self, shard: GroupId, id: NodeId) -> bool {
        let shard =
            self.shards.get_mut(&shard).filter(|shard| shard.copies.contains_key(&id) && shard.home != id);
        shard.map(|shard| shard.home = id).is_some()
    }

    fn lead(&mut self, shard: GroupId, leadership: Leadership) -> bool {
        let Some(shard) = self.shards.get_mut(&shard) else { return false };
        if shard.leadership.is_some_and(|known| known.term >= leadership.term) {
            return false;
        }
        shard.leadership = Some(leadership);
        true
    }

    fn fresh_member(&mut self) -> MemberId {
        let member = self.next_member;
        self.next_member += 1;
        member
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn node(port: u16, incarnation: u64) -> Node {
        Node { host: "127.0.0.1".into(), port, bus: ([127, 0, 0, 1], port + 10_000).into(), incarnation }
    }

    fn formed() -> (Topology, Vec<NodeId>) {
        // Ids in the opposite order of the ports, so that homes can only come from the addresses.
        let ids: Vec<NodeId> = (0..3).map(|n| NodeId::from_bytes([9 - n; 20])).collect();
        let nodes = ids.iter().zip(7001..).map(|(id, port)| (*id, node(port, 1))).collect();
        let meta = ids.iter().copied().zip(1..).collect();
        let mut topology = Topology::default();
        topology.apply(5, &Change::Form { nodes, meta, shards: 3, copies: 3 });
        (topology, ids)
    }

    #[test]
    fn forming_gives_each_node_a_shard_and_each_member_an_id_of_its_own() {
        let (topology, ids) = formed();
        assert_eq!(topology.epoch, 5);
        assert_eq!(topology.shards[&GroupId(1)].home, ids[0]);
        assert_eq!(topology.shards[&GroupId(3)].home, ids[2]);
        let mut members: Vec<_> =
            topology.shards.values().flat_map(|shard| shard.founders.keys().copied()).collect();
        members.extend(topology.meta.values());
        members.sort();
        members.dedup();
        assert_eq!(members.len(), 12);
    }

    #[test]
    fn a_second_cluster_is_never_formed() {
        let (mut topology, ids) = formed();
        let before = topology.clone();
        let nodes = BTreeMap::from([(ids[0], node(9, 9))]);
        topology.apply(6, &Change::Form { nodes, meta: BTreeMap::new(), shards: 1, copies: 1 });
        assert_eq!(topology, before);
    }

    #[test]
    fn a_new_incarnation_gets_new_member_ids_everywhere_and_an_old_one_keeps_its_own() {
        let (mut topology, ids) = formed();
        let before = topology.clone();
        topology.apply(6, &Change::Join { id: ids[1], node: node(7002, 1) });
        assert_eq!(topology, before);
        topology.apply(7, &Change::Join { id: ids[1], node: node(7002, 2) });
        assert_eq!(topology.epoch, 7);
        assert!(topology.meta[&ids[1]] > before.meta[&ids[1]]);
        for (group, shard) in &topology.shards {
            assert!(shard.copies[&ids[1]] >= before.next_member);
            assert_eq!(shard.copies[&ids[0]], before.shards[group].copies[&ids[0]]);
        }
    }

    #[test]
    fn a_home_moves_to_a_node_with_a_copy_and_to_no_other() {
        let (mut topology, ids) = formed();
        topology.apply(6, &Change::Home { shard: GroupId(1), id: ids[2] });
        assert_eq!((topology.epoch, topology.shards[&GroupId(1)].home), (6, ids[2]));
        topology.apply(7, &Change::Home { shard: GroupId(1), id: ids[2] });
        topology.apply(8, &Change::Home { shard: GroupId(1), id: NodeId::from_bytes([77; 20]) });
        assert_eq!((topology.epoch, topology.shards[&GroupId(1)].home), (6, ids[2]));
    }

    #[test]
    fn a_replacement_takes_over_homes_and_copies_under_fresh_ids() {
        let (mut topology, ids) = formed();
        let before = topology.clone();
        let new = NodeId::from_bytes([77; 20]);
        let leadership = Leadership { term: 4, node: ids[1] };
        topology.apply(6, &Change::Lead { shard: GroupId(2), leadership });
        topology.apply(7, &Change::Replace { old: ids[1], id: new, node: node(7002, 2) });
        assert!(!topology.nodes.contains_key(&ids[1]) && !topology.meta.contains_key(&ids[1]));
        assert_eq!(topology.shards[&GroupId(2)].home, new);
        assert_eq!(topology.shards[&GroupId(2)].leadership, None);
        let mut fresh: Vec<_> = topology.shards.values().map(|shard| shard.copies[&new]).collect();
        fresh.push(topology.meta[&new]);
        fresh.sort();
        assert_eq!(fresh, (before.next_member..before.next_member + 4).collect::<Vec<_>>());
        assert_eq!(topology.next_member, before.next_member + 4);
        let after = topology.clone();
        topology.apply(8, &Change::Replace { old: ids[0], id: new, node: node(7002, 2) });
        assert_eq!(topology, after, "a known node replaces nobody");
    }

    #[test]
    fn a_stopped_member_is_renewed_once() {
        let (mut topology, ids) = formed();
        let (old, fresh) = (topology.shards[&GroupId(1)].copies[&ids[0]], topology.next_member);
        let renew = Change::Renew { group: GroupId(1), id: ids[0], member: old };
        topology.apply(6, &renew);
        topology.apply(7, &renew);
        assert_eq!(topology.shards[&GroupId(1)].copies[&ids[0]], fresh);
        assert_eq!((topology.epoch, topology.next_member), (6, fresh + 1));
    }

    #[test]
    fn an_older_leader_does_not_overwrite_a_newer_one() {
        let (mut topology, ids) = formed();
        let lead = |term, node| Change::Lead { shard: GroupId(1), leadership: Leadership { term, node } };
        topology.apply(6, &lead(4, ids[0]));
        topology.apply(7, &lead(3, ids[1]));
        assert_eq!(topology.shards[&GroupId(1)].leadership, Some(Leadership { term: 4, node: ids[0] }));
        assert_eq!(topology.epoch, 6);
    }
}
