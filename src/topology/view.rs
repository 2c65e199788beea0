//! What one node routes by: the topology, and what it knows itself about leaders and peers.
//!
//! The published leader of a shard is late by a round through the metadata group; a member of the shard's group
//! knows earlier. The newer term wins. A view is immutable and replaced whole, so a request sees one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::id::{GroupId, NodeId};
use crate::topology::{Leadership, Topology};

/// One node's view of the cluster at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// This node.
    pub me: NodeId,
    /// What the metadata group says.
    pub topology: Arc<Topology>,
    /// What this node's own members of the shards' groups say: the last known leader, and whether it still is one
    /// (false: the term has moved on, or the leader was lost, and no new one is known).
    pub observed: BTreeMap<GroupId, Observed>,
    /// Nodes that don't answer, or not as the incarnation the topology names.
    pub unreachable: BTreeSet<NodeId>,
}

/// A shard's leadership as this node's member of the group sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The member's term, and the leader if it knows one in that term.
    pub term: u64,
    /// See above.
    pub leader: Option<NodeId>,
    /// Whether this node leads and may serve: an entry of its own term is applied.
    pub serving: bool,
}

impl View {
    /// The leader of a shard, though it may be gone: the newest known.
    pub fn master(&self, shard: GroupId) -> Option<NodeId> {
        let published = self.topology.shards.get(&shard)?.leadership;
        let observed = self
            .observed
            .get(&shard)
            .and_then(|seen| seen.leader.map(|node| Leadership { term: seen.term, node }));
        let newest = match (published, observed) {
            (Some(published), Some(observed)) if observed.term >= published.term => Some(observed),
            (Some(published), _) => Some(published),
            (None, observed) => observed,
        };
        newest
            .map(|leadership| leadership.node)
            .or_else(|| self.topology.shards.get(&shard).map(|shard| shard.home))
    }

    /// The node to name to clients as the shard's master: its leader, or, while that does not answer, a copy that does.
    ///
    /// Clients and tools want every slot to have a master at all times (jedis refuses holes). Some of them (redis-py)
    /// ask for the slots again when a connection breaks, and give up after a few refused ones; the copy parks what they
    /// send until there is a leader. It is another node than this one, if any is left: where only this one has lost sight
    /// of the leader, the other knows better and says MOVED.
    pub fn listed(&self, shard: GroupId) -> Option<NodeId> {
        let leader = self.master(shard)?;
        let copies = &self.topology.shards.get(&shard)?.copies;
        let lives = |node: &&NodeId| !self.unreachable.contains(node) && **node != leader;
        if leader == self.me || !self.unreachable.contains(&leader) {
            return Some(leader);
        }
        // The next one in the ring of node ids, so that the slots of a node with several shards are spread.
        let after = copies.keys().filter(lives).filter(|node| **node > leader);
        let others = after.chain(copies.keys().filter(lives));
        let stand_in = others.copied().find(|node| *node != self.me);
        let me = Some(self.me).filter(|me| copies.contains_key(me));
        stand_in.or(me).or(Some(leader))
    }

    /// Who can be asked now: the leader, if the newest term has one that answers.
    pub fn leader(&self, shard: GroupId) -> Option<NodeId> {
        let leader = self.master(shard)?;
        if let Some(seen) = self.observed.get(&shard) {
            let published = self.topology.shards.get(&shard).and_then(|shard| shard.leadership);
            let overtaken = published.is_some_and(|published| published.term > seen.term);
            if seen.leader.is_none() && !overtaken {
                return None;
            }
        }
        (leader == self.me || !self.unreachable.contains(&leader)).then_some(leader)
    }

    /// Whether this node leads the shard and may serve it.
    pub fn serves(&self, shard: GroupId) -> bool {
        self.observed.get(&shard).is_some_and(|seen| seen.serving && seen.leader == Some(self.me))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Node;
    use crate::topology::change::Change;

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 20])
    }

    /// Three nodes, a shard each; node 1 looks.
    fn view(unreachable: &[u8]) -> View {
        let node = |n: u8| {
            let bus = ([127, 0, 0, 1], 17000 + u16::from(n)).into();
            (id(n), Node { host: "h".into(), port: u16::from(n), bus, incarnation: 1 })
        };
        let (nodes, meta) = ((1..=3).map(node).collect(), (1..=3).map(|n| (id(n), u64::from(n))).collect());
        let mut topology = Topology::default();
        topology.apply(1, &Change::Form { nodes, meta, shards: 3, copies: 3 });
        let unreachable = unreachable.iter().copied().map(id).collect();
        View { me: id(1), topology: topology.into(), observed: BTreeMap::new(), unreachable }
    }

    #[test]
    fn a_living_copy_is_listed_in_place_of_a_leader_that_does_not_answer() {
        let listed = |unreachable: &[u8]| {
            let view = view(unreachable);
            [1, 2, 3].map(|shard| view.listed(GroupId(shard)).unwrap())
        };
        assert_eq!(listed(&[]), [id(1), id(2), id(3)]);
        assert_eq!(listed(&[2]), [id(1), id(3), id(3)], "another one than the one that is asked");
        assert_eq!(listed(&[3]), [id(1), id(2), id(2)]);
        assert_eq!(listed(&[2, 3]), [id(1), id(1), id(1)], "itself, as nobody else is left");
    }
}
