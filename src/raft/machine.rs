//! What a group replicates into.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

/// Bytes in one snapshot chunk, at most; a machine cuts its snapshot into pieces of this size or less.
pub const MAX_SNAPSHOT_CHUNK: usize = 1 << 20;

/// What the proposing node hands to its own apply beside the bytes; never serialised.
pub type Local = Arc<dyn Any + Send + Sync>;

/// A machine's state at one moment, as chunks of at most [`MAX_SNAPSHOT_CHUNK`] bytes; after an error nothing more
/// comes. Dropping it before its end costs nothing.
pub type Cut = Box<dyn Iterator<Item = Result<Bytes, CutLost>> + Send>;

/// Makes empty states to stage snapshots in.
pub type Stager = Arc<dyn Fn() -> Box<dyn Staged> + Send + Sync>;

/// A replicated state machine: the same entries in the same order make the same state on every member.
pub trait Machine: Send + 'static {
    /// Applies the committed entry at `index`. Deterministic in `bytes`; it cannot fail, wait, or read a clock.
    /// `local` is there only on the node that proposed the entry (and only if it has not restarted since); it may
    /// decide who is answered, never what the state becomes.
    fn apply(&mut self, index: u64, term: u64, bytes: &Bytes, local: Option<Local>);

    /// The state as it is now; it must return at once. Later applies must not show in it. Each `next` is called on
    /// the raft thread, between applies, and must be short (about half a millisecond). `None`: an earlier cut is
    /// still being pulled, ask again later.
    fn snapshot(&mut self) -> Option<Cut>;

    /// What makes the states in which snapshots from elsewhere are put together. It outlives the borrow: chunks come
    /// in while entries are applied.
    fn stager(&self) -> Stager;
}

/// A state that is being put together from a snapshot's chunks, to replace that of the machine it was made by.
pub trait Staged: Send {
    /// Takes the next chunk in; must be short, since it runs on the raft thread.
    fn take(&mut self, chunk: &Bytes) -> Result<(), InstallError>;

    /// Replaces the machine's whole state; called between two applies, and short too. On an error the member stops
    /// ([`crate::raft::state::GroupState::failed`]) and must be replaced by a new one.
    fn install(self: Box<Self>) -> Result<(), InstallError>;
}

/// The next chunk of a cut, after a pause (without one: after the thread's other tasks have run). A cut is pulled on the
/// raft thread, which carries heartbeats and applies entries: so it is pulled in short slices, and the thread is to be
/// free for longer than they take.
pub async fn pull(cut: &mut Cut, pause: Duration) -> Option<Result<Bytes, CutLost>> {
    match pause.is_zero() {
        true => tokio::task::yield_now().await,
        false => tokio::time::sleep(pause).await,
    }
    cut.next()
}

/// Stages small states: keeps all chunks and has `install` take them at once.
pub fn gathering(
    install: impl Fn(Vec<Bytes>) -> Result<(), InstallError> + Clone + Send + Sync + 'static,
) -> Stager {
    Arc::new(move || Box::new(Gathered { chunks: Vec::new(), install: install.clone() }))
}

struct Gathered<F> {
    chunks: Vec<Bytes>,
    install: F,
}

impl<F: Fn(Vec<Bytes>) -> Result<(), InstallError> + Send> Staged for Gathered<F> {
    fn take(&mut self, chunk: &Bytes) -> Result<(), InstallError> {
        self.chunks.push(chunk.clone());
        Ok(())
    }

    fn install(self: Box<Self>) -> Result<(), InstallError> {
        (self.install)(self.chunks)
    }
}

/// Why a cut ended before its end; another can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutLost(pub &'static str);

impl fmt::Display for CutLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the snapshot was given up: {}", self.0)
    }
}

impl std::error::Error for CutLost {}

/// Why a snapshot cannot be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstallError(pub String);

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the snapshot cannot be installed: {}", self.0)
    }
}

impl std::error::Error for InstallError {}
