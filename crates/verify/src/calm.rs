//! What the campaign says to the near caches' thread: since when all has been well, as more is expected then; and when to
//! stand still.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock;

/// A cheap handle, for any thread.
#[derive(Clone, Debug, Default)]
pub struct Calm(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    since: AtomicU64,
    pids: Mutex<Vec<u32>>,
}

impl Calm {
    /// A fault is about to begin.
    pub fn ends(&self) {
        self.0.since.store(0, Ordering::Release);
    }

    /// All faults are mended, and the cluster is in good health: these processes.
    pub fn begins(&self, pids: Vec<u32>) {
        *self.0.pids.lock().unwrap_or_else(PoisonError::into_inner) = pids;
        self.0.since.store(clock::now().max(1), Ordering::Release);
    }

    /// The nodes' processes, while there is no fault.
    pub fn pids(&self) -> Vec<u32> {
        self.0.pids.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Since when there has been no fault; none: there is one, or the cluster has not recovered from it.
    pub fn since(&self) -> Option<u64> {
        let since = self.0.since.load(Ordering::Acquire);
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
