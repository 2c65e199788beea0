//! A connection's subscription to the stream of invalidations, and which slots are whose. What was asked for is parsed
//! elsewhere, and what is new is pushed elsewhere.

use std::sync::Arc;
use std::time::Duration;

use slotcast_wire::slot::SLOTS;

use crate::id::GroupId;
use crate::session::clients::Client;
use crate::topology::view::View;
use crate::tracking::feed::{Feed, Territory};
use crate::tracking::rings::{Listening, Rings};
use crate::tracking::slots::Slots;

/// A connection's subscription.
pub struct Following {
    /// What it is told.
    pub feed: Feed,
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// How long changes may be gathered before they are pushed.
    pub max_delay: Duration,
    /// Woken by news.
    pub listening: Listening,
}

impl Following {
    /// Begins to be woken.
    pub fn new(feed: Feed, rings: Arc<Rings>, client: Arc<Client>) -> Self {
        let listening = Listening::join(rings, client);
        Self { feed, heartbeat: Duration::ZERO, max_delay: Duration::ZERO, listening }
    }
}

/// The slots of shards, as this node sees the cluster.
pub struct Lands(pub Option<Arc<View>>);

impl Territory for Lands {
    fn slots(&self, shard: GroupId) -> (Slots, u64) {
        let Some(view) = &self.0 else { return (Slots::all(), 0) };
        let owns = |slot: &u16| view.topology.slots.owner(*slot) == Some(shard);
        ((0..SLOTS as u16).filter(owns).collect(), view.topology.epoch)
    }
}
