//! The log of one group member: in memory, bounded by bytes, with the write-ahead log behind it.
//!
//! openraft reads from memory only; the write-ahead log is read once, when a member comes back. The two are purged
//! independently: memory by bytes, the files when a snapshot on disk covers them. Without a write-ahead log a member
//! that stops has lost its vote and its log, so it must never come back under its id (the caller starts a new member
//! instead).

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, stream};
use openraft::alias::LogIdOf;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::id::GroupId;
use crate::raft::stored::encode_payload;
use crate::raft::types::{Entry, LogId, TypeConfig, Vote};
use crate::wal::Key;
use crate::wal::flush::Condition;
use crate::wal::log::Wal;
use crate::wal::record::{Kind, Record};

/// Bytes of entries read for one append request, about; one entry may be longer.
pub const READ_BYTES: usize = 1 << 20;
/// What an entry costs beside its payload, about.
const ENTRY_OVERHEAD: usize = 128;

/// A member's log and vote. A cheap handle.
#[derive(Clone, Default)]
pub struct LogStore {
    log: Arc<Mutex<Log>>,
    /// Behind it, under which name; `None`: nothing outlasts the process.
    durable: Option<(Wal, Key)>,
}

/// What is in memory of a log.
#[derive(Default)]
pub struct Log {
    vote: Option<Vote>,
    /// The last entry known to be committed.
    pub committed: Option<LogId>,
    /// Whether `committed` is new to the write-ahead log; it gets there with the next entries.
    committed_moved: bool,
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

    /// An empty one whose entries up to `purged` are elsewhere.
    pub fn after(vote: Option<Vote>, purged: Option<LogId>) -> Log {
        Log { vote, purged, ..Log::default() }
    }

    /// The last entry's id, purged or not.
    pub fn last(&self) -> Option<LogId> {
        self.entries.back().map(|entry| entry.log_id).or(self.purged)
    }

    /// Appends an entry, which must be the next one.
    pub fn push(&mut self, entry: Entry) -> Result<(), io::Error> {
        let (next, index) = (self.first() + self.entries.len() as u64, entry.index());
        if index != next {
            let why = format!("entry {index} does not follow a log that ends before {next}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        self.bytes += entry_bytes(&entry);
        self.entries.push_back(entry);
        Ok(())
    }

    /// Purges from the front until at most `keep` bytes stay, or what is not in the state (up to `applied`).
    pub fn shrink(&mut self, keep: usize, applied: u64) {
        while let Some(first) = self.entries.front().filter(|_| self.bytes > keep) {
            if first.log_id.index > applied {
                return;
            }
            self.purged = Some(first.log_id);
            self.bytes -= entry_bytes(first);
            self.entries.pop_front();
        }
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
    /// That goes on after `log`, and is kept in the write-ahead log under a name.
    pub fn durable(log: Log, wal: Wal, key: Key) -> LogStore {
        LogStore { log: Arc::new(Mutex::new(log)), durable: Some((wal, key)) }
    }

    /// The last entry's id.
    pub fn last(&self) -> Option<LogId> {
        self.log.lock().last()
    }

    /// The greatest term known here.
    pub fn term(&self) -> u64 {
        let log = self.log.lock();
        let (vote, last) = (log.vote.map(|vote| vote.leader_id.term), log.last());
        vote.max(last.map(|id| id.committed_leader_id().term)).unwrap_or(0)
    }

    /// Whether what is appended gets to the write-ahead log, and not only into the queue before it.
    pub fn takes_entries(&self) -> bool {
        self.durable.as_ref().is_none_or(|(wal, _)| *wal.condition().borrow() == Condition::Good)
    }

    /// Whether nothing will ever get there again.
    pub fn has_failed(&self) -> bool {
        self.durable.as_ref().is_some_and(|(wal, _)| wal.has_failed())
    }

    /// The write-ahead log behind it, and its name there.
    pub fn behind_it(&self) -> Option<(&Wal, Key)> {
        self.durable.as_ref().map(|(wal, key)| (wal, *key))
    }

    /// Waits until the disk has all there is of this log now; whether that reaches up to `index`.
    pub async fn is_on_disk(&self, index: u64) -> bool {
        let Some((wal, _)) = &self.durable else { return false };
        let reaches = self.last().is_some_and(|last| last.index >= index);
        reaches && wal.flush().await.is_ok()
    }

    /// Bytes kept.
    pub fn bytes(&self) -> usize {
        self.log.lock().bytes
    }

    /// The index up to which to purge so that at most `keep` bytes stay, never beyond `applied`. `None`: nothing
    /// to purge.
    pub fn purge_target(&self, keep: usize, applied: u64) -> Option<u64> {
        let log = self.log.lock();
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
        let log = self.log.lock();
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
        Ok(self.log.lock().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let log = self.log.lock();
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
        let mut log = self.log.lock();
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
        let log = self.log.lock();
        Ok(LogState { last_purged_log_id: log.purged, last_log_id: log.last() })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.log.lock().vote = Some(*vote);
        let Some((wal, key)) = &self.durable else { return Ok(()) };
        #[cfg(feature = "broken")]
        if crate::broken::breaks(crate::broken::Rule::VoteForgotten) {
            return Ok(());
        }
        let won = [vote.committed as u8];
        let record = Record::new(Kind::Vote, *key, vote.leader_id.term, vote.leader_id.voted_for);
        wal.save(Record { body: [&[], &won], ..record }).await
    }

    async fn save_committed(&mut self, committed: Option<LogIdOf<TypeConfig>>) -> Result<(), io::Error> {
        let mut log = self.log.lock();
        log.committed_moved |= log.committed != committed;
        log.committed = committed;
        drop(log);
        // What a node does follows from the topology: it must not come back with an older one than it has acted on.
        match &self.durable {
            Some((wal, key)) if key.0 == GroupId::META => {
                self.log.lock().committed_moved = false;
                let known = committed.map(|id| record(Kind::Committed, *key, id));
                wal.append(known, Box::new(drop));
            }
            _ => {}
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogIdOf<TypeConfig>>, io::Error> {
        Ok(self.log.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut log = self.log.lock();
        let Some((wal, key)) = &self.durable else {
            entries.into_iter().try_for_each(|entry| log.push(entry))?;
            drop(log);
            callback.io_completed(Ok(()));
            return Ok(());
        };
        let mut written: SmallVec<[(LogId, [u8; 1], Bytes); 8]> = SmallVec::new();
        for entry in entries {
            let (head, rest) = encode_payload(&entry);
            written.push((entry.log_id, head, rest));
            log.push(entry)?;
        }
        let committed = std::mem::take(&mut log.committed_moved).then_some(log.committed).flatten();
        drop(log);
        let committed = committed.map(|id| record(Kind::Committed, *key, id));
        let appended = written
            .iter()
            .map(|(id, head, rest)| Record { body: [head, rest], ..record(Kind::Append, *key, *id) });
        let done = Box::new(move |result| callback.io_completed(result));
        wal.append(committed.into_iter().chain(appended), done);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf<TypeConfig>>) -> Result<(), io::Error> {
        self.log.lock().drop_back(|entry| last.is_none_or(|last| entry.log_id.index > last.index));
        if let Some((wal, key)) = &self.durable {
            let first_gone = last.map_or(0, |last| last.index + 1);
            wal.append([Record::new(Kind::Truncate, *key, 0, first_gone)], Box::new(drop));
        }
        Ok(())
    }

    async fn purge(&mut self, upto: LogIdOf<TypeConfig>) -> Result<(), io::Error> {
        let mut log = self.log.lock();
        // Beyond the log's end: a snapshot was installed. (Otherwise the files keep what goes from memory.)
        let jump = log.last().is_none_or(|last| last.index < upto.index);
        log.drop_front(|entry| entry.log_id.index <= upto.index);
        log.purged = log.purged.max(Some(upto));
        drop(log);
        if let Some((wal, key)) = self.durable.as_ref().filter(|_| jump) {
            wal.append([record(Kind::Purge, *key, upto)], Box::new(drop));
        }
        Ok(())
    }
}

fn record(kind: Kind, key: Key, id: LogId) -> Record<'static> {
    Record::new(kind, key, id.committed_leader_id().term, id.index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::proposal::Proposal;
    use bytes::Bytes;
    use futures::StreamExt;
    use openraft::alias::CommittedLeaderIdOf;

    fn id(index: u64) -> LogId {
        LogId::new(CommittedLeaderIdOf::<TypeConfig>::new(1), index)
    }

    fn entry(index: u64, length: usize) -> Entry {
        let proposal = Proposal { bytes: Bytes::from(vec![0; length]), local: Some(Arc::new(index)) };
        Entry { log_id: id(index), payload: EntryPayload::Normal(proposal) }
    }

    /// Entries 0 to 9, a thousand bytes each, of which the first three are purged.
    async fn seven() -> LogStore {
        let mut log = LogStore::default();
        log.append((0..10).map(|index| entry(index, 1000)), IOFlushed::noop()).await.unwrap();
        log.purge(id(2)).await.unwrap();
        log
    }

    async fn indexes(log: &mut LogStore, range: impl RangeBounds<u64> + Clone + Debug + Send) -> Vec<u64> {
        log.try_get_log_entries(range).await.unwrap().iter().map(|entry| entry.log_id.index).collect()
    }

    #[tokio::test]
    async fn a_range_gives_what_of_it_is_kept() {
        let log = &mut seven().await;
        assert_eq!(indexes(log, 0..5).await, [3, 4]);
        assert_eq!(indexes(log, 8..=20).await, [8, 9]);
        assert_eq!(indexes(log, ..).await, [3, 4, 5, 6, 7, 8, 9]);
        assert!(indexes(log, 0..2).await.is_empty());
        assert!(indexes(log, 30..40).await.is_empty());
        let state = log.get_log_state().await.unwrap();
        assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(2)), Some(id(9))));
    }

    #[tokio::test]
    async fn truncating_and_purging_leave_no_hole_and_count_bytes() {
        let log = &mut seven().await;
        log.truncate_after(Some(id(7))).await.unwrap();
        assert_eq!(indexes(log, ..).await, [3, 4, 5, 6, 7]);
        assert_eq!(log.bytes(), 5 * entry_bytes(&entry(0, 1000)));
        assert!(log.append([entry(9, 1)], IOFlushed::noop()).await.is_err(), "a hole");
        log.append([entry(8, 1)], IOFlushed::noop()).await.unwrap();
        log.purge(id(20)).await.unwrap();
        assert_eq!(log.bytes(), 0);
        assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(id(20)));
        log.append([entry(21, 1)], IOFlushed::noop()).await.unwrap();
        assert_eq!(indexes(log, ..).await, [21]);
        log.truncate_after(None).await.unwrap();
        assert!(indexes(log, ..).await.is_empty());
    }

    #[tokio::test]
    async fn a_read_for_replication_is_bounded_by_bytes_but_never_empty() {
        let mut log = LogStore::default();
        let lengths = [READ_BYTES * 3, READ_BYTES / 2, READ_BYTES / 4, READ_BYTES / 2];
        let entries = (0..).zip(lengths).map(|(index, length)| entry(index, length));
        log.append(entries.collect::<Vec<_>>(), IOFlushed::noop()).await.unwrap();
        assert_eq!(log.limited_get_log_entries(0, 4).await.unwrap().len(), 1);
        assert_eq!(log.limited_get_log_entries(1, 4).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn the_purge_target_keeps_what_it_shall_and_all_that_is_not_applied() {
        let log = seven().await;
        let one = entry_bytes(&entry(0, 1000));
        assert_eq!(log.purge_target(7 * one, 9), None);
        assert_eq!(log.purge_target(3 * one, 9), Some(6));
        assert_eq!(log.purge_target(3 * one, 4), Some(4));
        assert_eq!(log.purge_target(3 * one, 2), None);
    }

    #[tokio::test]
    async fn applying_takes_the_local_part_and_replication_later_gets_the_bytes() {
        let log = &mut seven().await;
        let local = |entry: &Entry| match &entry.payload {
            EntryPayload::Normal(proposal) => (proposal.local.is_some(), proposal.bytes.len()),
            _ => (false, 0),
        };
        let applied: Vec<_> =
            log.entries_stream(3..4).await.map(|entry| local(&entry.unwrap())).collect().await;
        assert_eq!(applied, [(true, 1000)]);
        assert_eq!(local(&log.try_get_log_entries(3..4).await.unwrap()[0]), (false, 1000));
        assert_eq!(local(&log.try_get_log_entries(4..5).await.unwrap()[0]), (true, 1000));
    }
}
