//! Proposals that wait, and the promise to tell each one's outcome exactly once.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::raft::proposal::{Done, Outcome, Proposal};

/// Proposals that wait.
#[derive(Default)]
pub struct Queue {
    /// In the order they came.
    pub waiting: VecDeque<Attempt>,
    /// Whether all proposals have to wait.
    pub held: bool,
}

/// A proposal with whom to tell.
pub struct Attempt {
    /// What to propose.
    pub proposal: Proposal,
    /// Whom to tell.
    pub promise: Promise,
    /// Until when it may wait for the lease.
    pub until: Instant,
}

/// Tells the outcome exactly once: whoever drops it untold leaves it unknown.
pub struct Promise(Option<Done>);

impl Promise {
    /// To tell `done`.
    pub fn new(done: Done) -> Promise {
        Promise(Some(done))
    }

    /// Tells it.
    pub fn keep(mut self, outcome: Outcome) {
        if let Some(done) = self.0.take() {
            done(outcome);
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Outcome::Unknown);
        }
    }
}
