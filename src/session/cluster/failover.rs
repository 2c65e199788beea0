//! CLUSTER FAILOVER: this node becomes the home of shards that others lead, and their leaderships come home.
//!
//! In Redis it is said to a replica, which takes over from its master. Here a node is a replica of several masters: it
//! takes over from all of them, or from the one that is named. The former leader hands over when this node has its
//! whole log, so nothing is lost and clients wait for milliseconds; FORCE and TAKEOVER, which do without the master's
//! consent, change nothing about that, because a shard whose master has died elects another by itself. The home lasts:
//! otherwise the leadership would go back.

use crate::id::{GroupId, NodeId};
use crate::topology::view::View;

/// The shards with a copy here that another node (or just that one) leads or is the home of.
pub fn replicated_here(view: &View, from: Option<NodeId>) -> Vec<GroupId> {
    let elsewhere = |node: &NodeId| from.map_or(*node != view.me, |from| *node == from && from != view.me);
    let shards = view.topology.shards.iter().filter(|(id, shard)| {
        let leader = view.leader(**id).unwrap_or(shard.home);
        shard.copies.contains_key(&view.me) && (elsewhere(&leader) || elsewhere(&shard.home))
    });
    shards.map(|(id, _)| *id).collect()
}
