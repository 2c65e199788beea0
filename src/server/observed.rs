//! What a shard's copy tells the node: its own invalidation log, the tracking tables of all shards, and keyspace
//! notifications.
//!
//! In a cluster the log is always written, since a cache may come here to catch up that nobody knew of while things
//! changed. A single node has nobody to come from elsewhere: it begins when the first one asks.

use std::sync::Arc;

use crate::config::Config;
use crate::id::GroupId;
use crate::keyspace::effect::{Audience, Change, Effect};
use crate::keyspace::event::Occurrence;
use crate::keyspace::locked::Lookups;
use crate::metrics::Metrics;
use crate::server::invalidation::Invalidation;
use crate::server::notifications::Notifications;
use crate::shard::observer::Observer;
use crate::tracking::ring::Ring;
use crate::tracking::rings::Rings;
use crate::tracking::segment::Touched;

/// See the module's documentation.
pub struct Observed {
    shard: GroupId,
    notifications: Arc<Notifications>,
    invalidation: Arc<Invalidation>,
    rings: Arc<Rings>,
    ring: Arc<Ring>,
    /// In a cluster.
    always_keeps_log: bool,
    metrics: Arc<Metrics>,
}

impl Observed {
    /// Of a new copy of a shard.
    pub fn new(
        config: Arc<Config>,
        metrics: Arc<Metrics>,
        invalidation: Arc<Invalidation>,
        notifications: Arc<Notifications>,
        rings: Arc<Rings>,
        shard: GroupId,
    ) -> Self {
        let ring = rings.open(shard, config.live().invalidation_window_bytes as usize);
        let always_keeps_log = config.startup.cluster_enabled;
        Self { shard, notifications, invalidation, rings, ring, always_keeps_log, metrics }
    }

    fn keeps_log(&self) -> bool {
        self.always_keeps_log || self.rings.are_wanted()
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.rings.close(self.shard, &self.ring);
    }
}

impl Audience for Observed {
    fn cares_for(&self, key: &[u8]) -> bool {
        self.keeps_log() || self.invalidation.cares_for(key)
    }
}

impl Observer for Observed {
    fn observe(&self, index: u64, author: Option<u64>, effects: &[Effect]) {
        if self.keeps_log() {
            self.ring.note(index, effects.iter().map(touched));
        }
        self.invalidation.observe(self.shard, author, effects);
    }

    fn wants_events(&self, here: bool) -> bool {
        self.notifications.wants(self.shard, here)
    }

    fn announce(&self, here: bool, events: &[Occurrence]) {
        self.notifications.announce(self.shard, here, events);
    }

    fn applied(&self, index: u64) {
        if self.ring.publish(index) {
            self.rings.notify();
        }
    }

    fn replaced(&self, lineage: u64, index: u64) {
        self.ring.restart(lineage, index);
        self.rings.notify();
        self.invalidation.forget_shard(self.shard);
    }

    fn removed(&self, change: Change, keys: usize) {
        match change {
            Change::Expired => self.metrics.expired_keys.add(keys as u64),
            Change::Evicted => self.metrics.evicted_keys.add(keys as u64),
            Change::Set | Change::Removed => {}
        }
    }

    fn looked_up(&self, lookups: Lookups) {
        self.metrics.note_turn(0, lookups.hits, lookups.misses);
    }

    fn remember(&self, reader: u64, key: &[u8]) {
        self.invalidation.remember(self.shard, reader, key);
    }
}

fn touched(effect: &Effect) -> Touched<'_> {
    match effect {
        Effect::Key { slot, key, .. } => Touched::Key(*slot, key),
        Effect::Flushed => Touched::All,
    }
}
