//! The one place that decides about redirects.

use slotcast_wire::redirect::Redirect;

use crate::id::GroupId;
use crate::topology::view::View;

/// What to do with a request for a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// This node leads the slot's shard.
    Lead(GroupId),
    /// This node has a copy of it and the session has said READONLY.
    Follow(GroupId),
    /// Another node does.
    Redirect(Redirect),
    /// Nobody is known to lead it now: wait for a leader a while (a failover takes less than a second), then
    /// answer CLUSTERDOWN.
    Park,
}

/// Where a request for `slot` belongs; `readonly`: the session accepts a replica and the command only reads.
pub fn route(view: &View, slot: u16, readonly: bool) -> Route {
    let Some(shard) = view.topology.slots.owner(slot) else {
        return Route::Park;
    };
    if view.serves(shard) {
        return Route::Lead(shard);
    }
    if readonly && view.topology.shards.get(&shard).is_some_and(|shard| shard.copies.contains_key(&view.me)) {
        return Route::Follow(shard);
    }
    let leader = view.leader(shard).filter(|leader| *leader != view.me);
    match leader.and_then(|leader| view.topology.nodes.get(&leader)) {
        Some(node) => Route::Redirect(Redirect::Moved { slot, host: node.host.clone(), port: node.port }),
        None => Route::Park,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use super::*;
    use crate::id::NodeId;
    use crate::topology::change::Change;
    use crate::topology::view::Observed;
    use crate::topology::{Node, Topology};

    const A: NodeId = NodeId::from_bytes([1; 20]);
    const B: NodeId = NodeId::from_bytes([2; 20]);

    fn view() -> View {
        let node = |port| Node { host: "h".into(), port, bus: ([127, 0, 0, 1], port).into(), incarnation: 0 };
        let mut topology = Topology::default();
        let (nodes, meta) = (BTreeMap::from([(A, node(1)), (B, node(2))]), BTreeMap::from([(A, 1), (B, 2)]));
        topology.apply(1, &Change::Form { nodes, meta, shards: 2, copies: 2 });
        let seen = |leader, serving| Observed { term: 3, leader, serving };
        let observed =
            BTreeMap::from([(GroupId(1), seen(Some(A), true)), (GroupId(2), seen(Some(B), false))]);
        View { me: A, topology: Arc::new(topology), observed, unreachable: BTreeSet::new() }
    }

    #[test]
    fn own_slots_are_served_and_others_redirected() {
        assert_eq!(route(&view(), 0, false), Route::Lead(GroupId(1)));
        let moved = Redirect::Moved { slot: 16383, host: "h".into(), port: 2 };
        assert_eq!(route(&view(), 16383, false), Route::Redirect(moved));
        assert_eq!(route(&view(), 16383, true), Route::Follow(GroupId(2)));
    }

    #[test]
    fn nobody_is_sent_to_a_dead_node_or_back_here() {
        let mut dead = view();
        dead.unreachable.insert(B);
        assert_eq!(route(&dead, 16383, false), Route::Park);
        let mut unknown = view();
        unknown.observed.insert(GroupId(2), Observed { term: 4, leader: None, serving: false });
        assert_eq!(route(&unknown, 16383, false), Route::Park);
        assert_eq!(unknown.master(GroupId(2)), Some(B), "it stays listed");
        let mut not_ready = view();
        not_ready.observed.insert(GroupId(1), Observed { term: 4, leader: Some(A), serving: false });
        assert_eq!(route(&not_ready, 0, false), Route::Park);
    }

    #[test]
    fn the_newer_term_wins() {
        let mut view = view();
        let mut topology = Topology::clone(&view.topology);
        let leadership = crate::topology::Leadership { term: 5, node: B };
        topology.apply(2, &Change::Lead { shard: GroupId(1), leadership });
        view.topology = Arc::new(topology);
        view.observed.insert(GroupId(1), Observed { term: 3, leader: Some(A), serving: false });
        assert_eq!(view.master(GroupId(1)), Some(B));
    }
}
