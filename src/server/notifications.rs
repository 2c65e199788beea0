//! Keyspace notifications: events of keys as messages, on `__keyspace@0__:KEY` and `__keyevent@0__:EVENT`.
//!
//! With the scope `node` an event is announced by the node that proposed the change (its shard's leader then), or that
//! served the read: by exactly one, so who subscribes at every node gets it once, also while leadership moves. With
//! `cluster` every node with a copy announces what it applies to its own subscribers, and the proposer sends it to the
//! nodes without one: who subscribes at any node gets it once. Lost are, as with any message, those of a node that dies
//! before its subscribers have read them, and those a copy skipped because a snapshot brought it what they led to.
//!
//! Called under the slots' locks, so it only writes the messages down; in a cluster another thread delivers them.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwap;

use crate::config::Config;
use crate::config::notify::NotifyEvents;
use crate::config::setting::{Live, NotifyScope};
use crate::id::GroupId;
use crate::keyspace::event::Occurrence;
use crate::pubsub::message::Message;
use crate::server::publisher::{Batch, Publisher, To};
use crate::topology::view::View;

/// There is one database.
const OF_KEY: &[u8] = b"__keyspace@0__:";
const OF_EVENT: &[u8] = b"__keyevent@0__:";

/// See the module's documentation.
pub struct Notifications {
    publisher: Arc<Publisher>,
    /// The letters of `notify-keyspace-events` and, above them, [`EVERYWHERE`]; 0: nothing is announced.
    wanted: Arc<AtomicU32>,
    view: OnceLock<Arc<ArcSwap<View>>>,
}

/// The scope is `cluster`.
const EVERYWHERE: u32 = 1 << 31;

impl Notifications {
    /// Follows the configuration from now on.
    pub fn new(config: &Config, publisher: Arc<Publisher>) -> Self {
        let wanted = Arc::new(AtomicU32::new(bits(&config.live())));
        let followed = wanted.clone();
        config.on_change(move |live| followed.store(bits(live), Ordering::Relaxed));
        Self { publisher, wanted, view: OnceLock::new() }
    }

    /// Where the cluster's view is found, once there is one.
    pub fn follow(&self, view: Arc<ArcSwap<View>>) {
        // It is set once, when the node starts.
        let _ = self.view.set(view);
    }

    /// Whether events of a shard would be announced now (see `shard::observer`).
    #[inline]
    pub fn wants(&self, shard: GroupId, here: bool) -> bool {
        let wanted = self.wanted.load(Ordering::Relaxed);
        wanted != 0 && self.has_listeners(wanted, shard, here)
    }

    fn has_listeners(&self, wanted: u32, shard: GroupId, here: bool) -> bool {
        let everywhere = wanted & EVERYWHERE != 0;
        (here || everywhere) && self.publisher.subscribers().listens()
            || here && everywhere && self.some_lack(shard)
    }

    /// Announces what happened to keys of a shard.
    pub fn announce(&self, shard: GroupId, here: bool, events: &[Occurrence]) {
        let wanted = self.wanted.load(Ordering::Relaxed);
        let batch = messages(NotifyEvents::from_bits(wanted & !EVERYWHERE), events);
        if batch.is_empty() {
            return;
        }
        if here && wanted & EVERYWHERE != 0 && self.some_lack(shard) {
            self.publisher.send(To::Without(shard), batch.clone());
        }
        if self.publisher.subscribers().listens() {
            self.publisher.hand_over(batch);
        }
    }

    /// Whether some node has no copy of a shard.
    fn some_lack(&self, shard: GroupId) -> bool {
        let Some(view) = self.view.get() else { return false };
        let topology = &view.load().topology;
        let copies = topology.shards.get(&shard).map_or(0, |shard| shard.copies.len());
        copies < topology.nodes.len()
    }
}

fn bits(live: &Live) -> u32 {
    match (live.notify_keyspace_events.announces(), live.notify_keyspace_scope) {
        (false, _) => 0,
        (true, NotifyScope::Node) => live.notify_keyspace_events.bits(),
        (true, NotifyScope::Cluster) => live.notify_keyspace_events.bits() | EVERYWHERE,
    }
}

/// The messages of those events that are wanted, the key's before the event's.
fn messages(wanted: NotifyEvents, events: &[Occurrence]) -> Batch {
    let mut batch = Vec::new();
    for Occurrence { event, key } in events.iter().filter(|one| wanted.admits(one.event.class.letter())) {
        let name = event.name.as_bytes();
        for (letter, prefix, about, payload) in [(b'K', OF_KEY, &**key, name), (b'E', OF_EVENT, name, &**key)]
        {
            if wanted.admits(letter) {
                Message { sharded: false, channel: &[prefix, about].concat(), payload }.put(&mut batch);
            }
        }
    }
    batch.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::event::{Class, Event};

    #[test]
    fn an_event_is_announced_by_key_and_by_name_if_its_class_is_wanted() {
        let one = |class, name, key: &[u8]| Occurrence { event: Event::new(class, name), key: key.into() };
        let events =
            [one(Class::String, "set", b"a"), one(Class::New, "new", b"b"), one(Class::Generic, "del", b"c")];
        let told = |letters| {
            let batch = messages(NotifyEvents::parse(letters).unwrap(), &events);
            let (mut from, mut told) = (&batch[..], Vec::new());
            while let Ok(message) = Message::read(&mut from) {
                told.push(format!("{} {}", message.channel.escape_ascii(), message.payload.escape_ascii()));
            }
            told
        };
        assert_eq!(told("K$"), ["__keyspace@0__:a set"]);
        assert_eq!(told("KEg"), ["__keyspace@0__:c del", "__keyevent@0__:del c"]);
        assert_eq!(told("En"), ["__keyevent@0__:new b"]);
        assert_eq!(told("KEA").len(), 4, "A has no n");
    }
}
