//! What other members ask of this one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::Raft;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{Fatal, RaftError};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::id::MemberId;
use crate::raft::freshness::{Freshness, Word};
use crate::raft::kept::Kept;
use crate::raft::machine::{MAX_SNAPSHOT_CHUNK, Staged, Stager};
use crate::raft::snapshot_file::{Finished, SnapshotError, Unfinished};
use crate::raft::state_machine::{Adapter, RaftSnapshot, SnapshotBody};
use crate::raft::types::{SnapshotMeta, TypeConfig, Vote};
use crate::raft::wire::{Answer, Message};

/// Bytes of a snapshot taken in, at most; a longer one is refused.
const MAX_SNAPSHOT: usize = 64 << 30;

/// A snapshot whose chunks stop coming for so long is forgotten.
const STALE: Duration = Duration::from_secs(30);

/// After the disk could not take a snapshot others are refused for so long, before a byte of them is taken.
const DISK_PAUSE: Duration = Duration::from_secs(5);

/// A member's inbox.
pub struct Inbox {
    /// A snapshot on its way in: one at a time, a new one replaces it.
    incoming: Mutex<Option<Incoming>>,
    /// Since when, and why, the disk cannot take one.
    disk: Mutex<Option<(Instant, String)>>,
    /// How old the state may be, by what leaders have said.
    pub freshness: Freshness,
    /// When a leader's last message was taken.
    heard: Mutex<Instant>,
    stager: Stager,
    kept: Arc<Kept>,
}

/// Its chunks are taken into a state of its own as they come, and into a file where there are files, so that at no time
/// there is more of it in memory than that state. A sender waits for each chunk to be answered, so few are waiting.
struct Incoming {
    transfer: (MemberId, u64),
    last_chunk: Instant,
    chunks: u32,
    bytes: usize,
    staged: Box<dyn Staged>,
    file: Option<IncomingFile>,
}

/// The chunks of the file are written one after the other, in the order in which they asked for the lock; it is gone
/// after a failure.
type IncomingFile = Arc<tokio::sync::Mutex<Option<Unfinished>>>;

impl Inbox {
    /// An empty one.
    pub fn new(stager: Stager, kept: Arc<Kept>) -> Inbox {
        let now = Instant::now();
        let (freshness, heard) = (Freshness::new(now, rand::random()), Mutex::new(now));
        Inbox { incoming: Mutex::default(), disk: Mutex::default(), freshness, heard, stager, kept }
    }

    /// Answers a message.
    pub async fn answer(&self, raft: &Raft<TypeConfig, Adapter>, message: Message) -> Answer {
        let answered = match message {
            Message::Append { request, under_lease } => self.append(raft, request, under_lease).await,
            Message::Vote(request) => raft.vote(request).await.map(Answer::Vote).map_err(stopped),
            Message::PreVote(request) => raft.pre_vote(request).await.map(Answer::Vote).map_err(stopped),
            Message::Flush(_) => Err("a question for the log".into()),
            Message::Leave(_) => Err("a question for the leader".into()),
            Message::Transfer(request) => match raft.handle_transfer_leader(request).await {
                Ok(Ok(())) => Ok(Answer::Accepted),
                Ok(Err(error)) => Err(error.to_string()),
                Err(error) => Err(error.to_string()),
            },
            Message::SnapshotChunk { transfer, number, chunk } => {
                self.take_chunk(transfer, number, chunk).await.map(|()| Answer::Accepted)
            }
            Message::SnapshotEnd { transfer, chunks, vote, meta } => match self.complete(transfer, chunks) {
                Ok(complete) => self.install(raft, vote, meta, complete).await,
                Err(error) => Err(error),
            },
        };
        answered.unwrap_or_else(Answer::Refused)
    }

    /// Takes entries in, and notes how new they make the state.
    async fn append(
        &self,
        raft: &Raft<TypeConfig, Adapter>,
        request: AppendEntriesRequest<TypeConfig>,
        under_lease: Option<Word>,
    ) -> Result<Answer, String> {
        let response = raft.append_entries(request).await.map_err(stopped)?;
        let taken =
            matches!(response, AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(_));
        if taken {
            *self.heard.lock() = Instant::now();
        }
        if let Some(word) = under_lease.filter(|_| taken) {
            let applied = raft.metrics().borrow_watched().last_applied.map_or(0, |id| id.index);
            self.freshness.told(word, applied);
        }
        Ok(Answer::Append(response, self.freshness.mark(Instant::now())))
    }

    /// When the last message of a leader was taken; its lease ends no later than counted from then.
    pub fn heard(&self) -> Instant {
        *self.heard.lock()
    }

    /// Lets go of a snapshot whose sender has given up.
    pub fn forget_stale(&self, now: Instant) {
        self.incoming.lock().take_if(|snapshot| snapshot.last_chunk + STALE < now);
    }

    async fn take_chunk(&self, transfer: (MemberId, u64), number: u32, chunk: Bytes) -> Result<(), String> {
        match self.stage_chunk(transfer, number, &chunk)? {
            Some(file) => write(&file, chunk).await.map_err(|error| {
                self.incoming.lock().take_if(|snapshot| snapshot.transfer == transfer);
                self.note_disk(&error)
            }),
            None => Ok(()),
        }
    }

    /// Takes a chunk into the state; the file it belongs into as well.
    fn stage_chunk(
        &self,
        transfer: (MemberId, u64),
        number: u32,
        chunk: &Bytes,
    ) -> Result<Option<IncomingFile>, String> {
        let mut incoming = self.incoming.lock();
        if number == 0 {
            *incoming = Some(self.begin(transfer)?);
        }
        let snapshot = incoming.as_mut().filter(|snapshot| snapshot.transfer == transfer);
        let Some(snapshot) = snapshot.filter(|snapshot| snapshot.chunks == number) else {
            return Err("a snapshot chunk out of order".into());
        };
        if chunk.len() > MAX_SNAPSHOT_CHUNK || snapshot.bytes + chunk.len() > MAX_SNAPSHOT {
            return Err(format!(
                "a snapshot chunk of {} bytes after {}: too much",
                chunk.len(),
                snapshot.bytes
            ));
        }
        if let Err(error) = snapshot.staged.take(chunk) {
            *incoming = None;
            tracing::error!(%error, "a snapshot from another member: are the nodes of different versions?");
            return Err(error.to_string());
        }
        snapshot.last_chunk = Instant::now();
        snapshot.bytes += chunk.len();
        snapshot.chunks += 1;
        Ok(snapshot.file.clone())
    }

    fn begin(&self, transfer: (MemberId, u64)) -> Result<Incoming, String> {
        if let Some((since, why)) = &*self.disk.lock()
            && since.elapsed() < DISK_PAUSE
        {
            return Err(why.clone());
        }
        let file = self.kept.begin().map_err(|error| self.note_disk(&error))?;
        Ok(Incoming {
            transfer,
            last_chunk: Instant::now(),
            chunks: 0,
            bytes: 0,
            staged: (self.stager)(),
            file: file.map(|file| Arc::new(tokio::sync::Mutex::new(Some(file)))),
        })
    }

    fn complete(&self, transfer: (MemberId, u64), chunks: u32) -> Result<Incoming, String> {
        let whole = |snapshot: &mut Incoming| snapshot.transfer == transfer && snapshot.chunks == chunks;
        let complete = self.incoming.lock().take_if(whole);
        complete.ok_or_else(|| "the end of a snapshot whose chunks are not all here".into())
    }

    async fn install(
        &self,
        raft: &Raft<TypeConfig, Adapter>,
        vote: Vote,
        meta: SnapshotMeta,
        complete: Incoming,
    ) -> Result<Answer, String> {
        let file = match &complete.file {
            Some(file) => Some(self.finish(file, &meta).await?),
            None => None,
        };
        let bytes = complete.bytes;
        tracing::info!(bytes, upto = ?meta.last_log_id.map(|id| id.index), "installing a snapshot");
        let snapshot = RaftSnapshot { meta, snapshot: SnapshotBody::Received(complete.staged, file) };
        let installed: Result<_, Fatal<TypeConfig>> = raft.install_full_snapshot(vote, snapshot).await;
        installed.map(|response| Answer::Installed(response.vote)).map_err(|error| error.to_string())
    }

    /// The file with its end, synced.
    async fn finish(&self, file: &IncomingFile, meta: &SnapshotMeta) -> Result<Finished, String> {
        let file = file.lock().await.take().ok_or("the snapshot's file could not be written")?;
        file.finish(meta.clone()).await.map_err(|error| self.note_disk(&error))
    }

    fn note_disk(&self, error: &SnapshotError) -> String {
        let why = error.to_string();
        tracing::error!("a snapshot from another member cannot be kept, and so not be taken: {why}");
        *self.disk.lock() = Some((Instant::now(), why.clone()));
        why
    }
}

fn stopped(error: RaftError<TypeConfig>) -> String {
    format!("the member has stopped: {error}")
}

async fn write(file: &IncomingFile, chunk: Bytes) -> Result<(), SnapshotError> {
    let mut held = file.lock().await;
    if let Some(file) = held.take() {
        *held = Some(file.write(chunk).await?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::id::GroupId;
    use crate::raft::machine::gathering;
    use crate::raft::snapshot_file::SnapshotDir;
    use crate::wal::simulated::{Failure, SimulatedDisk};

    type Seen = Arc<Mutex<Vec<Bytes>>>;

    fn inbox() -> (Inbox, Seen) {
        let seen = Seen::default();
        let installed = seen.clone();
        let stager = gathering(move |chunks| {
            *installed.lock() = chunks;
            Ok(())
        });
        (Inbox::new(stager, Arc::new(Kept::new(None, Arc::new(Semaphore::new(1))))), seen)
    }

    fn take(inbox: &Inbox, transfer: (MemberId, u64), number: u32, text: &'static str) -> Result<(), String> {
        inbox.stage_chunk(transfer, number, &Bytes::from_static(text.as_bytes())).map(drop)
    }

    #[test]
    fn chunks_are_taken_in_order_and_of_one_transfer() {
        let (inbox, seen) = inbox();
        take(&inbox, (1, 1), 0, "a").unwrap();
        take(&inbox, (1, 1), 1, "b").unwrap();
        assert!(take(&inbox, (1, 1), 3, "d").is_err());
        assert!(take(&inbox, (2, 1), 2, "c").is_err());
        assert!(inbox.complete((1, 1), 3).is_err());
        inbox.complete((1, 1), 2).unwrap().staged.install().unwrap();
        assert_eq!(*seen.lock(), ["a", "b"]);
        assert!(inbox.complete((1, 1), 2).is_err(), "taken once");
    }

    #[test]
    fn a_new_transfer_replaces_an_unfinished_one() {
        let (inbox, seen) = inbox();
        take(&inbox, (1, 1), 0, "old").unwrap();
        take(&inbox, (1, 2), 0, "new").unwrap();
        assert!(take(&inbox, (1, 1), 1, "old").is_err());
        inbox.complete((1, 2), 1).unwrap().staged.install().unwrap();
        assert_eq!(*seen.lock(), ["new"]);
    }

    #[test]
    fn a_transfer_given_up_is_forgotten() {
        let (inbox, _) = inbox();
        take(&inbox, (1, 1), 0, "a").unwrap();
        inbox.forget_stale(Instant::now());
        assert!(inbox.incoming.lock().is_some());
        inbox.forget_stale(Instant::now() + STALE * 2);
        assert!(inbox.incoming.lock().is_none());
    }

    #[test]
    fn while_the_disk_cannot_take_one_none_is_begun() {
        let (mut inbox, _) = inbox();
        let disk = SimulatedDisk::default();
        disk.fail(Some(Failure { at: 1, for_ever: true, kind: io::ErrorKind::Other, half: false }));
        let dir = SnapshotDir::new(disk.mount("snapshots"), GroupId(1), 1);
        inbox.kept = Arc::new(Kept::new(Some(dir), Arc::new(Semaphore::new(1))));
        let why = take(&inbox, (1, 1), 0, "a").unwrap_err();
        assert!(why.contains("snapshots"), "{why}");
        inbox.kept = Arc::new(Kept::new(None, Arc::new(Semaphore::new(1))));
        assert_eq!(take(&inbox, (1, 2), 0, "a"), Err(why));
        *inbox.disk.lock() = None;
        take(&inbox, (1, 3), 0, "a").unwrap();
    }

    #[test]
    fn an_oversized_chunk_is_refused() {
        let (inbox, _) = inbox();
        let big = Bytes::from(vec![0; MAX_SNAPSHOT_CHUNK + 1]);
        assert!(inbox.stage_chunk((1, 1), 0, &big).err().unwrap().contains("too much"));
    }
}
