//! The limit of one reply's size. A short request may ask for the same value many times (MGET, HRANDFIELD with a negative
//! count), so the size of what is stored bounds nothing.

use slotcast_wire::reply::Reply;

use crate::command::error::CommandError;

/// Bytes of the longest reply; a command that would write more answers with an error instead.
pub const MAX_REPLY: usize = 1 << 30;

/// Fails if the reply begun at `start` has outgrown the limit.
#[inline]
pub fn check(reply: &Reply<'_>, start: usize) -> Result<(), CommandError> {
    if reply.mark() - start > MAX_REPLY {
        return Err(CommandError::text("ERR reply exceeds 1 GiB; ask for less at a time"));
    }
    Ok(())
}
