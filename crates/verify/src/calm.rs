//! What the campaign says to the near caches' thread: since when all has been well, as more is expected then; and when to
//! stand still.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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

/// Lets a thread stand still, as its process may; a cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Pause(Arc<AtomicU64>);

impl Pause {
    /// For so long.
    pub fn order(&self, lasts: Duration) {
        self.0.store(lasts.as_nanos() as u64, Ordering::Release);
    }

    /// How long the calling thread is to stand still, if it is; asked once.
    pub fn take(&self) -> Option<Duration> {
        let lasts = self.0.swap(0, Ordering::AcqRel);
        (lasts > 0).then(|| Duration::from_nanos(lasts))
    }
}
