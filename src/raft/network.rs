//! openraft's view of the other members: calls over the bus.
//!
//! Log entries are pipelined: up to [`WINDOW`] requests are under way to a follower. openraft itself puts no limit
//! of time on such a stream, and a follower that is hung (or too far behind) would keep the leader from ever
//! purging its log; so a stream whose answers stop coming, or whose follower needs entries the log wants to get
//! rid of, ends here as "unreachable". openraft then purges and sends a snapshot instead.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use futures::future::{BoxFuture, Either, select};
use futures::stream::BoxStream;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::bus::{Bus, Lane, Peer, PendingAnswer};
use crate::id::{GroupId, MemberId};
use crate::raft::groups::RAFT_SERVICE;
use crate::raft::state::Member;
use crate::raft::state_machine::{RaftSnapshot, SnapshotBody};
use crate::raft::types::{LogId, TypeConfig, Vote};
use crate::raft::wire::{self, Address, Answer, Message};

/// Append requests under way to one follower.
const WINDOW: usize = 8;
/// Their bytes; one more request is sent while below.
const WINDOW_BYTES: usize = 4 << 20;
/// A follower that leaves an append unanswered for so long is taken for unreachable.
const APPEND_TIMEOUT: Duration = Duration::from_secs(1);
/// Snapshot chunks under way to one follower.
const SNAPSHOT_WINDOW: usize = 4;
/// Time to take a snapshot chunk.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(10);
/// Time to install a snapshot once all is there.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(120);
/// Snapshots one node sends at a time, over all its groups; further ones wait.
pub const SNAPSHOTS_AT_ONCE: usize = 2;
/// Between attempts to reach an unreachable member, in milliseconds; then the last one again and again.
const BACKOFF: [u64; 4] = [20, 50, 100, 200];

type RpcResult<T> = Result<T, RPCError<TypeConfig>>;

/// What all of a group's connections share.
pub struct Outside {
    /// The way to other nodes.
    pub bus: Bus,
    /// The group.
    pub group: GroupId,
    /// This member.
    pub member: MemberId,
    /// Entries before this index are wanted away: a follower that needs them gets a snapshot.
    pub floor: AtomicU64,
    /// Last index of each snapshot being sent: the log after it must stay.
    pub cuts: Mutex<BTreeMap<u64, u64>>,
    /// Numbers the snapshots sent.
    pub transfers: AtomicU64,
    /// Leave to send a snapshot; the node's.
    pub sending: Arc<Semaphore>,
}

/// Makes clients.
pub struct Factory(pub Arc<Outside>);

impl Factory {
    fn client(&self, target: MemberId, member: &Member, lane: Lane) -> Client {
        let peer = Peer { node: Some(member.node), addr: member.addr };
        Client { outside: self.0.clone(), target, peer, lane }
    }
}

impl RaftNetworkFactory<TypeConfig> for Factory {
    type Network = Client;

    async fn new_client(&mut self, target: MemberId, member: &Member) -> Client {
        self.client(target, member, Lane::Bulk)
    }

    async fn new_heartbeat_client(&mut self, target: MemberId, member: &Member) -> Client {
        self.client(target, member, Lane::Control)
    }
}

/// The way to one other member.
pub struct Client {
    outside: Arc<Outside>,
    target: MemberId,
    peer: Peer,
    lane: Lane,
}

impl Client {
    fn submit(&self, lane: Lane, message: &Message) -> (PendingAnswer, usize) {
        let to = Address { group: self.outside.group, member: self.target };
        let body = wire::encode(to, message);
        let length = body.len();
        (self.outside.bus.submit(self.peer, lane, RAFT_SERVICE, body), length)
    }

    async fn call(&self, lane: Lane, message: &Message, limit: Duration) -> Result<Answer, AnyError> {
        let (answer, _) = self.submit(lane, message);
        let bytes = timeout(limit, answer).await.map_err(|error| AnyError::new(&error))?;
        understood(bytes.map_err(|error| AnyError::new(&error))?)
    }
}

/// An answer that is one; a refusal is an error.
fn understood(bytes: Bytes) -> Result<Answer, AnyError> {
    match wire::decode_answer(bytes) {
        Ok(Answer::Refused(why)) => Err(AnyError::error(why)),
        Ok(answer) => Ok(answer),
        Err(error) => Err(AnyError::new(&error)),
    }
}

fn unexpected(answer: Answer) -> AnyError {
    AnyError::error(format!("an answer to another question: {answer:?}"))
}

fn unreachable(error: AnyError) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(&error))
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = SnapshotBody;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<AppendEntriesResponse<TypeConfig>> {
        match self.call(self.lane, &Message::Append(request), option.hard_ttl()).await {
            Ok(Answer::Append(response)) => Ok(response),
            Ok(answer) => Err(unreachable(unexpected(answer))),
            Err(error) => Err(unreachable(error)),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, RpcResult<BoxStream<'s, RpcResult<StreamAppendResult<TypeConfig>>>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let stream =
            Pipeline { client: self, input: Some(input), sent: VecDeque::new(), bytes: 0, idle: None };
        Box::pin(std::future::ready(Ok(Box::pin(stream) as BoxStream<'s, _>)))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<VoteResponse<TypeConfig>> {
        match self.call(Lane::Control, &Message::Vote(request), option.hard_ttl()).await {
            Ok(Answer::Vote(response)) => Ok(response),
            Ok(answer) => Err(unreachable(unexpected(answer))),
            Err(error) => Err(unreachable(error)),
        }
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<VoteResponse<TypeConfig>> {
        match self.call(Lane::Control, &Message::PreVote(request), option.hard_ttl()).await {
            Ok(Answer::Vote(response)) => Ok(response),
            Ok(answer) => Err(unreachable(unexpected(answer))),
            Err(error) => Err(unreachable(error)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: RaftSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        match select(pin!(self.send_snapshot(vote, snapshot)), pin!(cancel)).await {
            Either::Left((sent, _)) => {
                sent.map_err(|error| StreamingError::Unreachable(Unreachable::new(&error)))
            }
            Either::Right((closed, _)) => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<TransferLeaderResponse<TypeConfig>> {
        match self.call(Lane::Control, &Message::Transfer(request), option.hard_ttl()).await {
            Ok(Answer::Accepted) => Ok(Ok(())),
            Ok(answer) => Err(RPCError::Network(NetworkError::new(&unexpected(answer)))),
            Err(error) => Err(unreachable(error)),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        let last = BACKOFF.last().copied().unwrap_or(200);
        let pauses = BACKOFF.into_iter().chain(std::iter::repeat(last));
        Some(Backoff::new(pauses.map(Duration::from_millis)))
    }
}

impl Client {
    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: RaftSnapshot,
    ) -> Result<SnapshotResponse<TypeConfig>, AnyError> {
        let SnapshotBody::Cut(cut) = snapshot.snapshot else {
            return Err(AnyError::error("only a cut can be sent"));
        };
        let count = self.outside.transfers.fetch_add(1, Ordering::Relaxed);
        let _kept = KeptLog::after(&self.outside, count, snapshot.meta.last_log_id);
        let _leave = self.outside.sending.acquire().await.map_err(|error| AnyError::new(&error))?;
        let transfer = (self.outside.member, count);
        let chunks = self.send_chunks(transfer, cut).await?;
        let end = Message::SnapshotEnd { transfer, chunks, vote, meta: snapshot.meta };
        match self.call(Lane::Bulk, &end, INSTALL_TIMEOUT).await? {
            Answer::Installed(vote) => Ok(SnapshotResponse::new(vote)),
            answer => Err(unexpected(answer)),
        }
    }

    async fn send_chunks(
        &self,
        transfer: (MemberId, u64),
        cut: Box<dyn Iterator<Item = Bytes> + Send>,
    ) -> Result<u32, AnyError> {
        let mut under_way = VecDeque::new();
        let mut number = 0;
        let taken = |answer: PendingAnswer| async {
            let bytes = timeout(CHUNK_TIMEOUT, answer).await.map_err(|error| AnyError::new(&error))?;
            understood(bytes.map_err(|error| AnyError::new(&error))?)
        };
        for chunk in cut {
            if under_way.len() >= SNAPSHOT_WINDOW
                && let Some(answer) = under_way.pop_front()
            {
                taken(answer).await?;
            }
            let (answer, _) = self.submit(Lane::Bulk, &Message::SnapshotChunk { transfer, number, chunk });
            under_way.push_back(answer);
            number += 1;
        }
        for answer in under_way {
            taken(answer).await?;
        }
        Ok(number)
    }
}

/// While it lives, the log after a snapshot's cut is kept, so that the follower can go on from there.
struct KeptLog<'a>(&'a Outside, u64);

impl<'a> KeptLog<'a> {
    fn after(outside: &'a Outside, count: u64, cut: Option<LogId>) -> KeptLog<'a> {
        outside.cuts.lock().insert(count, cut.map_or(0, |id| id.index));
        KeptLog(outside, count)
    }
}

impl Drop for KeptLog<'_> {
    fn drop(&mut self) {
        self.0.cuts.lock().remove(&self.1);
    }
}

/// Append requests on their way and their answers, in order.
struct Pipeline<'s, S> {
    client: &'s Client,
    /// `None` once it has ended.
    input: Option<S>,
    sent: VecDeque<Sent>,
    bytes: usize,
    idle: Option<Pin<Box<Sleep>>>,
}

struct Sent {
    answer: PendingAnswer,
    prev: Option<LogId>,
    last: Option<LogId>,
    bytes: usize,
    at: Instant,
}

impl<S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin> Pipeline<'_, S> {
    /// Sends what may be sent now; an error ends the stream.
    fn fill(&mut self, context: &mut Context<'_>) -> RpcResult<()> {
        while self.sent.len() < WINDOW
            && self.bytes < WINDOW_BYTES
            && let Some(input) = &mut self.input
        {
            match Pin::new(input).poll_next(context) {
                Poll::Pending => break,
                Poll::Ready(None) => self.input = None,
                Poll::Ready(Some(request)) => self.send(request)?,
            }
        }
        Ok(())
    }

    fn send(&mut self, request: AppendEntriesRequest<TypeConfig>) -> RpcResult<()> {
        let prev = request.prev_log_id;
        let next_needed = prev.map_or(0, |id| id.index + 1);
        if self.client.lane == Lane::Bulk && next_needed < self.client.outside.floor.load(Ordering::Relaxed) {
            return Err(unreachable(AnyError::error(
                "too far behind for the log kept; it shall get a snapshot",
            )));
        }
        let last = request.entries.last().map(|entry| entry.log_id).or(prev);
        let (answer, bytes) = self.client.submit(self.client.lane, &Message::Append(request));
        self.bytes += bytes;
        self.sent.push_back(Sent { answer, prev, last, bytes, at: Instant::now() });
        Ok(())
    }

    /// The oldest request's answer; `None`: nothing is under way.
    fn answer(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<RpcResult<StreamAppendResult<TypeConfig>>>> {
        let Some(front) = self.sent.front_mut() else {
            self.idle = None;
            return if self.input.is_none() { Poll::Ready(None) } else { Poll::Pending };
        };
        let Poll::Ready(answered) = Pin::new(&mut front.answer).poll(context) else {
            let deadline = front.at + APPEND_TIMEOUT;
            return self.overdue(deadline, context).map(|()| {
                Some(Err(unreachable(AnyError::error(format!(
                    "no answer to an append for {APPEND_TIMEOUT:?}"
                )))))
            });
        };
        let (prev, last) = (front.prev, front.last);
        self.bytes -= front.bytes;
        self.sent.pop_front();
        let answer = answered.map_err(|error| AnyError::new(&error)).and_then(understood);
        Poll::Ready(Some(match answer {
            Ok(Answer::Append(response)) => stream_result(response, prev, last),
            Ok(answer) => Err(unreachable(unexpected(answer))),
            Err(error) => Err(unreachable(error)),
        }))
    }

    /// Ready once `deadline` has passed. The timer is only moved when it fires, not for every request.
    fn overdue(&mut self, deadline: Instant, context: &mut Context<'_>) -> Poll<()> {
        let idle = self.idle.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        while idle.as_mut().poll(context).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            idle.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

fn stream_result(
    response: AppendEntriesResponse<TypeConfig>,
    prev: Option<LogId>,
    last: Option<LogId>,
) -> RpcResult<StreamAppendResult<TypeConfig>> {
    Ok(match (response, prev) {
        (AppendEntriesResponse::Success, _) => Ok(last),
        (AppendEntriesResponse::PartialSuccess(upto), _) => Ok(upto),
        (AppendEntriesResponse::HigherVote(vote), _) => Err(StreamAppendError::HigherVote(vote)),
        (AppendEntriesResponse::Conflict, Some(prev)) => Err(StreamAppendError::Conflict(prev)),
        (AppendEntriesResponse::Conflict, None) => {
            return Err(unreachable(AnyError::error("a conflict at the very beginning of the log")));
        }
    })
}

impl<S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin> Stream for Pipeline<'_, S> {
    type Item = RpcResult<StreamAppendResult<TypeConfig>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let polled = match this.fill(context) {
            Ok(()) => this.answer(context),
            Err(error) => Poll::Ready(Some(Err(error))),
        };
        if let Poll::Ready(Some(Err(_) | Ok(Err(_)))) = polled {
            this.input = None;
            this.sent.clear();
        }
        polled
    }
}
