//! Time as the rest of the code sees it: one [`Clock`] a node, handed in at start.
//!
//! What decides takes the time as an argument; only the shell (server, node, proposer) asks a `Clock`. A simulated
//! clock follows tokio's timer, so a run in virtual time is a function of its seed. This module knows nothing of
//! leases or logical time: the log's clock lives with the shard.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Unix time in milliseconds; deadlines (`expires_at`) are absolute values of it.
pub type Millis = u64;

/// Where wall time comes from.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// The machine's clock.
    System,
    /// Virtual time: `base` at the moment `start` of tokio's timer.
    Simulated {
        /// Wall time at `start`.
        base: Millis,
        /// The timer's instant that stands for `base`.
        start: tokio::time::Instant,
    },
}

impl Clock {
    /// Unix time in microseconds.
    pub fn now_micros(&self) -> u64 {
        let since = match self {
            Clock::System => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO),
            Clock::Simulated { base, start } => Duration::from_millis(*base) + start.elapsed(),
        };
        since.as_micros() as u64
    }

    /// Unix time in milliseconds.
    pub fn now(&self) -> Millis {
        self.now_micros() / 1000
    }
}
