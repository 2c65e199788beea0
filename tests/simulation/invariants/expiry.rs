//! At rest no copy keeps a key whose time has long been over. (That none answers with one, [`linearizable`] says.)
//!
//! [`linearizable`]: crate::invariants::linearizable

use crate::world::World;

/// Looks into all copies.
pub fn check(world: &World) {
    for (number, node) in world.nodes().iter().enumerate() {
        let Some(node) = node else { continue };
        for (group, keyspace) in &*node.server.hosted.keyspaces.load_full() {
            let kept = keyspace.usage().volatile;
            if kept != 0 {
                world
                    .trace
                    .violation(format!("node {number}, {group}: {kept} keys outlive their time for ever"));
            }
        }
    }
}
