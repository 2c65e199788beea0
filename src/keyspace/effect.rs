//! What applying did to keys.
//!
//! Effects leave the keyspace in the order they happened, under the locks of the slots they happened in. They are
//! the one source of invalidations: whoever changes a key in any way shows up here, unless nobody would be told of it,
//! and nothing else does. An effect doesn't know who is interested.

use smallvec::SmallVec;

/// What one request did, in order; mostly one change of a key that is not long, which takes no allocation.
pub type Effects = SmallVec<[Effect; 1]>;
/// A changed key.
pub type Key = SmallVec<[u8; 31]>;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// One key changed.
    Key {
        /// The key's slot.
        slot: u16,
        /// The key.
        key: Key,
        /// In which way.
        change: Change,
    },
    /// Every key went (FLUSHALL, or a snapshot replaced the state).
    Flushed,
}

/// Who would be told of effects.
pub trait Audience {
    /// Whether anybody would be told now that this key changed; if not, it isn't even noted. Asked with the key's slot
    /// locked: asked earlier, a reader could begin to care in between and miss the change.
    fn cares_for(&self, key: &[u8]) -> bool;
}

/// Nobody is told.
pub struct Nobody;

impl Audience for Nobody {
    fn cares_for(&self, _key: &[u8]) -> bool {
        false
    }
}

/// Somebody is told of everything.
pub struct Everybody;

impl Audience for Everybody {
    fn cares_for(&self, _key: &[u8]) -> bool {
        true
    }
}

/// In which way a key changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Its value or its deadline was set.
    Set,
    /// A command removed it.
    Removed,
    /// Its time came.
    Expired,
    /// Memory was short.
    Evicted,
}
