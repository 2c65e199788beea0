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

/// How the connection goes on.
pub enum Deferred {
    /// The requests in so many bytes of the input are answered.
    Answered {
        /// See above.
        consumed: usize,
    },
    /// Nothing was done: execute the input again.
    Again,
    /// Close the connection.
    Close,
}
