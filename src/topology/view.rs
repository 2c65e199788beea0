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
    /// The leader of a shard to name to clients, though it may be gone: the newest known. Clients and tools want
    /// every slot to have a master at all times (jedis refuses holes), so the last one is listed until the next.
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
