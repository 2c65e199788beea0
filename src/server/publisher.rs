//! Delivering messages: to this node's subscribers at once, to those of other nodes through a queue.
//!
//! A message is delivered at most once, as in Redis: to whoever is subscribed now and can be reached. The queue to the
//! other nodes is bounded; what does not fit is counted and dropped, as it would be by a node that is down. Who takes
//! the queue to the bus is the node's concern.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashMap;
use parking_lot::RwLock;
use tokio::sync::mpsc;

use crate::codec::Malformed;
use crate::command::error::CommandError;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::pubsub::message::{Message, Push};
use crate::pubsub::registry::{Kind, Registry};
use crate::server::outbox::Outbox;

/// Messages that may wait for the bus; one more is dropped.
const MAX_WAITING: usize = 1 << 16;
/// Bytes of them, likewise; a longer message passes if it is alone.
const MAX_WAITING_BYTES: usize = 64 << 20;
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
    /// To the other nodes; `None` in single-node mode.
    elsewhere: Option<Elsewhere>,
}

struct Elsewhere {
    queue: mpsc::Sender<Box<[u8]>>,
    bytes: Arc<AtomicUsize>,
}

/// The other end of the queue to the other nodes: messages as [`Message::put`] writes them.
pub struct Outgoing {
    queue: mpsc::Receiver<Box<[u8]>>,
    bytes: Arc<AtomicUsize>,
}

impl Outgoing {
    /// The next messages, at least one and about `bytes` of them at most; `None`: there will be no more.
    pub async fn next(&mut self, bytes: usize) -> Option<Vec<Box<[u8]>>> {
        let mut taken = vec![self.queue.recv().await?];
        let mut len = taken[0].len();
        while len < bytes
            && let Ok(message) = self.queue.try_recv()
        {
            len += message.len();
            taken.push(message);
        }
        self.bytes.fetch_sub(len, Ordering::Relaxed);
        Some(taken)
    }
}

impl Publisher {
    /// Nobody is connected yet; in a cluster also what is to be carried to the other nodes.
    pub fn new(config: Arc<Config>, metrics: Arc<Metrics>, clustered: bool) -> (Self, Option<Outgoing>) {
        let (elsewhere, outgoing) = match clustered {
            false => (None, None),
            true => {
                let (sender, queue) = mpsc::channel(MAX_WAITING);
                let bytes = Arc::<AtomicUsize>::default();
                (Some(Elsewhere { queue: sender, bytes: bytes.clone() }), Some(Outgoing { queue, bytes }))
            }
        };
        let (subscribers, outboxes) = (Arc::default(), RwLock::default());
        (Self { config, metrics, subscribers, outboxes, elsewhere }, outgoing)
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
        if let Some(elsewhere) = &self.elsewhere {
            if message.encoded_len() > MAX_MESSAGE {
                return Err(TOO_LONG);
            }
            if !elsewhere.send(message) {
                self.metrics.messages_dropped.add(1);
            }
        }
        Ok(self.deliver(message))
    }

    /// Delivers messages that another node has put together.
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

impl Elsewhere {
    /// Whether it will be tried.
    fn send(&self, message: Message<'_>) -> bool {
        let len = message.encoded_len();
        let before = self.bytes.fetch_add(len, Ordering::Relaxed);
        let fits = before == 0 || before + len <= MAX_WAITING_BYTES;
        let sent = fits && {
            let mut bytes = Vec::with_capacity(len);
            message.put(&mut bytes);
            self.queue.try_send(bytes.into()).is_ok()
        };
        if !sent {
            self.bytes.fetch_sub(len, Ordering::Relaxed);
        }
        sent
    }
}
