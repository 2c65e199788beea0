//! A proposal's way into the log and back.
//!
//! openraft refuses proposals while the leader's lease has run out, which is no redirect: nobody else leads. Those
//! proposals wait here, in order, a bounded time; so do proposals made while the leadership is handed over.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::FutureExt;
use openraft::errors::{ClientWriteError, ForwardReason};
use tokio::time::Instant;

use crate::raft::inside::Inside;
use crate::raft::proposal::{Done, MAX_PROPOSAL, Outcome, Proposal};
use crate::raft::queue::{Attempt, Promise};
use crate::raft::types::{Callback, WriteResult};

/// Proposals that wait for the lease, at most; more are refused.
const MAX_WAITING: usize = 1024;

impl Inside {
    /// See [`crate::raft::group::Group::propose`].
    pub fn propose(self: &Arc<Self>, proposal: Proposal, done: Done) {
        let until = Instant::now() + self.options.timing.election_max * 2;
        let attempt = Attempt { proposal, promise: Promise::new(done), until };
        if attempt.proposal.bytes.len() > MAX_PROPOSAL || self.stopped.load(Ordering::Acquire) {
            return attempt.promise.keep(Outcome::NotLeader { leader: None });
        }
        let behind_others = {
            let queue = self.queue.lock();
            queue.held || !queue.waiting.is_empty()
        };
        if behind_others { self.wait(attempt) } else { self.submit(attempt) }
    }

    /// Sends an attempt to openraft. Its queue is so much longer than what a proposer keeps in flight that it
    /// never makes us wait; should it, the attempt is dropped there and its outcome told as unknown.
    fn submit(self: &Arc<Self>, attempt: Attempt) {
        let proposal = attempt.proposal.clone();
        let inside = self.clone();
        let callback = Callback(Box::new(move |result| inside.settle(attempt, result)));
        let sent = self.raft.client_write_ff(proposal, Some(callback));
        let _ = tokio::task::unconstrained(sent).now_or_never();
    }

    fn settle(self: Arc<Self>, attempt: Attempt, result: WriteResult) {
        let outcome = match result {
            Ok(written) => Outcome::Applied { index: written.log_id.index },
            Err(ClientWriteError::ForwardToLeader(forward)) => match forward.reason {
                ForwardReason::LeaseExpired => return self.wait(attempt),
                _ => {
                    let elsewhere = forward.leader_id.filter(|leader| *leader != self.options.member);
                    Outcome::NotLeader { leader: elsewhere }
                }
            },
            Err(_) => Outcome::Unknown,
        };
        attempt.promise.keep(outcome);
    }

    fn wait(&self, attempt: Attempt) {
        let mut queue = self.queue.lock();
        if queue.waiting.len() < MAX_WAITING && Instant::now() < attempt.until {
            queue.waiting.push_back(attempt);
            drop(queue);
            self.wake.notify_one();
        } else {
            drop(queue);
            attempt.promise.keep(Outcome::NotLeader { leader: None });
        }
    }

    /// Takes up again what waited: all of it if `may_propose` (the lease is back, or another member leads and
    /// will be named), otherwise only what has waited too long.
    pub fn retry(self: &Arc<Self>, may_propose: bool, now: Instant) {
        loop {
            let mut queue = self.queue.lock();
            let proceed = may_propose && !queue.held;
            if !queue.waiting.front().is_some_and(|attempt| proceed || attempt.until <= now) {
                return;
            }
            let Some(attempt) = queue.waiting.pop_front() else { return };
            drop(queue);
            match proceed {
                true => self.submit(attempt),
                false => attempt.promise.keep(Outcome::NotLeader { leader: None }),
            }
        }
    }

    /// Refuses all that waits.
    pub fn refuse_waiting(&self) {
        let waiting = std::mem::take(&mut self.queue.lock().waiting);
        for attempt in waiting {
            attempt.promise.keep(Outcome::NotLeader { leader: None });
        }
    }
}
