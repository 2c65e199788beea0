//! The leader's lease: until when it may answer reads alone.
//!
//! Raft thesis §6.4.1. A quorum that acknowledged a message sent at time t votes for nobody else before t + the
//! election timeout; so nobody can have committed a newer value before then. The check comes *after* the read: if
//! the lease is still valid then, the read was current, however long the thread slept in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// A group's lease on this node, shared between the group and whoever reads. Cheap to clone and to check.
#[derive(Clone, Debug)]
pub struct Lease {
    start: Instant,
    /// Nanoseconds after `start`; 0: no lease.
    until: Arc<AtomicU64>,
}

impl Lease {
    /// No lease, counted from `now`.
    pub fn new(now: Instant) -> Lease {
        Lease { start: now, until: Arc::new(AtomicU64::new(0)) }
    }

    /// Whether a read finished before `now` was current. True only on a leader that has applied an entry of its
    /// own term.
    #[inline]
    pub fn is_valid(&self, now: Instant) -> bool {
        #[cfg(feature = "broken")]
        if crate::broken::breaks(crate::broken::Rule::ReadWithoutLease) {
            return self.until.load(Ordering::Acquire) > 0;
        }
        self.lasts(now)
    }

    /// Whether it has not ended: for the group itself, which no rule broken on purpose concerns.
    pub(in crate::raft) fn lasts(&self, now: Instant) -> bool {
        let now = now.saturating_duration_since(self.start).as_nanos() as u64;
        now < self.until.load(Ordering::Acquire)
    }

    /// When it ends, or has ended; `None`: there is none.
    pub fn until(&self) -> Option<Instant> {
        let until = self.until.load(Ordering::Acquire);
        (until > 0).then(|| self.start + Duration::from_nanos(until))
    }

    /// Lets it end at `until`.
    pub(in crate::raft) fn extend(&self, until: Instant) {
        let until = until.saturating_duration_since(self.start).as_nanos() as u64;
        self.until.store(until, Ordering::Release);
    }

    /// Ends it at once.
    pub(in crate::raft) fn revoke(&self) {
        self.until.store(0, Ordering::Release);
    }
}

/// How long a lease holds after a quorum has answered, where voters wait for `election_max`: it ends a tenth early, since
/// clocks' rates may differ.
pub(in crate::raft) fn lease_length(election_max: Duration) -> Duration {
    election_max - election_max / 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_holds_until_its_end_and_not_after_it_is_revoked() {
        let now = Instant::now();
        let lease = Lease::new(now);
        assert!(!lease.is_valid(now));
        lease.extend(now + Duration::from_millis(10));
        assert!(lease.is_valid(now + Duration::from_millis(9)));
        assert!(!lease.is_valid(now + Duration::from_millis(10)));
        lease.revoke();
        assert!(!lease.is_valid(now));
    }
}
