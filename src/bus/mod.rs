//! The node bus: requests and answers between nodes.
//!
//! It knows frames, peers and reconnecting, and nothing of Raft. A *service* is a number with a function behind
//! it; a call carries bytes there and brings bytes back. Towards each peer there are a few connections
//! (*lanes*), so that a heartbeat never queues behind megabytes of log, nor the log behind clients' messages.

use std::collections::BTreeMap;
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
pub mod memory;
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
    links: Mutex<BTreeMap<(SocketAddr, Lane), Arc<Link>>>,
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

    /// How often `node` was connected to. When it changes, what answers may be another process than before, though
    /// [`Bus::is_reachable`] has said all the time that something does.
    pub fn connections(&self, node: NodeId) -> u64 {
        self.0.reach.connections(node)
    }

    /// Changes (a counter) whenever [`Bus::is_reachable`] or [`Bus::connections`] would answer differently for some
    /// node.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::memory::Network;
    use futures::future::BoxFuture;
    use std::sync::atomic::{AtomicU64, Ordering};
    use tokio::time::{Instant, sleep};

    const ECHO: u8 = 7;
    const SLOW: u8 = 8;
    const SECOND: Duration = Duration::from_secs(1);

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 20])
    }

    fn addr(n: u8) -> SocketAddr {
        ([10, 0, 0, n], 17000).into()
    }

    fn peer(n: u8) -> Peer {
        Peer { node: Some(id(n)), addr: addr(n) }
    }

    async fn node(network: &Network, n: u8) -> Bus {
        let bus = Bus::start(id(n), addr(n), Arc::new(network.host(addr(n)))).await.unwrap();
        bus.serve(ECHO, Arc::new(|_, body| Box::pin(std::future::ready(body))));
        bus.serve(
            SLOW,
            Arc::new(|from, _| {
                Box::pin(async move {
                    sleep(SECOND).await;
                    Bytes::copy_from_slice(from.as_bytes())
                })
            }),
        );
        bus
    }

    fn network() -> Network {
        Network::new(1, (Duration::from_micros(100), Duration::from_micros(500)))
    }

    async fn echo(bus: &Bus, to: Peer) -> Result<Bytes, BusError> {
        bus.call(to, Lane::Control, ECHO, Bytes::from_static(b"hello"), SECOND).await
    }

    #[tokio::test]
    async fn calls_are_answered_over_real_sockets_whatever_their_size() {
        let listen = ([127, 0, 0, 1], 0).into();
        let server = Bus::start(id(1), listen, Arc::new(transport::Tcp)).await.unwrap();
        let client = Bus::start(id(2), listen, Arc::new(transport::Tcp)).await.unwrap();
        server.serve(ECHO, Arc::new(|_, body| Box::pin(std::future::ready(body))));
        let to = Peer { node: Some(id(1)), addr: server.local_addr() };
        for length in [0, 1, 1000, 100_000, 3 << 20] {
            let body = Bytes::from(vec![b'x'; length]);
            let answer = client.call(to, Lane::Bulk, ECHO, body.clone(), 10 * SECOND).await;
            assert_eq!(answer, Ok(body));
        }
        assert!(client.link(to.addr, Lane::Control).is_some() && echo(&client, to).await.is_ok());
        assert!(client.is_reachable(id(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_knows_who_calls_and_sees_the_calls_of_a_lane_in_order() {
        let (network, seen) = (network(), Arc::new(AtomicU64::new(0)));
        let (server, client) = (node(&network, 1).await, node(&network, 2).await);
        let counter = seen.clone();
        let in_order = move |_: NodeId, body: Bytes| -> BoxFuture<'static, Bytes> {
            let number = u64::from_be_bytes(body[..].try_into().unwrap());
            assert_eq!(counter.fetch_add(1, Ordering::Relaxed), number);
            Box::pin(std::future::ready(body))
        };
        server.serve(9, Arc::new(in_order));
        let calls = (0..1000u64)
            .map(|n| client.submit(peer(1), Lane::Bulk, 9, Bytes::copy_from_slice(&n.to_be_bytes())));
        for (n, call) in calls.collect::<Vec<_>>().into_iter().enumerate() {
            assert_eq!(call.await.unwrap(), (n as u64).to_be_bytes().to_vec());
        }
        let slow = client.call(peer(1), Lane::Control, SLOW, Bytes::new(), 5 * SECOND).await;
        assert_eq!(slow.unwrap(), id(2).as_bytes().to_vec());
    }

    #[tokio::test(start_paused = true)]
    async fn certainly_undelivered_and_unknown_are_told_apart() {
        let network = network();
        let (_server, client) = (node(&network, 1).await, node(&network, 2).await);
        assert!(matches!(echo(&client, peer(3)).await, Err(BusError::NotDelivered(_))), "nobody there");
        let nobody_serves = client.call(peer(1), Lane::Control, 99, Bytes::new(), SECOND).await;
        assert!(matches!(nobody_serves, Err(BusError::NotDelivered(_))));
        let wrong = Peer { node: Some(id(9)), addr: addr(1) };
        let refused = echo(&client, wrong).await.unwrap_err();
        assert!(matches!(&refused, BusError::NotDelivered(why) if why.contains("not 09090909")), "{refused}");
        assert!(echo(&client, Peer { node: None, addr: addr(1) }).await.is_ok(), "a seed may be anybody");

        let late = client.call(peer(1), Lane::Control, SLOW, Bytes::new(), SECOND / 2).await;
        assert!(matches!(late, Err(BusError::Unknown(_))));
        let broken = client.submit(peer(1), Lane::Control, SLOW, Bytes::new());
        sleep(SECOND / 10).await;
        network.crash(addr(1));
        assert!(matches!(broken.await, Err(BusError::Unknown(_))), "it may have been answered");
    }

    #[tokio::test(start_paused = true)]
    async fn a_killed_peer_is_noticed_at_once_and_again_when_it_is_back() {
        let network = network();
        let (server, client) = (node(&network, 1).await, node(&network, 2).await);
        let mut changes = client.reachability();
        client.watch_peer(peer(1));
        changes.changed().await.unwrap();
        assert!(client.is_reachable(id(1)));
        let begun = Instant::now();
        network.crash(addr(1));
        changes.changed().await.unwrap();
        assert!(!client.is_reachable(id(1)));
        assert!(begun.elapsed() < Duration::from_millis(20), "after {:?}", begun.elapsed());
        server.shutdown();
        let _again = node(&network, 1).await;
        changes.changed().await.unwrap();
        assert!(client.is_reachable(id(1)));
        assert!(echo(&client, peer(1)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_moved_is_reachable_whatever_its_old_address_says() {
        let network = network();
        let (_server, client) = (node(&network, 1).await, node(&network, 2).await);
        assert!(echo(&client, peer(1)).await.is_ok());
        network.crash(addr(1));
        let _moved = Bus::start(id(1), addr(9), Arc::new(network.host(addr(9)))).await.unwrap();
        let mut changes = client.reachability();
        changes.wait_for(|_| !client.is_reachable(id(1))).await.unwrap();
        client.watch_peer(Peer { node: Some(id(1)), addr: addr(9) });
        changes.wait_for(|_| client.is_reachable(id(1))).await.unwrap();
        changes.mark_unchanged();
        sleep(3 * SECOND).await;
        assert!(client.is_reachable(id(1)) && !changes.has_changed().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_noticed_within_its_time() {
        let network = network();
        let (_server, client) = (node(&network, 1).await, node(&network, 2).await);
        let mut changes = client.reachability();
        client.watch_peer(peer(1));
        changes.changed().await.unwrap();
        let begun = Instant::now();
        network.isolate(addr(1));
        changes.changed().await.unwrap();
        assert!(!client.is_reachable(id(1)));
        assert!((400..=700).contains(&begun.elapsed().as_millis()), "after {:?}", begun.elapsed());
        network.mend();
        changes.changed().await.unwrap();
        assert!(client.is_reachable(id(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_takes_nothing_more_is_given_up_like_one_that_is_silent() {
        let network = network();
        let (_server, client) = (node(&network, 1).await, node(&network, 2).await);
        assert!(echo(&client, peer(1)).await.is_ok());
        let begun = Instant::now();
        network.isolate(addr(1));
        // More than a connection holds, so that writing stands still.
        let body = Bytes::from(vec![0; 6 << 20]);
        let stuck = client.submit(peer(1), Lane::Control, ECHO, body);
        assert!(matches!(stuck.await, Err(BusError::Unknown(_))));
        assert!((1400..=1700).contains(&begun.elapsed().as_millis()), "after {:?}", begun.elapsed());
        network.mend();
        let mut changes = client.reachability();
        changes.wait_for(|_| client.is_reachable(id(1))).await.unwrap();
        assert!(echo(&client, peer(1)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_full_queue_cannot_take_is_refused_not_kept() {
        let network = network();
        let (_server, client) = (node(&network, 1).await, node(&network, 2).await);
        assert!(echo(&client, peer(1)).await.is_ok());
        network.isolate(addr(1));
        let body = Bytes::from(vec![0; 1 << 20]);
        let mut kept = Vec::new();
        for _ in 0..64 {
            kept.push(client.submit(peer(1), Lane::Control, ECHO, body.clone()));
            tokio::task::yield_now().await;
        }
        let refused =
            kept.into_iter().filter(|call| matches!(call.0, Err(BusError::NotDelivered(_)))).count();
        assert!(
            (48..60).contains(&refused),
            "{refused} of 64 MiB refused by a queue of 8 MiB and a window of a few"
        );
    }
}
