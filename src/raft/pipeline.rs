//! Log entries on their way to one follower, pipelined.
//!
//! openraft itself puts no limit of time on such a stream, and a follower that is hung (or too far behind) would
//! keep the leader from ever purging its log; so a stream whose answers stop coming, or whose follower needs
//! entries the log wants to get rid of, ends here as "unreachable". openraft then purges and sends a snapshot.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use openraft::AnyError;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::bus::call::{Lane, PendingAnswer};
use crate::raft::client::{Client, RpcResult, understood, unreachable};
use crate::raft::types::{LogId, TypeConfig};

/// Append requests under way to one follower.
const WINDOW: usize = 8;
/// Their bytes; one more request is sent while below.
const WINDOW_BYTES: usize = 4 << 20;
/// A follower that leaves an append unanswered for so long is taken for unreachable.
const APPEND_TIMEOUT: Duration = Duration::from_secs(1);

/// Append requests on their way and their answers, in order.
pub struct Pipeline<'s, S> {
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

impl<'s, S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin> Pipeline<'s, S> {
    /// Sends what comes out of `input`.
    pub fn new(client: &'s Client, input: S) -> Pipeline<'s, S> {
        Pipeline { client, input: Some(input), sent: VecDeque::new(), bytes: 0, idle: None }
    }

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
        let (answer, bytes) = self.client.submit(self.client.lane, &self.client.append(request));
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
        let answer = answer.and_then(|answer| self.client.appended(answer));
        Poll::Ready(Some(match answer {
            Ok(response) => stream_result(response, prev, last),
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
