//! What other members ask of this one.

use std::time::Duration;

use bytes::Bytes;
use openraft::Raft;
use openraft::errors::{Fatal, RaftError};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::id::MemberId;
use crate::raft::machine::MAX_SNAPSHOT_CHUNK;
use crate::raft::state_machine::{Adapter, RaftSnapshot, SnapshotBody};
use crate::raft::types::{SnapshotMeta, TypeConfig, Vote};
use crate::raft::wire::{Answer, Message};

/// Bytes of a snapshot taken in, at most; a longer one is refused.
const MAX_SNAPSHOT: usize = 64 << 30;

/// A snapshot whose chunks stop coming for so long is forgotten.
const STALE: Duration = Duration::from_secs(30);

/// A snapshot on its way in: one at a time, a new one replaces it.
pub struct Incoming {
    transfer: (MemberId, u64),
    last_chunk: Instant,
    chunks: Vec<Bytes>,
    bytes: usize,
}

/// Answers a message.
pub async fn answer(
    raft: &Raft<TypeConfig, Adapter>,
    incoming: &Mutex<Option<Incoming>>,
    message: Message,
) -> Answer {
    let answered = match message {
        Message::Append(request) => raft.append_entries(request).await.map(Answer::Append).map_err(stopped),
        Message::Vote(request) => raft.vote(request).await.map(Answer::Vote).map_err(stopped),
        Message::PreVote(request) => raft.pre_vote(request).await.map(Answer::Vote).map_err(stopped),
        Message::Transfer(request) => match raft.handle_transfer_leader(request).await {
            Ok(Ok(())) => Ok(Answer::Accepted),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        },
        Message::SnapshotChunk { transfer, number, chunk } => {
            take_chunk(incoming, transfer, number, chunk).map(|()| Answer::Accepted)
        }
        Message::SnapshotEnd { transfer, chunks, vote, meta } => {
            let complete = complete(incoming, transfer, chunks);
            match complete {
                Ok(chunks) => install(raft, vote, meta, chunks).await,
                Err(error) => Err(error),
            }
        }
    };
    answered.unwrap_or_else(Answer::Refused)
}

fn stopped(error: RaftError<TypeConfig>) -> String {
    format!("the member has stopped: {error}")
}

fn take_chunk(
    incoming: &Mutex<Option<Incoming>>,
    transfer: (MemberId, u64),
    number: u32,
    chunk: Bytes,
) -> Result<(), String> {
    let mut incoming = incoming.lock();
    if number == 0 {
        *incoming = Some(Incoming { transfer, last_chunk: Instant::now(), chunks: Vec::new(), bytes: 0 });
    }
    let snapshot = incoming.as_mut().filter(|snapshot| snapshot.transfer == transfer);
    let Some(snapshot) = snapshot.filter(|snapshot| snapshot.chunks.len() == number as usize) else {
        return Err("a snapshot chunk out of order".into());
    };
    if chunk.len() > MAX_SNAPSHOT_CHUNK || snapshot.bytes + chunk.len() > MAX_SNAPSHOT {
        return Err(format!("a snapshot chunk of {} bytes after {}: too much", chunk.len(), snapshot.bytes));
    }
    snapshot.last_chunk = Instant::now();
    snapshot.bytes += chunk.len();
    snapshot.chunks.push(chunk);
    Ok(())
}

/// Lets go of a snapshot whose sender has given up.
pub fn forget_stale(incoming: &Mutex<Option<Incoming>>, now: Instant) {
    incoming.lock().take_if(|snapshot| snapshot.last_chunk + STALE < now);
}

fn complete(
    incoming: &Mutex<Option<Incoming>>,
    transfer: (MemberId, u64),
    chunks: u32,
) -> Result<Vec<Bytes>, String> {
    let mut incoming = incoming.lock();
    if chunks == 0 {
        return Ok(Vec::new());
    }
    match incoming
        .take_if(|snapshot| snapshot.transfer == transfer && snapshot.chunks.len() == chunks as usize)
    {
        Some(snapshot) => Ok(snapshot.chunks),
        None => Err("the end of a snapshot whose chunks are not all here".into()),
    }
}

async fn install(
    raft: &Raft<TypeConfig, Adapter>,
    vote: Vote,
    meta: SnapshotMeta,
    chunks: Vec<Bytes>,
) -> Result<Answer, String> {
    let bytes: usize = chunks.iter().map(Bytes::len).sum();
    tracing::info!(bytes, upto = ?meta.last_log_id.map(|id| id.index), "installing a snapshot");
    let snapshot = RaftSnapshot { meta, snapshot: SnapshotBody::Received(chunks) };
    let installed: Result<_, Fatal<TypeConfig>> = raft.install_full_snapshot(vote, snapshot).await;
    installed.map(|response| Answer::Installed(response.vote)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn chunks_are_taken_in_order_and_of_one_transfer() {
        let incoming = Mutex::new(None);
        take_chunk(&incoming, (1, 1), 0, chunk("a")).unwrap();
        take_chunk(&incoming, (1, 1), 1, chunk("b")).unwrap();
        assert!(take_chunk(&incoming, (1, 1), 3, chunk("d")).is_err());
        assert!(take_chunk(&incoming, (2, 1), 2, chunk("c")).is_err());
        assert!(complete(&incoming, (1, 1), 3).is_err());
        assert_eq!(complete(&incoming, (1, 1), 2).unwrap(), [chunk("a"), chunk("b")]);
        assert!(complete(&incoming, (1, 1), 2).is_err(), "taken once");
    }

    #[test]
    fn a_new_transfer_replaces_an_unfinished_one() {
        let incoming = Mutex::new(None);
        take_chunk(&incoming, (1, 1), 0, chunk("old")).unwrap();
        take_chunk(&incoming, (1, 2), 0, chunk("new")).unwrap();
        assert!(take_chunk(&incoming, (1, 1), 1, chunk("old")).is_err());
        assert_eq!(complete(&incoming, (1, 2), 1).unwrap(), [chunk("new")]);
    }

    #[test]
    fn a_transfer_given_up_is_forgotten() {
        let incoming = Mutex::new(None);
        take_chunk(&incoming, (1, 1), 0, chunk("a")).unwrap();
        forget_stale(&incoming, Instant::now());
        assert!(incoming.lock().is_some());
        forget_stale(&incoming, Instant::now() + STALE * 2);
        assert!(incoming.lock().is_none());
    }

    #[test]
    fn an_oversized_chunk_is_refused() {
        let incoming = Mutex::new(None);
        let big = Bytes::from(vec![0; MAX_SNAPSHOT_CHUNK + 1]);
        assert!(take_chunk(&incoming, (1, 1), 0, big).unwrap_err().contains("too much"));
    }
}
