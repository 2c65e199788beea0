//! What a leader stamps on an entry: the log's time, and a seed for random choices.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::time::{Clock, Millis};

/// The step between two seeds: odd and irregular, so that they repeat after 2^64 (splitmix64's).
const SEED_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A shard's clock and seeds.
pub struct Stamp {
    clock: Clock,
    /// The leader's time in the last entry applied: the log's clock. It never goes back.
    log_time: AtomicU64,
    seed: AtomicU64,
}

impl Stamp {
    /// Follows `clock`; `seed` starts the seeds.
    pub fn new(clock: Clock, seed: u64) -> Self {
        Self { clock, log_time: AtomicU64::new(0), seed: AtomicU64::new(seed) }
    }

    /// Now, but never before the log's clock: a new leader's clock may be behind its predecessor's.
    pub fn now(&self) -> Millis {
        self.not_before(self.clock.now())
    }

    /// A moment, but never before the log's clock.
    #[inline]
    pub fn not_before(&self, wall: Millis) -> Millis {
        wall.max(self.log_time.load(Ordering::Relaxed))
    }

    /// Moves the log's clock on to an entry's time and gives what holds for the entry.
    pub fn advance(&self, entry_time: Millis) -> Millis {
        self.log_time.fetch_max(entry_time, Ordering::Relaxed).max(entry_time)
    }

    /// A number that starts a unit's random sequence.
    pub fn seed(&self) -> u64 {
        self.seed.fetch_add(SEED_STEP, Ordering::Relaxed)
    }
}
