//! Messages between nodes: takes what clients have published here to the other nodes, and delivers what they send.
//!
//! At most once, as in Redis: a node that cannot be reached, or whose queue is full, misses messages. All that wait go
//! as one call to each peer, none waits for another: the bus keeps each peer's queue bounded and in
//! order. They have a lane of their own, so that neither a heartbeat nor the log ever queues behind them; and
//! they are delivered away from the thread of the Raft groups, since a message may have thousands of subscribers.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use slotcast_wire::slot::slot_of;
use tokio::sync::mpsc;

use crate::bus::Bus;
use crate::bus::call::{Lane, Peer};
use crate::id::{MemberId, NodeId};
use crate::metrics::Metrics;
use crate::pubsub::message::Message;
use crate::server::publisher::{Outgoing, Publisher};
use crate::topology::view::View;

/// The bus's service number.
const MESSAGE_SERVICE: u8 = 3;
/// Bytes that are put together in one call.
const BATCH: usize = 256 << 10;
/// Calls that may wait to be delivered here; more are dropped.
const MAX_UNDELIVERED: usize = 256;

/// Where calls wait to be delivered.
pub type Inbox = mpsc::Receiver<Bytes>;

/// Hands the calls of other nodes over to whoever delivers them.
pub fn accept(bus: &Bus, metrics: Arc<Metrics>) -> Inbox {
    let (sender, inbox) = mpsc::channel(MAX_UNDELIVERED);
    let answer = move |_from, body: Bytes| {
        if sender.try_send(body).is_err() {
            metrics.messages_dropped.add(1);
        }
        std::future::ready(Bytes::new()).boxed()
    };
    bus.serve(MESSAGE_SERVICE, Arc::new(answer));
    inbox
}

/// Delivers them, for ever.
pub async fn deliver(mut inbox: Inbox, publisher: Arc<Publisher>) {
    while let Some(batch) = inbox.recv().await {
        if publisher.receive(&batch).is_err() {
            tracing::error!("messages of another node don't decode: nodes of different versions?");
        }
        tokio::task::yield_now().await;
    }
}

/// Takes messages to the other nodes, for ever. To be run where the bus lives.
pub async fn carry(mut outgoing: Outgoing, bus: Bus, view: Arc<ArcSwap<View>>, metrics: Arc<Metrics>) {
    // A call whose answer nobody waits for would not be sent. The bus bounds how many there are.
    let mut calls = FuturesUnordered::new();
    loop {
        let messages = tokio::select! {
            biased;
            Some(_) = calls.next() => continue,
            messages = outgoing.next(BATCH) => messages,
        };
        let Some(messages) = messages else { return };
        for (peer, body) in addressed(&view.load(), &messages) {
            let mut call = bus.submit(peer, Lane::Messages, MESSAGE_SERVICE, body);
            match (&mut call).now_or_never() {
                Some(Err(_)) => metrics.messages_dropped.add(1),
                Some(Ok(_)) => {}
                None => calls.push(call),
            }
        }
    }
}

/// What each peer is to get of some messages: mostly all of them.
fn addressed(view: &View, messages: &[Box<[u8]>]) -> Vec<(Peer, Bytes)> {
    let addressed: Vec<_> = messages.iter().map(|message| (copies(view, message), &**message)).collect();
    let to_all = addressed.iter().all(|(copies, _)| copies.is_none());
    let all = if to_all { Bytes::from(messages.concat()) } else { Bytes::new() };
    let peers = view.topology.nodes.iter().filter(|(id, _)| **id != view.me).map(|(id, node)| {
        let body = if to_all { all.clone() } else { Bytes::from(those_for(id, &addressed)) };
        (Peer { node: Some(*id), addr: node.bus }, body)
    });
    peers.filter(|(_, body)| !body.is_empty()).collect()
}

type Copies = BTreeMap<NodeId, MemberId>;

/// The nodes that a message is for: those with a copy of its channel's shard; `None`: all.
fn copies<'v>(view: &'v View, mut message: &[u8]) -> Option<&'v Copies> {
    let message = Message::read(&mut message).ok().filter(|message| message.sharded)?;
    let shard = view.topology.slots.owner(slot_of(message.channel))?;
    view.topology.shards.get(&shard).map(|shard| &shard.copies)
}

fn those_for(id: &NodeId, addressed: &[(Option<&Copies>, &[u8])]) -> Vec<u8> {
    let for_it = addressed.iter().filter(|(copies, _)| copies.is_none_or(|copies| copies.contains_key(id)));
    for_it.map(|(_, message)| *message).collect::<Vec<_>>().concat()
}
