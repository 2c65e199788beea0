//! The waiting: each [`Pending`] to its end.
//!
//! Every wait has an end: the log's answer or [`OUTCOME_TIMEOUT`], a leader or `cluster-park-timeout`, WAIT's own
//! timeout. A write whose proposal was certainly not taken is routed again; one whose outcome nobody can tell in
//! time is answered with UNCERTAIN, so that a caller can tell the two apart.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use slotcast_wire::reply::Reply;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::id::GroupId;
use crate::server::connection::Connection;
use crate::server::dispatch::Step;
use crate::server::pending::{Deferred, Pending};
use crate::server::piece::propose;
use crate::server::transaction::Plan;
use crate::session::transaction::Batch;
use crate::shard::Shard;
use crate::shard::piece::{PieceReply, Step as PieceStep};
use crate::shard::proposal::put_request;

/// How long a proposed write is waited for before it is answered with UNCERTAIN.
pub const OUTCOME_TIMEOUT: Duration = Duration::from_secs(5);

/// The answer to a write that was proposed and may or may not take effect.
pub const UNCERTAIN: &str =
    "UNCERTAIN The write was proposed but not confirmed in time; it may or may not take effect";

impl Connection {
    /// Waits, and answers what can be answered.
    pub(super) async fn wait_for(&mut self, pending: Pending) -> Deferred {
        match pending {
            Pending::Piece { reply, replies, consumed, shard } => {
                match self.outcome(reply, replies, shard).await {
                    Some((bytes, _)) => {
                        self.output.extend_from_slice(&bytes);
                        Deferred::Answered { consumed }
                    }
                    None => Deferred::Again,
                }
            }
            Pending::Step(Step::Park(_), consumed) => match self.park().await {
                true => Deferred::Again,
                false => {
                    self.answer_down();
                    self.input.drain(..consumed.min(self.input.len()));
                    Deferred::Again
                }
            },
            Pending::Step(Step::Confirm(shard), _) => {
                self.confirm(&shard).await;
                Deferred::Again
            }
            Pending::Step(Step::ProposeAll, consumed) => self.propose_all(consumed).await,
            Pending::Step(Step::Execute(batch), _) => {
                self.execute(&batch).await;
                Deferred::Answered { consumed: 0 }
            }
            Pending::Step(Step::Wait(replicas, timeout), _) => {
                let count = self.replicas_with_last_write(replicas, timeout).await;
                Reply::new(&mut self.output, self.session.proto).integer(count as i64);
                Deferred::Answered { consumed: 0 }
            }
            Pending::Step(Step::Shutdown, _) => {
                self.server.shutdown.notify_one();
                Deferred::Close
            }
            Pending::Step(Step::Close, _) => Deferred::Close,
            Pending::Step(Step::Done | Step::Propose(_), consumed) => Deferred::Answered { consumed },
        }
    }

    /// A piece's replies; `None`: this node doesn't lead, nothing was done.
    #[allow(clippy::type_complexity)]
    async fn outcome(
        &mut self,
        reply: oneshot::Receiver<PieceReply>,
        replies: usize,
        shard: GroupId,
    ) -> Option<(Vec<u8>, Option<Option<Vec<usize>>>)> {
        match tokio::time::timeout(OUTCOME_TIMEOUT, reply).await {
            Ok(Ok(PieceReply::Applied { bytes, transaction, index })) => {
                self.last_write = Some((shard, index));
                Some((bytes, transaction))
            }
            Ok(Ok(PieceReply::NotLeader)) => None,
            Ok(Err(_)) | Err(_) => {
                let mut bytes = Vec::new();
                (0..replies).for_each(|_| Reply::new(&mut bytes, self.session.proto).error(UNCERTAIN));
                Some((bytes, None))
            }
        }
    }

    /// Waits for the routes to change; false: the request has waited long enough.
    async fn park(&mut self) -> bool {
        let live = self.server.context.config.live().cluster_park_timeout;
        let until = *self.parked_until.get_or_insert_with(|| Instant::now() + live);
        let Some(mut routes) = self.server.routes.clone() else { return false };
        Instant::now() < until
            && timeout_at(until, routes.changed()).await.is_ok_and(|changed| changed.is_ok())
    }

    /// Confirms the leadership of a shard whose lease has run out.
    async fn confirm(&mut self, shard: &Arc<Shard>) {
        let timeout = self.server.context.config.live().cluster_park_timeout;
        let until = *self.parked_until.get_or_insert_with(|| Instant::now() + timeout);
        let Some(proposer) = shard.proposer() else { return };
        if let Ok(Ok(())) = timeout_at(until, proposer.group().read_barrier()).await {
            self.confirmed = Some(shard.id);
        } else {
            self.park().await;
        }
    }

    /// FLUSHALL: a write to every shard this node leads.
    async fn propose_all(&mut self, consumed: usize) -> Deferred {
        let request = self.input.get(..consumed).unwrap_or_default().to_vec();
        let pieces: Vec<Pending> = self.dispatching(|dispatch| {
            let Some(view) = dispatch.view.clone() else { return Vec::new() };
            let shards = dispatch.server.shards.load();
            let led = shards.values().filter(|shard| view.serves(shard.id));
            let mut units = Vec::new();
            put_request(&request, &mut units);
            led.map(|shard| propose(dispatch, shard, vec![PieceStep::Logged], units.clone(), 0)).collect()
        });
        let replies = join_all(pieces.into_iter().filter_map(|pending| match pending {
            Pending::Piece { reply, .. } => Some(tokio::time::timeout(OUTCOME_TIMEOUT, reply)),
            Pending::Step(..) => None,
        }))
        .await;
        let all = replies.iter().all(|reply| matches!(reply, Ok(Ok(PieceReply::Applied { .. }))));
        let mut reply = Reply::new(&mut self.output, self.session.proto);
        if all {
            reply.ok()
        } else {
            reply.error(UNCERTAIN)
        }
        Deferred::Answered { consumed }
    }

    /// EXEC, until its reply is written.
    async fn execute(&mut self, batch: &Batch) {
        loop {
            let plan = self.dispatching(|dispatch| match dispatch.transaction(batch) {
                Plan::Propose(shard, units) => Err(Step::Propose(shard.clone()).with(propose(
                    dispatch,
                    &shard,
                    vec![PieceStep::Logged],
                    units,
                    0,
                ))),
                Plan::Wait(step) => Err((step, None)),
                Plan::Done => Ok(()),
            });
            match plan {
                Ok(()) => return,
                Err((_, Some(Pending::Piece { reply, shard, .. }))) => {
                    match self.outcome(reply, 1, shard).await {
                        Some((bytes, Some(ends))) => {
                            return self.dispatching(|dispatch| {
                                dispatch.put_together(batch, &bytes, ends.as_deref())
                            });
                        }
                        Some((error, None)) => return self.output.extend_from_slice(&error),
                        None => {}
                    }
                }
                Err((Step::Confirm(shard), _)) => self.confirm(&shard).await,
                Err(_) => {
                    if !self.park().await {
                        return self.answer_down();
                    }
                }
            }
        }
    }

    /// How many replicas hold this connection's last write (true at the time of the answer).
    async fn replicas_with_last_write(&mut self, wanted: usize, timeout: Duration) -> usize {
        let Some((group, index)) = self.last_write else { return self.replicas() };
        let Some(proposer) = self.server.shards.load().get(&group).and_then(|shard| shard.proposer()) else {
            return 0;
        };
        let until = (!timeout.is_zero()).then(|| Instant::now() + timeout);
        let mut state = proposer.group().state();
        loop {
            let holding = {
                let state = state.borrow_and_update();
                state
                    .followers
                    .values()
                    .filter(|follower| follower.matched.is_some_and(|at| at >= index))
                    .count()
            };
            if holding >= wanted {
                return holding;
            }
            let changed = state.changed();
            let goes_on = match until {
                Some(until) => timeout_at(until, changed).await.is_ok_and(|changed| changed.is_ok()),
                None => changed.await.is_ok(),
            };
            if !goes_on {
                return holding;
            }
        }
    }

    /// Followers of the shards this node leads: what WAIT counts for a connection that has written nothing.
    fn replicas(&self) -> usize {
        let shards = self.server.shards.load();
        let followers = shards.values().filter_map(|shard| shard.proposer());
        followers.map(|proposer| proposer.group().state().borrow().followers.len()).max().unwrap_or(0)
    }
}

impl Step {
    /// With what it already waits for.
    fn with(self, pending: Pending) -> (Step, Option<Pending>) {
        (self, Some(pending))
    }
}
