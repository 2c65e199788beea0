//! The one clock of a campaign: nanoseconds since it began, monotonic.

use std::sync::LazyLock;
use std::time::Instant;

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds since the first call.
pub fn now() -> u64 {
    BEGAN.elapsed().as_nanos() as u64
}
