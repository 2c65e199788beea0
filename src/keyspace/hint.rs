//! Where a slot's table lies, for prefetching without the slot's lock.
//!
//! A lookup waits for memory three times: for the slot, for the table's bucket, for the record. A batch of lookups
//! can wait for all of them at once, but not behind locks, since taking one lets no load pass. So beside each slot
//! stand two plain numbers: the address of its table's control bytes and the number of its buckets. They are only
//! ever given to the processor as something to fetch: a stale or wrong one costs a little time and nothing else,
//! so they follow hashbrown's layout (control byte `i` at `control + i`, bucket `i` ending at
//! `control - i * size`) without depending on it.
//!
//! The third number is the last cut the slot was written for (see `keyspace::cut`); it changes under the lock only, and
//! stands here because here it has room in a line that is being looked at anyway.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use crate::keyspace::record::{Record, prefetch};
use crate::keyspace::slot::Slot;

/// See the module's documentation.
#[derive(Default)]
pub struct Hint {
    control: AtomicUsize,
    buckets: AtomicU32,
    pub(super) cut: AtomicU32,
}

impl Hint {
    /// Follows the slot's table. To be called when it has been resized.
    pub fn follow(&self, slot: &Slot) {
        let (first, address) = slot.first_bucket().unwrap_or((0, 0));
        self.control.store(address + (first + 1) * size_of::<Record>(), Relaxed);
        self.buckets.store(slot.buckets() as u32, Relaxed);
    }

    /// Takes over where another slot's table lies, and gives where this one's did.
    pub fn swap(&self, other: &Hint) {
        other.control.store(self.control.swap(other.control.load(Relaxed), Relaxed), Relaxed);
        other.buckets.store(self.buckets.swap(other.buckets.load(Relaxed), Relaxed), Relaxed);
    }

    /// Starts fetching what a lookup of `hash` looks at first.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        let (control, buckets) = (self.control.load(Relaxed), self.buckets.load(Relaxed) as usize);
        let position = hash as usize & buckets.wrapping_sub(1);
        prefetch(control.wrapping_add(position) as *const u8);
        let bucket = position.wrapping_add(1).wrapping_mul(size_of::<Record>());
        prefetch(control.wrapping_sub(bucket) as *const u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_of_an_empty_or_unknown_table_does_no_harm() {
        let hint = Hint::default();
        hint.prefetch(0);
        hint.prefetch(u64::MAX);
        hint.follow(&Slot::default());
        hint.prefetch(77);
    }
}
