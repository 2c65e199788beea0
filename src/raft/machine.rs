//! What a group replicates into.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// Bytes in one snapshot chunk, at most; a machine cuts its snapshot into pieces of this size or less.
pub const MAX_SNAPSHOT_CHUNK: usize = 1 << 20;

/// What the proposing node hands to its own apply beside the bytes; never serialised.
pub type Local = Arc<dyn Any + Send + Sync>;

/// A replicated state machine: the same entries in the same order make the same state on every member.
pub trait Machine: Send + 'static {
    /// Applies the committed entry at `index`. Deterministic in `bytes`; it cannot fail, wait, or read a clock.
    /// `local` is there only on the node that proposed the entry (and only if it has not restarted since); it may
    /// decide who is answered, never what the state becomes.
    fn apply(&mut self, index: u64, term: u64, bytes: &Bytes, local: Option<Local>);

    /// The state as it is now, as chunks of at most [`MAX_SNAPSHOT_CHUNK`] bytes. Later applies must not show in
    /// it. The iterator is pulled as fast as the receiving member takes the chunks, on the raft thread: one
    /// `next` must be short.
    fn snapshot(&mut self) -> Box<dyn Iterator<Item = Bytes> + Send>;

    /// Replaces the whole state by a snapshot's chunks, in order. On an error the member stops
    /// ([`crate::raft::group::GroupState::failed`]) and must be replaced by a new one.
    fn install(&mut self, chunks: Vec<Bytes>) -> Result<(), InstallError>;
}

/// Why a snapshot cannot be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstallError(pub String);

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the snapshot cannot be installed: {}", self.0)
    }
}

impl std::error::Error for InstallError {}
