//! Calls from one member of a group to another, over the bus.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use openraft::AnyError;
use openraft::errors::{RPCError, Unreachable};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use crate::bus::Bus;
use crate::bus::call::{Lane, Peer, PendingAnswer};
use crate::id::{GroupId, MemberId};
use crate::raft::freshness::{Mark, Word};
use crate::raft::lease::Lease;
use crate::raft::types::TypeConfig;
use crate::raft::wire::{self, Address, Answer, Message, RAFT_SERVICE};

/// What openraft wants to hear from a call.
pub type RpcResult<T> = Result<T, RPCError<TypeConfig>>;

/// What all of a group's connections share.
pub struct Outside {
    /// The way to other nodes.
    pub bus: Bus,
    /// The group.
    pub group: GroupId,
    /// This member.
    pub member: MemberId,
    /// This member's lease, if it leads.
    pub lease: Lease,
    /// The last entry that is being applied or was; nothing after it has been acknowledged by this member.
    pub reached: Arc<AtomicU64>,
    /// The last that each member has said of its clock; one a member, so there are few.
    pub marks: Mutex<BTreeMap<MemberId, Mark>>,
    /// Entries before this index are wanted away now: a follower that needs them gets a snapshot.
    pub floor: AtomicU64,
    /// Snapshots being sent or just sent, by number: the log after them must stay.
    pub cuts: Mutex<BTreeMap<u64, KeptFrom>>,
    /// Numbers the snapshots sent.
    pub transfers: AtomicU64,
}

/// A snapshot sent to a member that will go on with the log after it.
#[derive(Clone, Copy, Debug)]
pub struct KeptFrom {
    /// The last index in it.
    pub index: u64,
    /// Until when that log is kept; `None`: it is still being sent.
    pub until: Option<Instant>,
}

/// The way to one other member.
pub struct Client {
    /// What it shares with the group's other clients.
    pub outside: Arc<Outside>,
    /// The other member.
    pub target: MemberId,
    /// Where it lives.
    pub peer: Peer,
    /// The lane of log entries; small calls go over the control lane anyway.
    pub lane: Lane,
}

impl Client {
    /// Queues a message; its answer to come, and its length.
    pub fn submit(&self, lane: Lane, message: &Message) -> (PendingAnswer, usize) {
        let to = Address { group: self.outside.group, member: self.target };
        let body = wire::encode(to, message);
        let length = body.len();
        (self.outside.bus.submit(self.peer, lane, RAFT_SERVICE, body), length)
    }

    /// An append request, with what the leader knows of itself.
    pub fn append(&self, request: AppendEntriesRequest<TypeConfig>) -> Message {
        let mark = self.outside.marks.lock().get(&self.target).copied();
        // In this order: what nobody else can have acknowledged while the lease lasts includes all up to the mark.
        let reached = self.outside.reached.load(Ordering::Acquire);
        let leased = self.outside.lease.is_valid(Instant::now());
        let under_lease = mark.filter(|_| leased).map(|mark| Word { mark, reached });
        Message::Append { request, under_lease }
    }

    /// The answer to an append.
    pub fn appended(&self, answer: Answer) -> Result<AppendEntriesResponse<TypeConfig>, AnyError> {
        let Answer::Append(response, mark) = answer else { return Err(unexpected(answer)) };
        self.outside.marks.lock().insert(self.target, mark);
        Ok(response)
    }

    /// Sends a message and waits for its answer.
    pub async fn call(&self, lane: Lane, message: &Message, limit: Duration) -> Result<Answer, AnyError> {
        let (answer, _) = self.submit(lane, message);
        let bytes = timeout(limit, answer).await.map_err(|error| AnyError::new(&error))?;
        understood(bytes.map_err(|error| AnyError::new(&error))?)
    }
}

/// An answer that is one; a refusal is an error.
pub fn understood(bytes: Bytes) -> Result<Answer, AnyError> {
    match wire::decode_answer(bytes) {
        Ok(Answer::Refused(why)) => Err(AnyError::error(why)),
        Ok(answer) => Ok(answer),
        Err(error) => Err(AnyError::new(&error)),
    }
}

/// The complaint about an answer that does not fit.
pub fn unexpected(answer: Answer) -> AnyError {
    AnyError::error(format!("an answer to another question: {answer:?}"))
}

/// openraft's "leave it alone for a while".
pub fn unreachable(error: AnyError) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(&error))
}
