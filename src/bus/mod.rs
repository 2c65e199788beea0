//! The node bus: requests and answers between nodes.
//!
//! It knows frames, peers and reconnecting, and nothing of Raft. A *service* is a number with a function behind
//! it; a call carries bytes there and brings bytes back. Towards each peer there are two connections (*lanes*),
//! so that a heartbeat never queues behind megabytes of log.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::bus::accept::Services;
use crate::bus::call::{BusError, Lane, Peer, PendingAnswer, Service};
use crate::bus::frame::MAX_FRAME;
use crate::bus::link::Link;
use crate::bus::reach::Reach;
use crate::bus::transport::Transport;
use crate::id::NodeId;

mod accept;
pub mod call;
mod frame;
mod link;
mod reach;
mod stream;
pub mod transport;

/// Outgoing connections kept at once; calls to further addresses are refused.
const MAX_LINKS: usize = 512;

/// This node's end of the bus. A cheap handle.
#[derive(Clone)]
pub struct Bus(Arc<Inner>);

struct Inner {
    me: NodeId,
    local_addr: SocketAddr,
    transport: Arc<dyn Transport>,
    services: Services,
    reach: Arc<Reach>,
    links: Mutex<HashMap<(SocketAddr, Lane), Arc<Link>>>,
    accepting: AbortHandle,
}

impl Bus {
    /// Listens on `listen` and answers as `me`. Its tasks run on the calling runtime.
    pub async fn start(me: NodeId, listen: SocketAddr, transport: Arc<dyn Transport>) -> io::Result<Bus> {
        let listener = transport.listen(listen).await?;
        let local_addr = listener.local_addr()?;
        let services = Services::default();
        let accepting = tokio::spawn(accept::accept(listener, me, services.clone())).abort_handle();
        let (reach, links) = (Arc::new(Reach::new()), Mutex::default());
        Ok(Bus(Arc::new(Inner { me, local_addr, transport, services, reach, links, accepting })))
    }

    /// This node.
    pub fn me(&self) -> NodeId {
        self.0.me
    }

    /// Where it listens (the port, if `listen` named port 0).
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local_addr
    }

    /// Answers the calls to `service` from now on. Calls to a service nobody serves are refused.
    pub fn serve(&self, service: u8, answer: Service) {
        self.0.services.write().insert(service, answer);
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
        match tokio::time::timeout(timeout, self.submit(peer, lane, service, body)).await {
            Ok(answer) => answer,
            Err(_) => Err(BusError::Unknown(format!("{} did not answer within {timeout:?}", peer.addr))),
        }
    }

    /// Queues a call at once, behind the earlier ones of this lane, and returns its answer to come. It may take
    /// for ever while the peer is silent but connected; dropping it forgets the call.
    pub fn submit(&self, peer: Peer, lane: Lane, service: u8, body: Bytes) -> PendingAnswer {
        if body.len() > MAX_FRAME {
            return PendingAnswer::failed(format!(
                "a call of {} bytes: at most {MAX_FRAME} are carried",
                body.len()
            ));
        }
        match self.link(peer.addr, lane) {
            Some(link) => PendingAnswer(link.submit(peer.node, service, body)),
            None => {
                PendingAnswer::failed(format!("too many peers: at most {MAX_LINKS} connections are kept"))
            }
        }
    }

    /// Keeps a connection to `peer`, so that its reachability is known without calls.
    pub fn watch_peer(&self, peer: Peer) {
        self.link(peer.addr, Lane::Control);
    }

    /// Closes the connections to an address nobody lives at any more.
    pub fn forget(&self, addr: SocketAddr) {
        self.0.links.lock().retain(|(there, _), _| *there != addr);
    }

    /// Whether `node` answers: false as soon as its connection broke and cannot be had again at once, and when
    /// it has answered nothing for half a second. False for a node never connected; true for this one.
    pub fn is_reachable(&self, node: NodeId) -> bool {
        node == self.0.me || self.0.reach.answers(node)
    }

    /// Changes (a counter) whenever [`Bus::is_reachable`] would answer differently for some node.
    pub fn reachability(&self) -> watch::Receiver<u64> {
        self.0.reach.changes()
    }

    /// Closes all outgoing connections and stops listening; what is being answered still is.
    pub fn shutdown(&self) {
        self.0.accepting.abort();
        self.0.links.lock().clear();
    }

    fn link(&self, addr: SocketAddr, lane: Lane) -> Option<Arc<Link>> {
        let mut links = self.0.links.lock();
        if let Some(link) = links.get(&(addr, lane)) {
            return Some(link.clone());
        }
        if links.len() >= MAX_LINKS {
            return None;
        }
        let (transport, reach) = (self.0.transport.clone(), self.0.reach.clone());
        let link = Arc::new(Link::open(self.0.me, addr, lane, transport, reach));
        links.insert((addr, lane), link.clone());
        Some(link)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
