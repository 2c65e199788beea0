//! What goes into the log, and what became of it.

use std::fmt;

use bytes::Bytes;

use crate::id::MemberId;
use crate::raft::machine::Local;

/// Bytes of a proposal, at most: it has to fit a bus frame. A longer one is refused as if this member did not lead,
/// so check before.
pub const MAX_PROPOSAL: usize = 64 << 20;

/// Bytes to put into the log, with what the proposer's own apply shall get beside them. Cheap to clone.
#[derive(Clone)]
pub struct Proposal {
    /// What every member applies.
    pub bytes: Bytes,
    /// What only this node's apply sees.
    pub local: Option<Local>,
}

/// What became of a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Committed on a quorum and applied here, at this log index.
    Applied {
        /// Its place in the log.
        index: u64,
    },
    /// Not put into the log, certainly: this member does not lead. Propose it at the leader, if one is known.
    NotLeader {
        /// Who leads, as far as this member knows.
        leader: Option<MemberId>,
    },
    /// It was proposed, and whether it was or will be committed is unknown.
    Unknown,
}

/// Gets a proposal's outcome; called exactly once, on the raft thread: it must be short and must not block.
pub type Done = Box<dyn FnOnce(Outcome) + Send>;

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proposal({} bytes, local: {})", self.bytes.len(), self.local.is_some())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
