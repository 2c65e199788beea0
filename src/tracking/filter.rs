//! Whether something with a hash may be there, asked without a lock: mostly it isn't, and then nobody has to look.
//!
//! A counting Bloom filter with one hash function (Fan, Cao, Almeida, Broder: Summary Cache, 1998, §V.C): one load, in
//! memory that stays in a processor's cache. It says "maybe" of what isn't there for as large a share of hashes as its
//! places are taken. A place that many share counts no further and stays taken.
//!
//! Takes its memory when the first thing enters. It orders nothing: whoever asks must be ordered behind the entering by
//! other means (a slot's lock).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use crate::keyspace::record::prefetch;

/// See the module's documentation. `PLACES`: a power of two, each a byte.
#[derive(Debug, Default)]
pub struct Filter<const PLACES: usize> {
    counts: OnceLock<Box<[AtomicU8]>>,
}

impl<const PLACES: usize> Filter<PLACES> {
    const MASK: usize = {
        assert!(PLACES.is_power_of_two());
        PLACES - 1
    };

    /// Whether something with this hash may be there.
    #[inline]
    pub fn may_hold(&self, hash: u64) -> bool {
        self.counts.get().is_some_and(|counts| counts[hash as usize & Self::MASK].load(Relaxed) != 0)
    }

    /// Starts fetching what [`Filter::may_hold`] looks at.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        if let Some(counts) = self.counts.get() {
            prefetch(counts[hash as usize & Self::MASK].as_ptr());
        }
    }

    /// Something with this hash is there.
    pub fn enter(&self, hash: u64) {
        let counts = self.counts.get_or_init(|| (0..PLACES).map(|_| AtomicU8::new(0)).collect());
        let more = |count: u8| Some(count.saturating_add(1));
        let _ = counts[hash as usize & Self::MASK].fetch_update(Relaxed, Relaxed, more);
    }

    /// Something with this hash that had entered has gone.
    pub fn leave(&self, hash: u64) {
        let Some(counts) = self.counts.get() else { return };
        let less = |count: u8| if count == u8::MAX { None } else { count.checked_sub(1) };
        let _ = counts[hash as usize & Self::MASK].fetch_update(Relaxed, Relaxed, less);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_entered_until_as_many_left() {
        let filter = Filter::<256>::default();
        assert!(!filter.may_hold(7));
        filter.leave(7);
        [7, 7 + 256, 8].into_iter().for_each(|hash| filter.enter(hash));
        assert!(filter.may_hold(7) && filter.may_hold(8) && !filter.may_hold(9));
        filter.leave(7);
        assert!(filter.may_hold(7), "another one has its place");
        filter.leave(7 + 256);
        assert!(!filter.may_hold(7) && filter.may_hold(8));
    }

    #[test]
    fn a_place_that_was_full_is_never_taken_for_free() {
        let filter = Filter::<256>::default();
        (0..1_000).for_each(|_| filter.enter(3));
        (0..1_000).for_each(|_| filter.leave(3));
        assert!(filter.may_hold(3));
    }
}
