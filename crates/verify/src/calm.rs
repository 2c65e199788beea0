//! Since when all has been well: what the campaign says to those who expect more of the cluster then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock;

/// A cheap handle, for any thread.
#[derive(Clone, Debug, Default)]
pub struct Calm(Arc<AtomicU64>);

impl Calm {
    /// A fault is about to begin.
    pub fn ends(&self) {
        self.0.store(0, Ordering::Release);
    }

    /// All faults are mended, and the cluster is in good health.
    pub fn begins(&self) {
        self.0.store(clock::now().max(1), Ordering::Release);
    }

    /// Since when there has been no fault; none: there is one, or the cluster has not recovered from it.
    pub fn since(&self) -> Option<u64> {
        let since = self.0.load(Ordering::Acquire);
        (since > 0).then_some(since)
    }
}
