//! The log of one group member, in memory, bounded by bytes.
//!
//! The room for a durable log: whatever stores entries and votes stands behind the two traits implemented here. In
//! memory a member that stops has lost its vote and its log, so it must never come back under its id (the caller
//! starts a new member instead).

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use futures::{Stream, stream};
use openraft::alias::LogIdOf;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::Mutex;

use crate::raft::types::{Entry, LogId, TypeConfig, Vote};

/// Bytes of entries read for one append request, about; one entry may be longer.
pub const READ_BYTES: usize = 1 << 20;
/// What an entry costs beside its payload, about.
const ENTRY_OVERHEAD: usize = 128;

/// A member's log and vote. A cheap handle.
#[derive(Clone, Default)]
pub struct LogStore(Arc<Mutex<Log>>);

#[derive(Default)]
struct Log {
    vote: Option<Vote>,
    committed: Option<LogId>,
    /// The last entry purged.
    purged: Option<LogId>,
    /// All after it, without a gap.
    entries: VecDeque<Entry>,
    bytes: usize,
}

/// What an entry costs in memory.
pub fn entry_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(proposal) => proposal.bytes.len() + ENTRY_OVERHEAD,
        EntryPayload::Blank | EntryPayload::Membership(_) => ENTRY_OVERHEAD,
    }
}

impl Log {
    /// The index of the first entry kept.
    fn first(&self) -> u64 {
        self.entries
            .front()
            .map_or_else(|| self.purged.map_or(0, |id| id.index + 1), |entry| entry.log_id.index)
    }

    fn drop_back(&mut self, unwanted: impl Fn(&Entry) -> bool) {
        while let Some(entry) = self.entries.pop_back() {
            if !unwanted(&entry) {
                return self.entries.push_back(entry);
            }
            self.bytes -= entry_bytes(&entry);
        }
    }

    fn drop_front(&mut self, unwanted: impl Fn(&Entry) -> bool) {
        while let Some(entry) = self.entries.pop_front() {
            if !unwanted(&entry) {
                return self.entries.push_front(entry);
            }
            self.bytes -= entry_bytes(&entry);
        }
    }

    /// The positions in `entries` of a range of indexes, as far as they are kept.
    fn positions(&self, range: impl RangeBounds<u64>) -> std::ops::Range<usize> {
        let first = self.first();
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        let position = |index: u64| (index.saturating_sub(first)).min(self.entries.len() as u64) as usize;
        position(start)..position(end).max(position(start))
    }
}

impl LogStore {
    /// Bytes kept.
    pub fn bytes(&self) -> usize {
        self.0.lock().bytes
    }

    /// The index up to which to purge so that at most `keep` bytes stay, never beyond `applied`. `None`: nothing
    /// to purge.
    pub fn purge_target(&self, keep: usize, applied: u64) -> Option<u64> {
        let log = self.0.lock();
        let mut excess = log.bytes.checked_sub(keep).filter(|excess| *excess > 0)?;
        let mut target = None;
        for entry in log.entries.iter().take_while(|entry| entry.log_id.index <= applied) {
            target = Some(entry.log_id.index);
            match excess.checked_sub(entry_bytes(entry)) {
                Some(rest) if rest > 0 => excess = rest,
                _ => break,
            }
        }
        target
    }

    fn entries(&self, range: impl RangeBounds<u64>) -> Vec<Entry> {
        let log = self.0.lock();
        let positions = log.positions(range);
        log.entries.range(positions).cloned().collect()
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.entries(range))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.0.lock().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let log = self.0.lock();
        let mut bytes = 0;
        let within = |entry: &&Entry| {
            let before = bytes;
            bytes += entry_bytes(entry);
            before == 0 || bytes <= READ_BYTES
        };
        Ok(log.entries.range(log.positions(start..end)).take_while(within).cloned().collect())
    }

    /// The apply path: hands the proposals' local parts over instead of sharing them, so that a log kept for
    /// followers doesn't keep the connections of requests long answered.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let mut log = self.0.lock();
        let positions = log.positions(range);
        let hand_over = |entry: &mut Entry| {
            let mut handed = entry.clone();
            if let (EntryPayload::Normal(kept), EntryPayload::Normal(handed)) =
                (&mut entry.payload, &mut handed.payload)
            {
                handed.local = kept.local.take();
            }
            Ok(handed)
        };
        let entries: Vec<_> = log.entries.range_mut(positions).map(hand_over).collect();
        stream::iter(entries)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let log = self.0.lock();
        let last = log.entries.back().map(|entry| entry.log_id).or(log.purged);
        Ok(LogState { last_purged_log_id: log.purged, last_log_id: last })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.0.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogIdOf<TypeConfig>>) -> Result<(), io::Error> {
        self.0.lock().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogIdOf<TypeConfig>>, io::Error> {
        Ok(self.0.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut log = self.0.lock();
        for entry in entries {
            let (next, index) = (log.first() + log.entries.len() as u64, entry.index());
            if index != next {
                let why = format!("entry {index} does not follow a log that ends before {next}");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
            log.bytes += entry_bytes(&entry);
            log.entries.push_back(entry);
        }
        drop(log);
        callback.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf<TypeConfig>>) -> Result<(), io::Error> {
        self.0.lock().drop_back(|entry| last.is_none_or(|last| entry.log_id.index > last.index));
        Ok(())
    }

    async fn purge(&mut self, upto: LogIdOf<TypeConfig>) -> Result<(), io::Error> {
        let mut log = self.0.lock();
        log.drop_front(|entry| entry.log_id.index <= upto.index);
        log.purged = log.purged.max(Some(upto));
        Ok(())
    }
}
