//! A connection's consecutive requests for one shard, on their way through the log.
//!
//! The writes among them are bytes in the entry; the piece itself stays on this node and tells the apply loop whose
//! they are, which reads lie between them, and where the replies go. So the replies are written once, in order, by
//! the loop that applies, and one wake-up per piece brings them back.

use parking_lot::Mutex;
use slotcast_wire::args::OwnedArgs;
use slotcast_wire::reply::Proto;
use tokio::sync::oneshot;

/// What a piece executes, in order.
#[derive(Debug)]
pub enum Step {
    /// The entry's next unit.
    Logged,
    /// A read between writes of the same connection: executed here where its turn comes, never logged.
    Read(OwnedArgs),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Piece {
    /// The connection; none for upkeep's own.
    pub author: Option<u64>,
    /// Whether the connection wants to hear of changes of the keys that the piece reads.
    pub tracking: bool,
    /// Whether the connection wants to know as of when its replies are true.
    pub stamped: bool,
    /// How its replies are written.
    pub proto: Proto,
    /// What to execute.
    pub steps: Vec<Step>,
    /// Where the replies go.
    pub reply: oneshot::Sender<PieceReply>,
}

/// The pieces an entry was made of; taken by whoever answers them.
pub type Pieces = Mutex<Vec<Piece>>;

/// What became of a piece.
#[derive(Debug, PartialEq, Eq)]
pub enum PieceReply {
    /// Committed and applied.
    Applied {
        /// The replies, as bytes.
        bytes: Vec<u8>,
        /// Where each of a transaction's replies ends in `bytes` (empty for requests; `None`: aborted by WATCH).
        transaction: Option<Option<Vec<usize>>>,
        /// The entry's log index.
        index: u64,
    },
    /// Certainly not: this node doesn't lead the shard. It can be routed again.
    NotLeader,
}
