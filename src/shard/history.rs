//! Where a shard's copy stands in the shard's history: its lineage, and the last entry applied.
//!
//! In single-node mode there are no entries: the changes that somebody listens to are numbered instead, one after the
//! other, and a lineage lasts as long as the process.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::time::Millis;

/// How often a leader proposes that a history begin, until one has (ms).
const RETRY: Millis = 1_000;
/// In place of a lineage that is not known yet.
const NEXT: u64 = u64::MAX;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct History {
    lineage: AtomicU64,
    applied: AtomicU64,
    /// Held while a change of single-node mode is numbered and told.
    turn: Mutex<()>,
    /// The lineage that is to end, because what was acknowledged in it may be lost; 0: none; [`NEXT`]: the first to come.
    doubted: AtomicU64,
    /// When a beginning was last proposed.
    proposed: AtomicU64,
}

impl History {
    /// The lineage; 0: not known yet.
    pub fn lineage(&self) -> u64 {
        self.lineage.load(Ordering::Acquire)
    }

    /// The last entry that is applied as a whole. What a read finds under a slot's lock is at least as new as that,
    /// and every later change has a greater index.
    #[inline]
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// A history begins, here or by a snapshot.
    pub fn begin(&self, lineage: u64) {
        // It was in doubt already when its log had not been read so far.
        let _ = self.doubted.compare_exchange(NEXT, lineage, Ordering::Relaxed, Ordering::Relaxed);
        self.lineage.store(lineage, Ordering::Release);
    }

    /// Entries that were acknowledged may be lost: what follows is another history.
    pub fn doubt(&self) {
        #[cfg(feature = "broken")]
        if crate::broken::breaks(crate::broken::Rule::HistoryKept) {
            return;
        }
        let lineage = match self.lineage() {
            0 => NEXT,
            lineage => lineage,
        };
        self.doubted.store(lineage, Ordering::Relaxed);
    }

    /// After which lineage another has to begin before anything else is written: there is none yet, or it is in doubt.
    pub fn ends_after(&self) -> Option<u64> {
        let lineage = self.lineage();
        (lineage == 0 || lineage == self.doubted.load(Ordering::Relaxed)).then_some(lineage)
    }

    /// Whether its leader should propose at `now` that another history begin, and after which: there is none yet, or it
    /// is in doubt; and it was not proposed just before.
    pub fn should_end(&self, now: Millis) -> Option<u64> {
        let after = self.ends_after()?;
        let due = now.saturating_sub(self.proposed.load(Ordering::Relaxed)) >= RETRY;
        if due {
            self.proposed.store(now, Ordering::Relaxed);
        }
        due.then_some(after)
    }

    /// An entry is applied as a whole.
    pub fn advance(&self, index: u64) {
        self.applied.store(index, Ordering::Release);
    }

    /// Gives a change of single-node mode the next number, and tells of it before the next one gets its own.
    pub fn number(&self, tell: impl FnOnce(u64)) -> u64 {
        let _turn = self.turn.lock();
        let index = self.applied() + 1;
        tell(index);
        self.advance(index);
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_to_begin_when_there_is_none_or_it_is_in_doubt() {
        let history = History::default();
        assert_eq!(history.should_end(5_000), Some(0));
        assert_eq!(history.should_end(5_500), None, "it was proposed just before");
        assert_eq!(history.should_end(6_000), Some(0));
        history.begin(7);
        assert_eq!(history.should_end(9_000), None);
        history.doubt();
        assert_eq!(history.should_end(10_000), Some(7));
        history.begin(8);
        assert_eq!(history.should_end(20_000), None);
    }

    #[test]
    fn a_history_that_is_in_doubt_before_it_is_known_ends_too() {
        let history = History::default();
        history.doubt();
        assert_eq!(history.ends_after(), Some(0));
        history.begin(7);
        assert_eq!(history.ends_after(), Some(7));
        history.begin(8);
        assert_eq!(history.ends_after(), None);
    }
}
