//! The node bus: requests and answers between nodes.
//!
//! It knows frames, peers and reconnecting, and nothing of Raft. A *service* is a number with a function behind
//! it; a call carries bytes there and brings bytes back. Towards each peer there are two connections (*lanes*),
//! so that a heartbeat never queues behind megabytes of log.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::bus::transport::Transport;
use crate::id::NodeId;

pub mod transport;

/// Which of a peer's two connections a call takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Heartbeats, votes and small calls: never behind much.
    Control,
    /// Log entries and snapshots.
    Bulk,
}

/// Whom to call: an address, and who must answer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The node that must answer; `None` only while it is not known yet (a seed).
    pub node: Option<NodeId>,
    /// Its bus address.
    pub addr: SocketAddr,
}

/// Why a call brought no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusError {
    /// The peer has certainly not seen the call: no connection, a wrong node there, a full queue.
    NotDelivered(String),
    /// The peer may have seen it: the connection broke, or no answer came in time.
    Unknown(String),
}

impl fmt::Display for BusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BusError::NotDelivered(why) => write!(f, "not delivered: {why}"),
            BusError::Unknown(why) => write!(f, "no answer: {why}"),
        }
    }
}

impl std::error::Error for BusError {}

/// What answers a service's calls: (calling node, request) to answer. It must not block; its synchronous part
/// runs in the order in which the calls of one lane arrived.
pub type Service = Arc<dyn Fn(NodeId, Bytes) -> BoxFuture<'static, Bytes> + Send + Sync>;

/// This node's end of the bus. A cheap handle.
#[derive(Clone)]
pub struct Bus {}

impl Bus {
    /// Listens on `listen` and answers as `me`.
    pub async fn start(me: NodeId, listen: SocketAddr, transport: Arc<dyn Transport>) -> io::Result<Bus> {
        let _ = (me, listen, transport);
        todo!()
    }

    /// This node.
    pub fn me(&self) -> NodeId {
        todo!()
    }

    /// Where it listens (the port, if `listen` named port 0).
    pub fn local_addr(&self) -> SocketAddr {
        todo!()
    }

    /// Answers the calls to `service` from now on. Calls to a service nobody serves are refused.
    pub fn serve(&self, service: u8, answer: Service) {
        let _ = (service, answer);
        todo!()
    }

    /// Calls `service` of `peer` and waits for the answer, at most `timeout`.
    pub async fn call(
        &self,
        peer: Peer,
        lane: Lane,
        service: u8,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, BusError> {
        let _ = (peer, lane, service, body, timeout);
        todo!()
    }

    /// Keeps a connection to `peer`, so that its reachability is known without calls.
    pub fn watch_peer(&self, peer: Peer) {
        let _ = peer;
        todo!()
    }

    /// Whether `node` answers: false as soon as its connection broke and cannot be had again at once, and when
    /// it has answered nothing for half a second. False for a node never connected; true for this one.
    pub fn is_reachable(&self, node: NodeId) -> bool {
        let _ = node;
        todo!()
    }

    /// Changes (a counter) whenever [`Bus::is_reachable`] would answer differently for some node.
    pub fn reachability(&self) -> watch::Receiver<u64> {
        todo!()
    }

    /// Closes all connections and stops listening.
    pub fn shutdown(&self) {
        todo!()
    }
}
