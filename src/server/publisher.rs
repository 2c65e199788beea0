//! Delivering messages: to this node's subscribers, and to those of other nodes through a queue.
//!
//! A message is delivered at most once, as in Redis: to whoever is subscribed now and can be reached. The queues are
//! bounded; what does not fit is counted and dropped, as it would be by a node that is down. Who takes the queue to the
//! bus is the node's concern.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::RwLock;
use slotcast_wire::slot::slot_of;

use crate::codec::Malformed;
use crate::command::error::CommandError;
use crate::config::Config;
use crate::id::GroupId;
use crate::metrics::Metrics;
use crate::pubsub::message::{Message, Push};
use crate::pubsub::registry::{Kind, Registry};
use crate::server::backlog::{Receiver, Sender, backlog};
use crate::server::outbox::Outbox;

/// The longest message that nodes carry to each other; a longer one is refused.
pub const MAX_MESSAGE: usize = 64 << 20;

const TOO_LONG: CommandError = CommandError::text(
    "ERR The message is too long for a cluster: at most 64 MiB are carried to the other nodes",
);

/// See the module's documentation.
pub struct Publisher {
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    subscribers: Arc<Registry>,
    outboxes: RwLock<HashMap<u64, Arc<Outbox>>>,
    /// In a cluster.
    queues: Option<Queues>,
}

/// What a thread that must not be held up hands over, and what goes to other nodes.
struct Queues {
    here: Sender<Batch>,
    elsewhere: Sender<(To, Batch)>,
}

/// Messages as [`Message::put`] writes them.
pub type Batch = bytes::Bytes;

/// Which other nodes a batch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// All.
    All,
    /// Those with a copy of the shard that owns this slot.
    CopiesOf(u16),
    /// Those without a copy of this shard.
    Without(GroupId),
}

/// The other ends of a publisher's queues, and where other nodes' messages come in.
pub struct Traffic {
    /// To be taken to other nodes.
    pub outgoing: Receiver<(To, Batch)>,
    /// To be delivered here.
    pub incoming: Receiver<Batch>,
    /// Takes what other nodes send.
    pub inlet: Sender<Batch>,
}

impl Publisher {
    /// Nobody is connected yet; in a cluster also the other ends of its queues.
    pub fn new(config: Arc<Config>, metrics: Arc<Metrics>, clustered: bool) -> (Self, Option<Traffic>) {
        let (queues, traffic) = match clustered {
            false => (None, None),
            true => {
                let ((elsewhere, outgoing), (here, incoming)) = (backlog(), backlog());
                let inlet = here.clone();
                (Some(Queues { here, elsewhere }), Some(Traffic { outgoing, incoming, inlet }))
            }
        };
        let (subscribers, outboxes) = (Arc::default(), RwLock::default());
        (Self { config, metrics, subscribers, outboxes, queues }, traffic)
    }

    /// Who subscribes to what.
    pub fn subscribers(&self) -> &Arc<Registry> {
        &self.subscribers
    }

    /// A connection's outbox, from now on found by its id.
    pub fn connect(&self, id: u64, outbox: Arc<Outbox>) {
        self.outboxes.write().insert(id, outbox);
    }

    /// A connection has closed.
    pub fn disconnect(&self, id: u64) {
        self.outboxes.write().remove(&id);
    }

    /// A connection's outbox; `None`: it has closed.
    pub fn outbox(&self, id: u64) -> Option<Arc<Outbox>> {
        self.outboxes.read().get(&id).cloned()
    }

    /// Delivers a message here and hands it on to the other nodes; returns the number of its receivers here.
    pub fn publish(&self, message: Message<'_>) -> Result<usize, CommandError> {
        if let Some(queues) = &self.queues {
            if message.encoded_len() > MAX_MESSAGE {
                return Err(TOO_LONG);
            }
            let to = if message.sharded { To::CopiesOf(slot_of(message.channel)) } else { To::All };
            let batch = || {
                let mut bytes = Vec::with_capacity(message.encoded_len());
                message.put(&mut bytes);
                (to, Batch::from(bytes))
            };
            self.count(queues.elsewhere.send(message.encoded_len(), batch).is_ok());
        }
        Ok(self.deliver(message))
    }

    /// Delivers messages here for a thread that must not be held up by many subscribers: in a cluster another thread
    /// does it. In order with others handed over so.
    pub fn hand_over(&self, batch: Batch) {
        match &self.queues {
            Some(queues) => self.count(queues.here.send(batch.len(), || batch).is_ok()),
            None => drop(self.receive(&batch)),
        }
    }

    /// Takes messages to other nodes only.
    pub fn send(&self, to: To, batch: Batch) {
        if let Some(queues) = &self.queues {
            self.count(queues.elsewhere.send(batch.len(), || (to, batch)).is_ok());
        }
    }

    fn count(&self, sent: bool) {
        if !sent {
            self.metrics.messages_dropped.add(1);
        }
    }

    /// Delivers a batch's messages.
    pub fn receive(&self, mut batch: &[u8]) -> Result<(), Malformed> {
        while !batch.is_empty() {
            self.deliver(Message::read(&mut batch)?);
        }
        Ok(())
    }

    /// Delivers a message to this node's subscribers; returns their number. One that subscribes to the channel and to
    /// a pattern that matches it gets it twice and counts twice, as in Redis.
    pub fn deliver(&self, message: Message<'_>) -> usize {
        let kind = if message.sharded { Kind::Shard } else { Kind::Channel };
        let limit = self.config.live().client_output_buffer_limit.pubsub.hard;
        let outboxes = self.outboxes.read();
        let give = |id: u64, push: &Push| {
            if outboxes.get(&id).is_some_and(|outbox| outbox.deliver(push, limit).is_err()) {
                tracing::info!(client = id, "client closed: its messages exceed client-output-buffer-limit");
                self.metrics.output_limit_disconnections.add(1);
            }
        };
        let mut push = None;
        let mut receivers = self.subscribers.each_subscriber(kind, message.channel, |id| {
            give(id, push.get_or_insert_with(|| message.push()));
        });
        if !message.sharded {
            self.subscribers.each_match(message.channel, |pattern, ids| {
                let push = message.push_by(pattern);
                ids.iter().for_each(|id| give(*id, &push));
                receivers += ids.len();
            });
        }
        receivers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::clients::Clients;
    use crate::tracking::backlog::Form;

    fn publisher(clustered: bool) -> (Publisher, Option<Traffic>) {
        Publisher::new(Arc::default(), Arc::default(), clustered)
    }

    /// A connection that has subscribed, and its outbox.
    fn subscriber(publisher: &Publisher, clients: &Clients, kind: Kind, name: &[u8]) -> Arc<Outbox> {
        let nowhere = ([127, 0, 0, 1], 0).into();
        let client = clients.register(nowhere, nowhere, 0);
        let outbox = Arc::new(Outbox::new(client.clone()));
        publisher.connect(client.id, outbox.clone());
        publisher.subscribers().subscribe(kind, name, client.id);
        outbox
    }

    fn heard(outbox: &Outbox) -> usize {
        let mut out = Vec::new();
        outbox.drain(Form::Push, &mut out);
        out.windows(7).filter(|bytes| *bytes == b"message").count()
    }

    #[test]
    fn each_subscription_gets_a_message_once() {
        let (publisher, _) = publisher(false);
        let clients = Clients::default();
        let one = subscriber(&publisher, &clients, Kind::Channel, b"news");
        let all = subscriber(&publisher, &clients, Kind::Pattern, b"*");
        let shard = subscriber(&publisher, &clients, Kind::Shard, b"news");
        let message = Message { sharded: false, channel: b"news", payload: b"hi" };
        assert_eq!(publisher.publish(message), Ok(2));
        assert_eq!(publisher.publish(Message { sharded: true, ..message }), Ok(1));
        assert_eq!([one, all, shard].map(|outbox| heard(&outbox)), [1, 1, 1]);
    }

    #[tokio::test]
    async fn in_a_cluster_a_message_also_goes_to_the_queue_for_others() {
        let (publisher, traffic) = publisher(true);
        let mut traffic = traffic.expect("a cluster's");
        let message = Message { sharded: true, channel: b"news", payload: b"hi" };
        assert_eq!(publisher.publish(message), Ok(0));
        let sent = traffic.outgoing.next(1).await.expect("a message");
        assert_eq!(sent[0].0, To::CopiesOf(slot_of(b"news")));
        publisher.hand_over(sent[0].1.clone());
        let outbox = subscriber(&publisher, &Clients::default(), Kind::Shard, b"news");
        assert_eq!(publisher.receive(&traffic.incoming.next(1).await.expect("a batch")[0]), Ok(()));
        assert_eq!(heard(&outbox), 1);
        assert_eq!(publisher.receive(b"no messages"), Err(Malformed));
        let long = vec![0; MAX_MESSAGE];
        assert!(publisher.publish(Message { payload: &long, ..message }).is_err());
    }
}
