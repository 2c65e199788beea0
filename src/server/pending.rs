//! What a request may have to wait for, and how its connection goes on. The waiting itself is in
//! [`waiting`](crate::server::waiting).

use tokio::sync::oneshot;

use crate::id::GroupId;
use crate::server::dispatch::Step;
use crate::shard::piece::PieceReply;

/// What a connection waits for.
pub enum Pending {
    /// The log's answer to a piece; its requests are the next `consumed` bytes of the input.
    Piece {
        /// Brings it.
        reply: oneshot::Receiver<PieceReply>,
        /// Number of replies in it.
        replies: usize,
        /// See above.
        consumed: usize,
        /// The shard.
        shard: GroupId,
    },
    /// Something about the next `consumed` bytes of the input (nothing, if it was taken out of it already).
    Step(Step, usize),
}

impl Pending {
    /// Whether pushes may overtake what is waited for: not where something may have been read already, since the reply
    /// has to come before the push that says that it isn't true any more.
    pub fn may_be_overtaken(&self) -> bool {
        matches!(self, Pending::Step(Step::Park(_) | Step::Wait(_) | Step::Read(_) | Step::Saved, _))
    }
}

/// How the connection goes on.
pub enum Deferred {
    /// The requests in so many bytes of the input are answered.
    Answered {
        /// See above.
        consumed: usize,
    },
    /// Nothing was done: execute the input again.
    Again,
    /// Wait for what it says now; whatever has to be pushed goes first.
    Later,
    /// Close the connection.
    Close,
}
