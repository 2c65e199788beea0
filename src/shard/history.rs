//! Where a shard's copy stands in the shard's history: its lineage, and the last entry applied.
//!
//! In single-node mode there are no entries: the changes that somebody listens to are numbered instead, one after the
//! other, and a lineage lasts as long as the process.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::time::Millis;

/// How often a leader proposes that a history begin, until one has (ms).
const RETRY: Millis = 1_000;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct History {
    lineage: AtomicU64,
    applied: AtomicU64,
    /// Held while a change of single-node mode is numbered and told.
    turn: Mutex<()>,
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
        self.lineage.store(lineage, Ordering::Release);
    }

    /// Whether its leader should propose at `now` that a history begin: none has, and it was not proposed just before.
    pub fn should_begin(&self, now: Millis) -> bool {
        let due = self.lineage() == 0 && now.saturating_sub(self.proposed.load(Ordering::Relaxed)) >= RETRY;
        if due {
            self.proposed.store(now, Ordering::Relaxed);
        }
        due
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
