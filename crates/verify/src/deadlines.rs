//! Keys with a time to live: there until their deadline, and gone soon after it, whatever happens to the nodes.
//!
//! The deadline is counted from a moment between the request and the reply, so a read is judged only if it lies on one
//! side of it for certain.

use std::time::Duration;

use rand::Rng;
use slotcast_wire::frame::Frame;

use crate::client::{Called, Client, Outcome};
use crate::clock;
use crate::connection::request;
use crate::faults::Kind;
use crate::records::Records;
use crate::workload::Stop;

/// How long keys live, in milliseconds.
const LIVES: std::ops::Range<u64> = 300..4_000;
/// Between two reads of a key, at most.
const PACE: Duration = Duration::from_millis(120);
/// A node's clock has milliseconds, and may be so much beside the campaign's.
const EARLY: Duration = Duration::from_millis(20);
/// Reads happen no later than the oldest entry under way was stamped, and under two faults at once it may be under way
/// until its write is given up as uncertain.
const LATE: Duration = Duration::from_millis(5_000);
/// A clock jumps so far at most, and so far a leader may be behind the one before it.
const JUMP: Duration = Duration::from_secs(62);

/// How far from its deadline a key may expire.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    early: Duration,
    late: Duration,
}

impl Tolerance {
    /// Under faults of these kinds.
    pub fn under(kinds: &[Kind]) -> Tolerance {
        let jump = if kinds.contains(&Kind::Clock) { JUMP } else { Duration::ZERO };
        Tolerance { early: EARLY + jump, late: LATE + jump }
    }
}

/// A key that was written: between which moments (nanoseconds), and for how long.
struct Written {
    invoked: u64,
    returned: u64,
    lives: Duration,
}

/// Writes one key after the other and reads it until it must be gone.
pub async fn watch(mut client: Client, tolerance: Tolerance, records: Records, stop: Stop) {
    client.refresh().await;
    while !stop.get() {
        let (value, lives) = (records.value(), client.rng.random_range(LIVES));
        let key = format!("timed:{value}");
        let set = request(&["SET", &key, &value.to_string(), "PX", &lives.to_string()]);
        let called = client.call(&key, &[set]).await;
        records.count(&called.outcome);
        let Outcome::Answer(_) = called.outcome else { continue };
        let lives = Duration::from_millis(lives);
        let written = Written { invoked: called.invoked, returned: called.returned, lives };
        let over = written.returned + (lives + tolerance.late.min(LATE) + PACE).as_nanos() as u64;
        while clock::now() < over && !stop.get() {
            client.think(PACE).await;
            let called = client.call(&key, &[request(&["GET", &key])]).await;
            records.count(&called.outcome);
            if let Some(why) = untimely(&written, &called, tolerance) {
                records.blame(format!("{key}, written to live {lives:?}, {why}"));
                break;
            }
        }
    }
}

/// What is wrong with a read of a key that nobody else writes.
fn untimely(written: &Written, read: &Called, tolerance: Tolerance) -> Option<String> {
    let Outcome::Answer(replies) = &read.outcome else { return None };
    let gone = matches!(replies.last()?, Frame::Null);
    let (earliest, latest) = (written.lives.saturating_sub(tolerance.early), written.lives + tolerance.late);
    let at_most = Duration::from_nanos(read.returned.saturating_sub(written.invoked));
    let at_least = Duration::from_nanos(read.invoked.saturating_sub(written.returned));
    if gone && at_most < earliest {
        return Some(format!("was gone after {at_most:?}"));
    }
    (!gone && at_least > latest).then(|| format!("was still there after {at_least:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_untimely_only_for_certain() {
        let ms = |ms: u64| ms * 1_000_000;
        let written = Written { invoked: ms(100), returned: ms(200), lives: Duration::from_millis(1_000) };
        let wrong = |there: bool, invoked: u64, returned: u64| {
            let reply = if there { Frame::Integer(1) } else { Frame::Null };
            let read = Called {
                invoked: ms(invoked),
                returned: ms(returned),
                outcome: Outcome::Answer(vec![reply]),
            };
            untimely(&written, &read, Tolerance::under(&[])).is_some()
        };
        assert!(wrong(false, 300, 1_000));
        assert!(!wrong(false, 300, 1_100));
        assert!(!wrong(true, 300, 1_000));
        assert!(!wrong(true, 6_200, 6_300));
        assert!(wrong(true, 6_201, 6_300));
    }
}
