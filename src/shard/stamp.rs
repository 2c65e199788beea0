//! What a leader stamps on an entry: the log's time, and a seed for random choices.
//!
//! An entry is applied at the time it was stamped with, however long it is under way. So reads do not run ahead of
//! the oldest entry under way: a key that a read has found past its deadline must not be alive for a later write
//! (EXPIRE, PERSIST, an EXEC with WATCH), or it would come back.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::time::{Clock, Millis};

/// The step between two seeds: odd and irregular, so that they repeat after 2^64 (splitmix64's).
const SEED_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A shard's clock and seeds.
pub struct Stamp {
    clock: Clock,
    /// The leader's time in the last entry applied: the log's clock. It never goes back.
    log_time: AtomicU64,
    /// The times of the entries under way: a few.
    under_way: Mutex<Vec<Millis>>,
    /// The earliest of them; `u64::MAX`: none.
    oldest: AtomicU64,
    seed: AtomicU64,
}

impl Stamp {
    /// Follows `clock`; `seed` starts the seeds.
    pub fn new(clock: Clock, seed: u64) -> Self {
        let (log_time, oldest) = (AtomicU64::new(0), AtomicU64::new(Millis::MAX));
        Self { clock, log_time, under_way: Mutex::default(), oldest, seed: AtomicU64::new(seed) }
    }

    /// Now, for whoever reads: see [`Stamp::for_read`].
    pub fn now(&self) -> Millis {
        self.for_read(self.clock.now())
    }

    /// The moment at which a read happens that took `wall` from the clock: not after the oldest entry under way, and
    /// never before the log's clock (a new leader's clock may be behind its predecessor's).
    #[inline]
    pub fn for_read(&self, wall: Millis) -> Millis {
        wall.min(self.oldest.load(Ordering::SeqCst)).max(self.log_time.load(Ordering::Relaxed))
    }

    /// The time of an entry that sets out now. To be given back to [`Stamp::arrived`], once.
    pub fn departs(&self) -> Millis {
        let mut under_way = self.under_way.lock();
        // The wall clock may be set back; an entry never sets out before one that is under way already.
        let mut bound = under_way.iter().copied().max().unwrap_or(0);
        if under_way.is_empty() {
            // Published before the entry takes its time: a read that misses it took its own time earlier still.
            bound = self.clock.now();
            self.oldest.store(bound, Ordering::SeqCst);
        }
        let time = self.clock.now().max(self.log_time.load(Ordering::Relaxed)).max(bound);
        under_way.push(time);
        time
    }

    /// An entry of this time is applied, or nobody waits for it any more.
    pub fn arrived(&self, time: Millis) {
        let mut under_way = self.under_way.lock();
        if let Some(at) = under_way.iter().position(|departed| *departed == time) {
            under_way.swap_remove(at);
        }
        self.oldest.store(under_way.iter().copied().min().unwrap_or(Millis::MAX), Ordering::SeqCst);
    }

    /// Moves the log's clock on to an entry's time (without a log: a thread's) and gives what holds for the entry.
    #[inline]
    pub fn advance(&self, entry_time: Millis) -> Millis {
        let so_far = self.log_time.load(Ordering::Relaxed);
        if so_far >= entry_time {
            return so_far; // A look costs nothing; a change that changes nothing would cost other threads the line.
        }
        self.log_time.fetch_max(entry_time, Ordering::Relaxed).max(entry_time)
    }

    /// A number that starts a unit's random sequence.
    pub fn seed(&self) -> u64 {
        self.seed.fetch_add(SEED_STEP, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, advance};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn reads_wait_for_the_oldest_entry_under_way() {
        let stamp = Stamp::new(Clock::Simulated { base: 1_000, start: Instant::now() }, 0);
        let first = stamp.departs();
        advance(Duration::from_millis(5)).await;
        let second = stamp.departs();
        advance(Duration::from_millis(5)).await;
        assert_eq!((first, second, stamp.now()), (1_000, 1_005, 1_000));
        stamp.advance(first);
        stamp.arrived(first);
        assert_eq!(stamp.now(), 1_005);
        stamp.arrived(second);
        assert_eq!(stamp.now(), 1_010);
        stamp.advance(2_000);
        assert_eq!((stamp.now(), stamp.departs()), (2_000, 2_000), "never before the log's clock");
    }
}
