//! How far a follower's state may be behind its leader's: what a replica read with a bound on its age needs.
//!
//! A leader whose lease was valid at some moment had, by then, all that anybody had acknowledged. It says so in each append
//! request, with the index; once the follower has applied that much its state is as new as that request. (The commit index
//! that Raft puts into a request doesn't tell: a stream that was held up by a snapshot goes on with an old one.)
//! A leader that is cut off with its followers loses its lease, so they grow old together.
//!
//! When a request comes says nothing about when it was sent: a follower that was stopped finds old ones in its socket. So
//! each answer carries a [`Mark`] of the follower's own clock, and the leader returns the last one it has seen: the request
//! was sent after that.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Knows nothing of openraft, and of time only what it is told.
#[derive(Debug)]
pub struct Freshness {
    start: Instant,
    /// Differs from the earlier lives of this member, whose clocks began at other times.
    life: u64,
    /// Microseconds after `start` (and one more) at which the state was as new as the leader's; 0: never.
    as_of: AtomicU64,
    promised: Mutex<Option<Promise>>,
}

/// A moment on a follower's clock, which means something only to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Which clock.
    pub life: u64,
    /// Microseconds, and one more.
    pub at: u64,
}

/// What a leader says of itself in a request that it sends under its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// The last it has seen of the receiver's clock.
    pub mark: Mark,
    /// No entry after this one has been acknowledged to anybody so far.
    pub reached: u64,
}

/// At this moment the leader had reached so much, and not all of it was applied here.
#[derive(Clone, Copy, Debug)]
struct Promise {
    reached: u64,
    /// As in a [`Mark`].
    at: u64,
}

impl Freshness {
    /// Of a state that may be as old as you like. `life`: random.
    pub fn new(now: Instant, life: u64) -> Freshness {
        Freshness { start: now, life, as_of: AtomicU64::new(0), promised: Mutex::default() }
    }

    /// What an answer that leaves now is to carry.
    pub(in crate::raft) fn mark(&self, now: Instant) -> Mark {
        Mark { life: self.life, at: now.saturating_duration_since(self.start).as_micros() as u64 + 1 }
    }

    /// A leader has given its word; so much is applied here now.
    pub(in crate::raft) fn told(&self, Word { mark, reached }: Word, applied: u64) {
        if mark.life != self.life {
            return;
        }
        let at = mark.at;
        let mut promised = self.promised.lock();
        if let Some(promise) = promised.take_if(|promise| promise.reached <= applied) {
            self.extend(promise.at);
        }
        match reached <= applied {
            true => self.extend(at),
            // The oldest that is not kept yet: if each request replaced it, none would be kept under load.
            false => drop(promised.get_or_insert(Promise { reached, at })),
        }
    }

    /// When the state was as new as the leader's; none: never.
    pub fn as_of(&self) -> Option<Instant> {
        let as_of = self.as_of.load(Ordering::Acquire);
        (as_of > 0).then(|| self.start + Duration::from_micros(as_of - 1))
    }

    /// Whether the state is at most so much older than the leader's.
    pub fn is_within(&self, limit: Duration, now: Instant) -> bool {
        self.as_of().is_some_and(|as_of| now.saturating_duration_since(as_of) <= limit)
    }

    fn extend(&self, at: u64) {
        self.as_of.fetch_max(at, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_as_new_as_the_last_promise_it_keeps() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let within = |freshness: &Freshness, now| freshness.is_within(Duration::from_millis(100), at(now));
        let freshness = Freshness::new(start, 1);
        let told = |reached, applied, ms| {
            freshness.told(Word { mark: freshness.mark(at(ms)), reached }, applied);
        };
        assert!(!within(&freshness, 0), "it has never heard of a leader");
        told(5, 5, 10);
        assert!(within(&freshness, 110));
        assert!(!within(&freshness, 111));
        told(9, 7, 50);
        told(12, 8, 100);
        assert!(!within(&freshness, 120), "what was reached then is not applied yet");
        told(13, 10, 120);
        assert!(within(&freshness, 150), "entry 9 is applied: as new as at 50");
        assert!(!within(&freshness, 151));
        freshness.told(Word { mark: Freshness::new(start, 2).mark(at(200)), reached: 10 }, 10);
        assert!(!within(&freshness, 200), "an earlier life's clock");
    }
}
