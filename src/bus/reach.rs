//! Which nodes answer.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::id::NodeId;

/// What the control connections have found out. Nodes are few (those ever connected to), so is the memory.
#[derive(Debug)]
pub struct Reach {
    answering: Mutex<HashMap<NodeId, bool>>,
    changes: watch::Sender<u64>,
}

impl Reach {
    /// Nobody answers yet.
    pub fn new() -> Reach {
        Reach { answering: Mutex::new(HashMap::new()), changes: watch::Sender::new(0) }
    }

    /// Notes whether `node` answers; wakes the watchers if that is news.
    pub fn note(&self, node: NodeId, answers: bool) {
        let before = self.answering.lock().insert(node, answers);
        if before.unwrap_or(false) != answers {
            if answers {
                tracing::info!(node = %node.short(), "a peer answers");
            } else {
                tracing::warn!(node = %node.short(), "a peer no longer answers");
            }
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Whether `node` answers.
    pub fn answers(&self, node: NodeId) -> bool {
        self.answering.lock().get(&node).copied().unwrap_or(false)
    }

    /// Counts the changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
