//! Messages between nodes: takes what clients have published here to the other nodes, and delivers what they send.
//!
//! At most once, as in Redis: a node that cannot be reached, or whose queue is full, misses messages. All that wait go
//! as one call to each peer, none waits for another: the bus keeps each peer's queue bounded and in order. They have a
//! lane of their own, so that neither a heartbeat nor the log ever queues behind them; and they are delivered away from
//! the thread of the Raft groups, since a message may have thousands of subscribers.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};

use crate::bus::Bus;
use crate::bus::call::{Lane, Peer};
use crate::id::NodeId;
use crate::metrics::Metrics;
use crate::node::cluster::Cluster;
use crate::server::backlog::{Receiver, Sender};
use crate::server::publisher::{Batch, Publisher, To};
use crate::topology::view::View;

/// The bus's service number.
const MESSAGE_SERVICE: u8 = 3;
/// Bytes that are put together in one call, or delivered before others have their turn.
const AT_ONCE: usize = 256 << 10;

/// What messages need to go to other nodes and come from them.
pub struct Carrier {
    /// To be taken to other nodes.
    pub outgoing: Receiver<(To, Batch)>,
    /// Takes what other nodes send.
    pub inlet: Sender<Batch>,
    /// Counts what is dropped.
    pub metrics: Arc<Metrics>,
}

impl Carrier {
    /// Carries from now on, for ever. To be called where the bus lives.
    pub fn start(self, cluster: &Cluster) {
        accept(cluster.bus(), self.inlet, self.metrics.clone());
        tokio::spawn(carry(self.outgoing, cluster.bus().clone(), cluster.view(), self.metrics));
    }
}

/// Hands what other nodes send over to who delivers it.
fn accept(bus: &Bus, inlet: Sender<Batch>, metrics: Arc<Metrics>) {
    let answer = move |_from, body: Bytes| {
        if inlet.send(body.len(), || body).is_err() {
            metrics.messages_dropped.add(1);
        }
        std::future::ready(Bytes::new()).boxed()
    };
    bus.serve(MESSAGE_SERVICE, Arc::new(answer));
}

/// Delivers messages here, for ever.
pub async fn deliver(mut incoming: Receiver<Batch>, publisher: Arc<Publisher>) {
    while let Some(batches) = incoming.next(AT_ONCE).await {
        for batch in batches {
            if publisher.receive(&batch).is_err() {
                tracing::error!("messages of another node don't decode: nodes of different versions?");
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Takes messages to the other nodes, for ever.
async fn carry(
    mut outgoing: Receiver<(To, Batch)>,
    bus: Bus,
    view: Arc<ArcSwap<View>>,
    metrics: Arc<Metrics>,
) {
    // A call whose answer nobody waits for would not be sent. The bus bounds how many there are.
    let mut calls = FuturesUnordered::new();
    loop {
        let batches = tokio::select! {
            biased;
            Some(_) = calls.next() => continue,
            batches = outgoing.next(AT_ONCE) => batches,
        };
        let Some(batches) = batches else { return };
        for (peer, body) in addressed(&view.load(), &batches) {
            let mut call = bus.submit(peer, Lane::Messages, MESSAGE_SERVICE, body);
            match (&mut call).now_or_never() {
                Some(Err(_)) => metrics.messages_dropped.add(1),
                Some(Ok(_)) => {}
                None => calls.push(call),
            }
        }
    }
}

/// What each peer is to get: mostly all, which is then put together once.
fn addressed(view: &View, batches: &[(To, Batch)]) -> Vec<(Peer, Bytes)> {
    let to_all = batches.iter().all(|(to, _)| *to == To::All);
    let all = if to_all { together(batches.iter()) } else { Bytes::new() };
    let peers = view.topology.nodes.iter().filter(|(id, _)| **id != view.me).map(|(id, node)| {
        let body = match to_all {
            true => all.clone(),
            false => together(batches.iter().filter(|(to, _)| is_for(view, *to, id))),
        };
        (Peer { node: Some(*id), addr: node.bus }, body)
    });
    peers.filter(|(_, body)| !body.is_empty()).collect()
}

fn is_for(view: &View, to: To, id: &NodeId) -> bool {
    let has_copy =
        |shard| view.topology.shards.get(&shard).is_some_and(|shard| shard.copies.contains_key(id));
    match to {
        To::All => true,
        To::CopiesOf(slot) => view.topology.slots.owner(slot).is_some_and(has_copy),
        To::Without(shard) => !has_copy(shard),
    }
}

fn together<'b>(batches: impl Iterator<Item = &'b (To, Batch)>) -> Bytes {
    let batches: Vec<&[u8]> = batches.map(|(_, batch)| &**batch).collect();
    batches.concat().into()
}
