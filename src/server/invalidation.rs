//! Where effects meet the connections that care: the shards' observer.
//!
//! Every copy of a shard applies every change, so a node tells the connections it serves itself; nodes need no
//! channel between them for it. Called under the locks of the slots concerned (see `shard::observer`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashMap;
use parking_lot::RwLock;

use crate::config::Config;
use crate::keyspace::effect::{Change, Effect};
use crate::keyspace::locked::Lookups;
use crate::metrics::Metrics;
use crate::server::outbox::Outbox;
use crate::shard::observer::Observer;
use crate::tracking::table::Table;

struct Listener {
    outbox: Arc<Outbox>,
    no_loop: bool,
}

/// See the module's documentation.
pub struct Invalidation {
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    table: Table,
    listeners: RwLock<HashMap<u64, Listener>>,
    count: AtomicUsize,
}

impl Invalidation {
    /// Nobody listens yet.
    pub fn new(config: Arc<Config>, metrics: Arc<Metrics>) -> Self {
        Self {
            config,
            metrics,
            table: Table::default(),
            listeners: RwLock::default(),
            count: AtomicUsize::new(0),
        }
    }

    /// A connection turns tracking on (or changes its mode).
    pub fn listen(&self, reader: u64, outbox: Arc<Outbox>, no_loop: bool) {
        let mut listeners = self.listeners.write();
        listeners.insert(reader, Listener { outbox, no_loop });
        self.count.store(listeners.len(), Ordering::SeqCst);
    }

    /// A connection turns tracking off, or has closed.
    pub fn forget(&self, reader: u64) {
        let mut listeners = self.listeners.write();
        listeners.remove(&reader);
        self.count.store(listeners.len(), Ordering::SeqCst);
        if listeners.is_empty() {
            self.table.clear();
        }
    }

    /// Keys remembered.
    pub fn tracked_keys(&self) -> usize {
        self.table.len()
    }

    /// Tells every connection to drop everything: what it holds can no longer be vouched for.
    pub fn flush(&self) {
        self.table.clear();
        self.listeners.read().values().for_each(|listener| listener.outbox.invalidate_all());
    }

    fn tell(&self, readers: &[u64], key: &[u8], author: Option<u64>) {
        let listeners = self.listeners.read();
        for reader in readers {
            let Some(listener) = listeners.get(reader) else { continue };
            if !(listener.no_loop && author == Some(*reader)) {
                listener.outbox.invalidate(key);
            }
        }
    }
}

impl Observer for Invalidation {
    fn is_listening(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0
    }

    fn observe(&self, _index: u64, author: Option<u64>, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Flushed => self.flush(),
                Effect::Key { key, .. } => {
                    if let Some(readers) = self.table.take(key) {
                        self.tell(&readers, key, author);
                    }
                }
            }
        }
    }

    fn applied(&self, _index: u64) {}

    fn replaced(&self, _lineage: u64, _index: u64) {
        self.flush();
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
        let limit = self.config.live().tracking_table_max_keys;
        let limit = if limit == 0 { usize::MAX } else { limit };
        if let Some((key, readers)) = self.table.remember(reader, key, limit) {
            self.tell(&readers, &key, None);
        }
    }
}
