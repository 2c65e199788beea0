//! openraft's view of the other members.
//!
//! Heartbeats and votes take the bus's control lane, log entries and snapshots its bulk lane.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::Stream;
use futures::future::{BoxFuture, Either, select};
use futures::stream::BoxStream;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend};
use tokio::time::{Instant, timeout};

use crate::bus::call::{Lane, Peer, PendingAnswer};
use crate::id::MemberId;
use crate::raft::client::{Client, KeptFrom, Outside, RpcResult, understood, unexpected, unreachable};
use crate::raft::machine::{Cut, pull};
use crate::raft::pipeline::Pipeline;
use crate::raft::state::Member;
use crate::raft::state_machine::{RaftSnapshot, SnapshotBody};
use crate::raft::types::{LogId, TypeConfig, Vote};
use crate::raft::wire::{Answer, Message};

/// Snapshot chunks under way to one follower.
const SNAPSHOT_WINDOW: usize = 4;
/// Pause after every other chunk: some 150 MB a second at most. A follower must get them faster than the log grows.
const CHUNK_PAUSE: Duration = Duration::from_millis(1);
/// Time to take a snapshot chunk.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(10);
/// Time to install a snapshot once all is there.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(120);
/// Time a follower has to get the log after its snapshot before that may be purged.
const CATCH_UP: Duration = Duration::from_secs(10);
/// Snapshots one node sends at a time, over all its groups; further ones are cut later.
pub const SNAPSHOTS_AT_ONCE: usize = 2;
/// Between attempts to reach an unreachable member, in milliseconds; then the last one again and again.
const BACKOFF: [u64; 4] = [20, 50, 100, 200];

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

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = SnapshotBody;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<AppendEntriesResponse<TypeConfig>> {
        let answer = self.call(self.lane, &self.append(request), option.hard_ttl()).await;
        answer.and_then(|answer| self.appended(answer)).map_err(unreachable)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, RpcResult<BoxStream<'s, RpcResult<StreamAppendResult<TypeConfig>>>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let stream = Pipeline::new(self, input);
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
        let SnapshotBody::Cut(cut, _leave) = snapshot.snapshot else {
            return Err(AnyError::error(
                "other snapshots are being sent, or this one's machine is being read",
            ));
        };
        let count = self.outside.transfers.fetch_add(1, Ordering::Relaxed);
        let _kept = KeptLog::after(&self.outside, count, snapshot.meta.last_log_id);
        let transfer = (self.outside.member, count);
        let chunks = self.send_chunks(transfer, cut).await?;
        let end = Message::SnapshotEnd { transfer, chunks, vote, meta: snapshot.meta };
        match self.call(Lane::Bulk, &end, INSTALL_TIMEOUT).await? {
            Answer::Installed(vote) => Ok(SnapshotResponse::new(vote)),
            answer => Err(unexpected(answer)),
        }
    }

    async fn send_chunks(&self, transfer: (MemberId, u64), mut cut: Cut) -> Result<u32, AnyError> {
        let mut under_way = VecDeque::new();
        let mut number = 0;
        let taken = |answer: PendingAnswer| async {
            let bytes = timeout(CHUNK_TIMEOUT, answer).await.map_err(|error| AnyError::new(&error))?;
            understood(bytes.map_err(|error| AnyError::new(&error))?)
        };
        let pause = |number: u32| if number.is_multiple_of(2) { CHUNK_PAUSE } else { Duration::ZERO };
        while let Some(chunk) = pull(&mut cut, pause(number)).await {
            let chunk = chunk.map_err(|error| AnyError::new(&error))?;
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

/// While it lives and [`CATCH_UP`] longer, the log after a snapshot's cut is kept, so that the follower can go on
/// from there.
struct KeptLog<'a>(&'a Outside, u64);

impl<'a> KeptLog<'a> {
    fn after(outside: &'a Outside, count: u64, cut: Option<LogId>) -> KeptLog<'a> {
        let cut = KeptFrom { index: cut.map_or(0, |id| id.index), until: None };
        outside.cuts.lock().insert(count, cut);
        KeptLog(outside, count)
    }
}

impl Drop for KeptLog<'_> {
    fn drop(&mut self) {
        if let Some(cut) = self.0.cuts.lock().get_mut(&self.1) {
            cut.until = Some(Instant::now() + CATCH_UP);
        }
    }
}
