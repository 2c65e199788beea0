//! Which nodes answer.

use std::collections::HashMap;
use std::net::SocketAddr;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::id::NodeId;

/// What the control connections have found out. Nodes are few (those ever connected to), so is the memory.
#[derive(Debug)]
pub struct Reach {
    answering: Mutex<HashMap<NodeId, Standing>>,
    changes: watch::Sender<u64>,
}

/// How a node stands, and at which address it was found so.
#[derive(Clone, Copy, Debug)]
struct Standing {
    addr: SocketAddr,
    answers: bool,
}

impl Reach {
    /// Nobody answers yet.
    pub fn new() -> Reach {
        Reach { answering: Mutex::new(HashMap::new()), changes: watch::Sender::new(0) }
    }

    /// Notes whether `node` answers at `addr`; wakes the watchers if that is news. A node that answers at another
    /// address by now has moved: its old address says nothing about it.
    pub fn note(&self, node: NodeId, addr: SocketAddr, answers: bool) {
        let mut standing = self.answering.lock();
        let before = standing.get(&node).copied();
        if !answers && before.is_some_and(|before| before.addr != addr) {
            return;
        }
        standing.insert(node, Standing { addr, answers });
        drop(standing);
        if before.is_some_and(|before| before.answers) != answers {
            if answers {
                tracing::info!(node = %node.short(), %addr, "a peer answers");
            } else {
                tracing::warn!(node = %node.short(), %addr, "a peer no longer answers");
            }
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Whether `node` answers.
    pub fn answers(&self, node: NodeId) -> bool {
        self.answering.lock().get(&node).is_some_and(|standing| standing.answers)
    }

    /// Counts the changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
