//! Time as the rest of the code sees it: one [`Clock`] a node, handed in at start.
//!
//! What decides takes the time as an argument; only the shell (server, node, proposer) asks a `Clock`. A simulated
//! clock follows tokio's timer, so a run in virtual time is a function of its seed. This module knows nothing of
//! leases or logical time: the log's clock lives with the shard.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Unix time in milliseconds; deadlines (`expires_at`) are absolute values of it.
pub type Millis = u64;

/// Where wall time comes from.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// The machine's clock, which within one process never goes back: see [`Clock::follow`].
    System,
    /// Virtual time: `base` at the moment `start` of tokio's timer.
    Simulated {
        /// Wall time at `start`.
        base: Millis,
        /// The timer's instant that stands for `base`.
        start: tokio::time::Instant,
    },
    /// What a simulation says, in milliseconds: it may jump, as a machine's may.
    Told(&'static AtomicU64),
}

impl Clock {
    /// Unix time in microseconds.
    pub fn now_micros(&self) -> u64 {
        match self {
            Clock::System => WALL.0.at(WALL.1.elapsed()),
            Clock::Simulated { base, start } => base * 1000 + start.elapsed().as_micros() as u64,
            Clock::Told(now) => now.load(Ordering::Relaxed) * 1000,
        }
    }

    /// Moves on with the machine's clock where that has been put forward. To be called a few times a second.
    ///
    /// If it has been put back, this one goes on by itself, ahead of it until the process ends: a key that one client has
    /// seen expire would be there again for another, and no deadline would come until the clock has made up for it.
    pub fn follow(&self) {
        if let Clock::System = self {
            // In this order: a pause between the two must not look like a clock put forward.
            let machine = unix_micros();
            WALL.0.follow(WALL.1.elapsed(), machine);
        }
    }

    /// Unix time in milliseconds.
    pub fn now(&self) -> Millis {
        self.now_micros() / 1000
    }
}

/// The process's clock, and the moment its monotonic time is counted from.
static WALL: LazyLock<(Wall, Instant)> =
    LazyLock::new(|| (Wall(AtomicU64::new(unix_micros())), Instant::now()));

fn unix_micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_micros() as u64
}

/// Wall time, in microseconds, at monotonic time zero. It only grows.
struct Wall(AtomicU64);

impl Wall {
    fn at(&self, monotonic: Duration) -> u64 {
        self.0.load(Ordering::Relaxed) + monotonic.as_micros() as u64
    }

    fn follow(&self, monotonic: Duration, machine: u64) {
        self.0.fetch_max(machine.saturating_sub(monotonic.as_micros() as u64), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_machine_s_clock_forward_and_goes_on_by_itself_when_that_goes_back() {
        let (wall, second) = (Wall(AtomicU64::new(5_000_000)), Duration::from_secs(1));
        assert_eq!(wall.at(second), 6_000_000);
        wall.follow(second, 9_000_000);
        assert_eq!(wall.at(second), 9_000_000);
        wall.follow(second, 1_000_000);
        assert_eq!(wall.at(second), 9_000_000, "never back");
        assert_eq!(wall.at(second * 2), 10_000_000, "and not standing still");
    }

    #[test]
    fn the_system_s_clock_is_the_machine_s() {
        let (now, machine) = (Clock::System.now_micros(), unix_micros());
        assert!(now.abs_diff(machine) < 60_000_000, "{now} is not {machine}");
    }
}
