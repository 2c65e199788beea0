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
    /// How often each was connected to.
    connections: Mutex<HashMap<NodeId, u64>>,
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
        Reach { answering: Mutex::default(), connections: Mutex::default(), changes: watch::Sender::new(0) }
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
                tracing::debug!(node = %node.short(), %addr, "a peer answers");
            } else {
                tracing::debug!(node = %node.short(), %addr, "a peer no longer answers");
            }
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Notes a new connection to `node`, perhaps to another process than the last one.
    pub fn connected(&self, node: NodeId) {
        *self.connections.lock().entry(node).or_default() += 1;
        self.changes.send_modify(|count| *count += 1);
    }

    /// How often `node` was connected to.
    pub fn connections(&self, node: NodeId) -> u64 {
        self.connections.lock().get(&node).copied().unwrap_or(0)
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
