//! Who hears of effects: the door through which changes leave a shard.

use crate::keyspace::effect::{Audience, Change, Effect, Nobody};
use crate::keyspace::event::Occurrence;
use crate::keyspace::locked::Lookups;

/// Who hears of effects. Called while the locks of the slots concerned are held, in the order of application, so
/// that nothing can be read between a change and its notice; it must be short and must not touch the keyspace.
pub trait Observer: Audience + Send + Sync {
    /// What applying one unit of the entry at `index` did. `author` is the connection that asked for it, if it is one
    /// of this node's.
    fn observe(&self, index: u64, author: Option<u64>, effects: &[Effect]);
    /// All of the entry's units are applied; no lock is held.
    fn applied(&self, index: u64);
    /// Another state has taken the place of this copy's, or another lineage begins; no lock is held.
    fn replaced(&self, lineage: u64, index: u64);
    /// Whether anybody would hear of events now. If not, they are not even noted. `here`: as in [`Observer::announce`].
    fn wants_events(&self, _here: bool) -> bool {
        false
    }
    /// What applying one unit, or a read, did to keys, by its names. `here`: on this node and no other, because it
    /// proposed the unit or served the read.
    fn announce(&self, _here: bool, _events: &[Occurrence]) {}
    /// So many keys went since their time came, or since memory was short; for the counters.
    fn removed(&self, change: Change, keys: usize);
    /// A read that waited for the log has looked keys up; for the counters.
    fn looked_up(&self, lookups: Lookups);
    /// A connection has read this key and wants to hear of its next change.
    fn remember(&self, reader: u64, key: &[u8]);
}

impl Observer for Nobody {
    fn observe(&self, _: u64, _: Option<u64>, _: &[Effect]) {}

    fn applied(&self, _: u64) {}

    fn replaced(&self, _: u64, _: u64) {}

    fn removed(&self, _: Change, _: usize) {}

    fn looked_up(&self, _: Lookups) {}

    fn remember(&self, _: u64, _: &[u8]) {}
}
