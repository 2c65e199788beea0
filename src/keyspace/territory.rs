//! Which keys a walk is about, when that is not one keyspace: a node of a cluster has a keyspace for each shard it holds
//! and shows the slots of those it leads. Who leads what is for the implementer to know.

use crate::keyspace::Keyspace;

/// The slots a walk visits.
pub trait Territory {
    /// The keyspace that holds a slot; `None` if the slot belongs to others.
    fn keyspace_of(&self, slot: u16) -> Option<&Keyspace>;
}
