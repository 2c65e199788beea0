//! The waiting: each [`Pending`] to its end.
//!
//! Every wait has an end: the log's answer or [`OUTCOME_TIMEOUT`], a leader or `cluster-park-timeout`, WAIT's own
//! timeout. A write whose proposal was certainly not taken is routed again; one whose outcome nobody can tell in
//! time is answered with UNCERTAIN, so that a caller can tell the two apart.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::join_all;
use slotcast_wire::redirect::{ClusterDown, Redirect};
use slotcast_wire::reply::Reply;
use slotcast_wire::request::RequestParser;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

use crate::id::GroupId;
use crate::server::connection::Connection;
use crate::server::dispatch::Step;
use crate::server::pending::{Deferred, Pending};
use crate::server::piece::propose;
use crate::server::transaction::{Plan, opts_in};
use crate::session::tracking::Scope;
use crate::session::transaction::Batch;
use crate::shard::Shard;
use crate::shard::piece::{PieceReply, Step as PieceStep};
use crate::shard::proposal::put_request;

/// How long a proposed write is waited for before it is answered with UNCERTAIN.
pub const OUTCOME_TIMEOUT: Duration = Duration::from_secs(5);

/// Pushes wait for so long when a request begins to wait, and again between two of them: what is waited for is asked for anew
/// after each, and must have had time to be answered.
const UNDISTURBED: Duration = Duration::from_millis(20);

/// The answer to a write that was proposed and may or may not take effect.
pub const UNCERTAIN: &str =
    "UNCERTAIN The write was proposed but not confirmed in time; it may or may not take effect";

impl Connection {
    /// Waits for what a request needs, then lets the requests go on.
    pub(super) async fn settle(&mut self, mut pending: Pending) {
        self.runnable = true;
        let mark = self.output.len();
        let client = self.session.client.clone();
        let killed = std::future::poll_fn(|task| {
            client.register(task.waker());
            if client.is_killed() { Poll::Ready(()) } else { Poll::Pending }
        });
        let pushes = self.pushes(pending.may_be_overtaken());
        let deferred = tokio::select! {
            biased;
            deferred = self.wait_for(&mut pending) => deferred,
            () = killed => Deferred::Close,
            () = pushes => Deferred::Later,
        };
        match deferred {
            Deferred::Answered { consumed } => {
                self.input.drain(..consumed.min(self.input.len()));
                self.waits_until = None;
                if self.session.is_muted() {
                    self.output.truncate(mark);
                }
                self.session.end_request();
            }
            Deferred::Again => self.parser = RequestParser::default(),
            Deferred::Later => self.interrupted = Some(pending),
            Deferred::Close => self.closing = true,
        }
    }

    /// Ends when there is something to push, if anything `may_be` pushed.
    fn pushes(&self, may_be: bool) -> impl Future<Output = ()> + use<> {
        let awaited = may_be.then(|| {
            let reader =
                self.session.following.as_ref().map(|following| following.listening.reader().clone());
            let due = self.feeding.as_ref().map(|feeding| feeding.due());
            (self.outbox.clone(), reader, due)
        });
        async move {
            let Some((outbox, reader, due)) = awaited else { return std::future::pending().await };
            sleep(UNDISTURBED).await;
            let news = std::future::poll_fn(|_| {
                // Whoever brings news wakes this task.
                let news = outbox.is_waiting() || reader.as_ref().is_some_and(|reader| reader.is_woken());
                if news { Poll::Ready(()) } else { Poll::Pending }
            });
            match due {
                Some(due) => drop(timeout_at(due, news).await),
                None => news.await,
            }
        }
    }

    /// Waits, and answers what can be answered. May be dropped, and called again with what there is in `pending` then.
    async fn wait_for(&mut self, pending: &mut Pending) -> Deferred {
        match pending {
            Pending::Piece { reply, replies, consumed, shard } => {
                let (replies, consumed, shard) = (*replies, *consumed, *shard);
                match self.outcome(reply, replies, shard).await {
                    Some((bytes, _)) => {
                        self.output.extend_from_slice(&bytes);
                        Deferred::Answered { consumed }
                    }
                    None => self.again_or_down(consumed, replies).await,
                }
            }
            Pending::Step(Step::Park(_), consumed) => self.again_or_down(*consumed, 1).await,
            Pending::Step(Step::Confirm(shard), consumed) => match self.confirm(shard).await {
                true => Deferred::Again,
                false => {
                    *pending = Pending::Step(Step::Park(0), *consumed);
                    Deferred::Later
                }
            },
            Pending::Step(Step::ProposeAll, consumed) => self.propose_all(*consumed).await,
            Pending::Step(Step::Execute(batch), _) => {
                self.session.tracking.caching |=
                    self.session.tracking.scope == Scope::OptIn && opts_in(batch);
                self.execute(batch).await;
                self.session.tracking.caching = false;
                Deferred::Answered { consumed: 0 }
            }
            Pending::Step(Step::Wait(copies), _) => {
                self.wait_for_copies(*copies).await;
                Deferred::Answered { consumed: 0 }
            }
            Pending::Step(Step::Read(reading), _) => {
                self.read_log(reading).await;
                Deferred::Answered { consumed: 0 }
            }
            Pending::Step(Step::Saved, _) => {
                match self.server.context.saves.ended().await {
                    Ok(()) => Reply::new(&mut self.output, self.session.proto).ok(),
                    Err(why) => {
                        let error = format!("ERR Not saved: {why}");
                        self.server.context.metrics.note_error(&error);
                        Reply::new(&mut self.output, self.session.proto).error(&error);
                    }
                }
                Deferred::Answered { consumed: 0 }
            }
            Pending::Step(Step::Shutdown, _) => {
                self.server.shutdown.notify_one();
                Deferred::Close
            }
            Pending::Step(Step::Close, _) => Deferred::Close,
            Pending::Step(Step::Done | Step::Propose(_), consumed) => {
                Deferred::Answered { consumed: *consumed }
            }
        }
    }

    /// A piece's replies; `None`: this node doesn't lead, nothing was done.
    #[allow(clippy::type_complexity)]
    async fn outcome(
        &mut self,
        reply: &mut oneshot::Receiver<PieceReply>,
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

    /// Routes the requests again once the routes are other ones.
    async fn again_or_down(&mut self, consumed: usize, requests: usize) -> Deferred {
        if self.park().await { Deferred::Again } else { self.give_up(consumed, requests) }
    }

    /// Waits for the routes to be other than what the request was routed by; false: it has waited long enough.
    async fn park(&mut self) -> bool {
        let until = self.patience();
        let Some(mut routes) = self.server.routes.clone() else { return false };
        // Marked first, then compared: whatever changes from here on is noticed by one of the two.
        routes.mark_unchanged();
        let (now, then) = (self.server.context.view(), self.routed_by.as_ref());
        if now.as_ref().zip(then).is_none_or(|(now, then)| !Arc::ptr_eq(now, then)) {
            return Instant::now() < until;
        }
        timeout_at(until, routes.changed()).await.is_ok_and(|changed| changed.is_ok())
    }

    /// Confirms the leadership of a shard whose lease has run out; false: nobody does.
    async fn confirm(&mut self, shard: &Arc<Shard>) -> bool {
        let until = self.patience();
        if let Some(proposer) = shard.proposer()
            && let Ok(Ok(())) = timeout_at(until, proposer.group().read_barrier()).await
        {
            self.confirmed = Some(shard.id);
            return true;
        }
        false
    }

    /// Until when the request at hand may wait for a leader.
    fn patience(&mut self) -> Instant {
        let timeout = self.server.context.config.live().cluster_park_timeout;
        *self.waits_until.get_or_insert_with(|| Instant::now() + timeout)
    }

    /// Until when the request at hand may wait, if it gives itself so long (zero: for ever).
    pub(super) fn wait_until(&mut self, timeout: Duration) -> Option<Instant> {
        let until = &mut self.waits_until;
        (!timeout.is_zero()).then(|| *until.get_or_insert_with(|| Instant::now() + timeout))
    }

    /// Answers that nobody leads.
    fn give_up(&mut self, consumed: usize, requests: usize) -> Deferred {
        (0..requests).for_each(|_| self.answer_down());
        Deferred::Answered { consumed }
    }

    /// Answers one request with CLUSTERDOWN.
    fn answer_down(&mut self) {
        let down = Redirect::ClusterDown(ClusterDown::Cluster).to_string();
        Reply::new(&mut self.output, self.session.proto).error(&down);
    }

    /// FLUSHALL: a write to every shard this node leads.
    async fn propose_all(&mut self, consumed: usize) -> Deferred {
        let mut units = Vec::new();
        put_request(self.input.get(..consumed).unwrap_or_default(), &mut units);
        let shards = self.server.shards.load_full();
        let led = shards.values().filter(|shard| self.server.context.leads(shard.id));
        let asked = led.map(|shard| propose(&self.session, shard, vec![PieceStep::Logged], units.clone()));
        let replies = join_all(asked.map(|reply| tokio::time::timeout(OUTCOME_TIMEOUT, reply))).await;
        let all = replies.iter().map(|reply| match reply {
            Ok(Ok(PieceReply::Applied { bytes, .. })) => Some(bytes),
            _ => None,
        });
        if let Some(all) = all.collect::<Option<Vec<_>>>() {
            match all.first() {
                Some(bytes) => self.output.extend_from_slice(bytes),
                None => Reply::new(&mut self.output, self.session.proto).ok(),
            }
        } else if replies.iter().any(|reply| matches!(reply, Ok(Ok(PieceReply::NotLeader)))) {
            // A leadership has just moved. Flushing the others twice does no harm.
            return self.again_or_down(consumed, 1).await;
        } else {
            Reply::new(&mut self.output, self.session.proto).error(UNCERTAIN);
        }
        Deferred::Answered { consumed }
    }

    /// EXEC, until its reply is written.
    async fn execute(&mut self, batch: &Batch) {
        loop {
            let mark = self.output.len();
            let planned = self.dispatching(|dispatch| {
                let plan = dispatch.transaction(batch);
                (plan, dispatch.reads_are_current())
            });
            let goes_on = match planned {
                (Plan::Done, true) => return,
                (Plan::Done, false) => {
                    // It only read, so it can be executed again.
                    self.output.truncate(mark);
                    true
                }
                (Plan::Propose(shard, units), _) => {
                    let mut reply = propose(&self.session, &shard, vec![PieceStep::Logged], units);
                    match self.outcome(&mut reply, 1, shard.id).await {
                        Some((bytes, Some(ends))) => {
                            if let Some((_, index)) = self.last_write.filter(|_| self.session.stamped) {
                                self.output.extend_from_slice(&shard.stamp_of(index, -1));
                            }
                            return self.dispatching(|dispatch| {
                                dispatch.put_together(batch, &bytes, ends.as_deref())
                            });
                        }
                        Some((error, None)) => return self.output.extend_from_slice(&error),
                        None => self.park().await,
                    }
                }
                (Plan::Wait(Step::Confirm(shard)), _) => self.confirm(&shard).await,
                (Plan::Wait(_), _) => self.park().await,
            };
            if !goes_on {
                return self.answer_down();
            }
        }
    }
}
