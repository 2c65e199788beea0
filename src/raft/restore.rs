//! What a member begins with that has been here before: the snapshot on disk, then the entries after it that are known
//! to be committed, then the rest of its log.
//!
//! openraft would apply committed entries again by itself, but only out of a log that is in memory as a whole; here
//! they are read one by one and only the end of them stays.

use std::fmt;
use std::io;

use openraft::vote::RaftLeaderId;

use crate::raft::encoding::Malformed;
use crate::raft::log_store::{Log, LogStore};
use crate::raft::state_machine::Adapter;
use crate::raft::stored::decode_payload;
use crate::raft::types::{LogId, Vote};
use crate::wal::Key;
use crate::wal::log::Wal;
use crate::wal::scan::{Found, Located};

/// Bytes of log after which the thread's other tasks have a turn: it also carries the members that are back already, and
/// the answers by which other nodes know that this one lives.
const TURN_BYTES: usize = 64 << 10;

/// Why a member cannot go on where it stopped; it must be replaced by a new one.
#[derive(Debug)]
pub enum RestoreError {
    /// The log begins after where the snapshot ends.
    Hole {
        /// Where the snapshot ends.
        snapshot: Option<u64>,
    },
    /// An entry cannot be read.
    Unreadable(io::Error),
    /// An entry that another version wrote.
    Malformed(Malformed),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::Hole { snapshot: None } => {
                f.write_str("its log begins after a snapshot, and there is none on disk")
            }
            RestoreError::Hole { snapshot: Some(index) } => {
                write!(f, "its log begins after entry {index}, where its snapshot on disk ends")
            }
            RestoreError::Unreadable(error) => write!(f, "its log cannot be read: {error}"),
            RestoreError::Malformed(error) => write!(f, "its log holds what is no entry: {error}"),
        }
    }
}

impl std::error::Error for RestoreError {}

/// Brings `adapter`, which holds the snapshot, up to the last entry known to be committed; the log from there on, of
/// which at most `keep` bytes are already in the state. Reads files, a little at a time.
pub async fn restore(
    adapter: &mut Adapter,
    (wal, key): (Wal, Key),
    found: &Found,
    keep: usize,
) -> Result<LogStore, RestoreError> {
    let snapshot = adapter.applied();
    if !found.follows(snapshot.map(|id| id.index)) {
        return Err(RestoreError::Hole { snapshot: snapshot.map(|id| id.index) });
    }
    let vote = |(term, member, committed)| Vote { leader_id: RaftLeaderId::new(term, member), committed };
    let mut log = Log::after(found.vote.map(vote), snapshot);
    let committed = found.committed.map(|(_, index)| index);
    // A log that disagrees with the snapshot was about to be given up for it.
    let disagrees = |id: LogId| {
        let same = |entry: &&Located| entry.index == id.index;
        found.entries.iter().find(same).is_some_and(|entry| entry.term != id.committed_leader_id().term)
    };
    let given_up = snapshot.is_some_and(disagrees);
    let wanted = |entry: &&Located| !given_up && snapshot.is_none_or(|id| entry.index > id.index);
    let mut turn = 0;
    for located in found.entries.iter().filter(wanted) {
        let bytes = wal.read(located).map_err(RestoreError::Unreadable)?;
        turn += bytes.len();
        if turn >= TURN_BYTES {
            turn = 0;
            tokio::task::yield_now().await;
        }
        let entry = decode_payload(located.term, located.index, bytes).map_err(RestoreError::Malformed)?;
        if committed.is_some_and(|committed| located.index <= committed) {
            adapter.apply_one(entry.clone());
        }
        log.push(entry).map_err(RestoreError::Unreadable)?;
        log.shrink(keep, adapter.applied().map_or(0, |id| id.index));
    }
    log.committed = adapter.applied();
    if let Some(last) = log.last() {
        let (group, applied) = (key.0, log.committed.map_or(0, |id| id.index));
        tracing::info!(
            "{group}: this node's copy comes back with its log up to {}, of which {applied} are applied",
            last.index
        );
    }
    Ok(LogStore::durable(log, wal, key))
}
