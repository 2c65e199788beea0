//! Gathers the writes of all connections into few log entries.
//!
//! One entry costs a wake-up on every copy, whatever it holds; so the fewer entries, the cheaper a write. The
//! proposer clocks itself: while fewer than [`IN_FLIGHT`] entries are on their way it proposes at once what there
//! is; otherwise pieces gather until one comes back. At low load a write goes out alone and at once, at high load
//! entries grow by themselves. No timer, no task: whoever submits, or the raft thread when an entry completes, does
//! the work.
//!
//! Every connection has at most one piece under way, so what waits here is bounded by the connections' query
//! buffers.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::raft::group::Group;
use crate::raft::lease::Lease;
use crate::raft::machine::Local;
use crate::raft::proposal::{Outcome, Proposal};
use crate::shard::history::History;
use crate::shard::piece::{Piece, PieceReply, Pieces, Step};
use crate::shard::proposal;
use crate::shard::stamp::Stamp;
use crate::time::Millis;

/// Entries on their way at once; more would only be smaller.
pub const IN_FLIGHT: usize = 3;
/// Bytes of an entry, unless a single piece is larger.
pub const ENTRY_BYTES: usize = 256 << 10;
/// Units of an entry, unless a single piece has more.
pub const ENTRY_UNITS: usize = 4096;

/// See the module's documentation.
pub struct Proposer {
    group: Group,
    lease: Lease,
    stamp: Arc<Stamp>,
    history: Arc<History>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Piece, Vec<u8>)>,
    in_flight: usize,
}

impl Proposer {
    /// A proposer for the shard, through its group.
    pub fn new(group: Group, stamp: Arc<Stamp>, history: Arc<History>) -> Arc<Self> {
        Arc::new(Self { lease: group.lease(), group, stamp, history, queue: Mutex::default() })
    }

    /// Until when reads of this shard are current (see `raft::lease`).
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The group.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Takes a piece and the bytes of its logged units (see `proposal`).
    pub fn submit(self: &Arc<Self>, piece: Piece, units: Vec<u8>) {
        #[cfg(feature = "broken")]
        let piece = acknowledged_early(piece, &units);
        self.queue.lock().waiting.push_back((piece, units));
        self.propose_waiting();
    }

    /// Takes units that nobody waits for, in front of the writes that wait.
    pub fn submit_upkeep(self: &Arc<Self>, units: Vec<u8>, count: usize) {
        self.queue.lock().waiting.push_front((unasked(count), units));
        self.propose_waiting();
    }

    /// Has another history begin, unless the present one isn't `after` any more when it comes to it.
    pub fn begin_history(self: &Arc<Self>, after: u64) {
        self.submit_upkeep(self.beginning(after), 1);
    }

    fn beginning(&self, after: u64) -> Vec<u8> {
        let mut units = Vec::new();
        proposal::put_begin_history(after, self.stamp.seed() >> 1 | 1, &mut units);
        units
    }

    fn propose_waiting(self: &Arc<Self>) {
        loop {
            let mut queue = self.queue.lock();
            if queue.in_flight >= IN_FLIGHT || queue.waiting.is_empty() {
                return;
            }
            queue.in_flight += 1;
            if self.group.has_lost() {
                self.history.doubt();
            }
            if let Some(after) = self.history.ends_after() {
                // No write is without a place in a history, nor in one that is in doubt; the first such entry begins it, in
                // the others it does nothing.
                queue.waiting.push_front((unasked(1), self.beginning(after)));
            }
            let time = self.stamp.departs();
            let (pieces, bytes) = self.gather(&mut queue.waiting, time);
            drop(queue);
            self.propose(pieces, bytes, time);
        }
    }

    fn gather(&self, waiting: &mut VecDeque<(Piece, Vec<u8>)>, time: Millis) -> (Vec<Piece>, Vec<u8>) {
        let mut bytes =
            Vec::with_capacity(proposal::header_len() + waiting.front().map_or(0, |(_, units)| units.len()));
        proposal::begin(time, self.stamp.seed(), &mut bytes);
        let mut pieces = Vec::new();
        let mut units = 0;
        while let Some((piece, more)) = waiting.front() {
            let full = bytes.len() + more.len() > ENTRY_BYTES || units + piece.steps.len() > ENTRY_UNITS;
            if full && !pieces.is_empty() {
                break;
            }
            units += piece.steps.len();
            bytes.extend_from_slice(more);
            pieces.extend(waiting.pop_front().map(|(piece, _)| piece));
        }
        (pieces, bytes)
    }

    fn propose(self: &Arc<Self>, pieces: Vec<Piece>, bytes: Vec<u8>, time: Millis) {
        let pieces: Arc<Pieces> = Arc::new(Mutex::new(pieces));
        let local: Local = pieces.clone();
        let this = self.clone();
        let done = move |outcome| {
            if let Outcome::NotLeader { .. } = outcome {
                for piece in std::mem::take(&mut *pieces.lock()) {
                    // A connection that has closed meanwhile wants no reply.
                    let _ = piece.reply.send(PieceReply::NotLeader);
                }
            }
            // Applied: the machine has replied. Unknown: it still may; if the log drops the entry the reply's
            // sender is dropped with it, and the connection learns that nobody knows.
            this.stamp.arrived(time);
            this.queue.lock().in_flight -= 1;
            this.propose_waiting();
        };
        self.group.propose(Proposal { bytes: Bytes::from(bytes), local: Some(local) }, Box::new(done));
    }
}

/// A piece whose units nobody has asked for.
fn unasked(count: usize) -> Piece {
    let (reply, _) = oneshot::channel();
    let steps = (0..count).map(|_| Step::Logged).collect();
    let proto = slotcast_wire::reply::Proto::Resp2;
    Piece { author: None, tracking: false, stamped: false, proto, steps, reply }
}

/// Breaks the rule that a write is acknowledged when a quorum has it: a lone SET is answered at once.
#[cfg(feature = "broken")]
fn acknowledged_early(piece: Piece, units: &[u8]) -> Piece {
    let is_set = units.windows(7).any(|bytes| bytes == b"\r\nSET\r\n");
    if !is_set || piece.steps.len() > 1 || !crate::broken::breaks(crate::broken::Rule::AcknowledgedEarly) {
        return piece;
    }
    let early = PieceReply::Applied { bytes: b"+OK\r\n".to_vec(), transaction: None, index: 0 };
    let _ = piece.reply.send(early);
    Piece { reply: oneshot::channel().0, ..piece }
}
