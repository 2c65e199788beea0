//! Where effects meet the connections that care: the shards' observer.
//!
//! Every copy of a shard applies every change, so a node tells the connections it serves itself; nodes need no
//! channel between them for it. Called under the locks of the slots concerned (see `shard::observer`).
//!
//! Locks are taken in this order: a slot's, then [`Listeners`] or a stripe of the table, never one within the other,
//! then an outbox's.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::RwLock;
use slotcast_wire::reply::Proto;
use slotcast_wire::slot::slot_of;

use crate::config::Config;
use crate::id::GroupId;
use crate::keyspace::effect::Effect;
use crate::server::outbox::Outbox;
use crate::session::tracking::{Scope, Tracking};
use crate::tracking::prefixes::{Outline, Prefixes};
use crate::tracking::table::Table;

/// A connection that tracks.
struct Listener {
    /// Its own.
    source: Arc<Outbox>,
    /// Who is told: itself or the one it redirects to; none: nobody can be.
    told: Option<Arc<Outbox>>,
    tracking: Tracking,
}

impl Listener {
    /// Tells it of a change by `author`, unless that is its own and it doesn't want to hear of those.
    fn hear(&self, author: Option<u64>, tell: impl FnOnce(&Outbox)) {
        let own = self.tracking.no_loop && author == Some(self.source.client().id);
        if let (false, Some(told)) = (own, &self.told) {
            tell(told);
        }
    }

    /// The connection it redirected to is gone.
    fn lose_target(&self) -> Arc<Listener> {
        self.source.client().profile.lock().redirect_broken = true;
        self.source.redirection_is_broken(self.tracking.redirect);
        Arc::new(Listener { source: self.source.clone(), told: None, tracking: self.tracking.clone() })
    }
}

/// All of them.
#[derive(Default)]
struct Listeners {
    by_id: HashMap<u64, Arc<Listener>>,
    broadcast: Prefixes<Arc<Listener>>,
    /// The connections that redirect to this one.
    redirected: HashMap<u64, BTreeSet<u64>>,
}

impl Listeners {
    fn enter(&mut self, listener: Arc<Listener>) {
        let (id, target) = (listener.source.client().id, listener.tracking.redirect);
        for prefix in &listener.tracking.prefixes {
            self.broadcast.join(prefix, id, listener.clone());
        }
        if target != 0 && listener.told.is_some() {
            self.redirected.entry(target).or_default().insert(id);
        }
        self.by_id.insert(id, listener);
    }

    fn leave(&mut self, id: u64) -> Option<Arc<Listener>> {
        let listener = self.by_id.remove(&id)?;
        listener.tracking.prefixes.iter().for_each(|prefix| self.broadcast.leave(prefix, id));
        let target = listener.tracking.redirect;
        if let Some(sources) = self.redirected.get_mut(&target) {
            sources.remove(&id);
            if sources.is_empty() {
                self.redirected.remove(&target);
            }
        }
        Some(listener)
    }
}

/// See the module's documentation.
pub struct Invalidation {
    config: Arc<Config>,
    table: Arc<Table>,
    listeners: RwLock<Listeners>,
    /// Of what is broadcast.
    outline: Arc<Outline>,
}

impl Invalidation {
    /// Nobody listens yet.
    pub fn new(config: Arc<Config>) -> Self {
        let listeners = Listeners::default();
        let outline = listeners.broadcast.outline().clone();
        Self { config, table: Arc::default(), listeners: RwLock::new(listeners), outline }
    }

    /// The keys that are remembered.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// A connection has closed, and cannot be found any more; those that redirect to it are told so.
    pub fn close(&self, id: u64) {
        let mut listeners = self.listeners.write();
        listeners.leave(id);
        for source in listeners.redirected.remove(&id).unwrap_or_default() {
            if let Some(listener) = listeners.leave(source) {
                listeners.enter(listener.lose_target());
            }
        }
    }

    /// A connection turns tracking on, changes its mode or its protocol, or turns tracking off. `find` finds other
    /// connections.
    pub fn follow(
        &self,
        outbox: &Arc<Outbox>,
        tracking: &Tracking,
        proto: Proto,
        find: impl FnOnce(u64) -> Option<Arc<Outbox>>,
    ) {
        let mut listeners = self.listeners.write();
        listeners.leave(outbox.client().id);
        if !tracking.on {
            return;
        }
        let told = match tracking.redirect {
            0 => (proto == Proto::Resp3).then(|| outbox.clone()),
            // Looked for under the lock: one that is found here and closes will find this one.
            target => find(target),
        };
        let (source, tracking) = (outbox.clone(), tracking.clone());
        let is_broken = told.is_none() && tracking.redirect != 0;
        let listener = Listener { source, told, tracking };
        listeners.enter(if is_broken { listener.lose_target() } else { Arc::new(listener) });
    }

    /// Whether anybody may want to hear that this key has changed. Takes no lock.
    #[inline]
    pub fn cares_for(&self, key: &[u8]) -> bool {
        self.table.may_hold(key) || self.outline.may_match(key)
    }

    /// What has changed in this node's copy of a shard, under the locks of the slots concerned. `author` as in
    /// `shard::observer`.
    pub fn observe(&self, shard: GroupId, author: Option<u64>, effects: &[Effect]) {
        let mut is_broadcast = false;
        for effect in effects {
            match effect {
                Effect::Flushed if !self.config.startup.cluster_enabled => self.forget_all(),
                Effect::Flushed => self.forget_shard(shard),
                Effect::Key { key, .. } => {
                    if let Some(readers) = self.table.take(key) {
                        self.tell(&readers, key, author);
                    }
                    is_broadcast = is_broadcast || self.outline.may_match(key);
                }
            }
        }
        if is_broadcast {
            self.broadcast(author, effects);
        }
    }

    /// A connection has read this key in the copy of a shard, under the lock of its slot, and wants to hear of its
    /// next change.
    pub fn remember(&self, shard: GroupId, reader: u64, key: &[u8]) {
        let limit = match self.config.live().tracking_table_max_keys {
            0 => usize::MAX,
            limit => limit,
        };
        // Asked for with a stripe locked: it must not wait for the listeners.
        let is_there =
            |id| self.listeners.try_read().is_none_or(|listeners| listeners.by_id.contains_key(&id));
        for (key, readers) in self.table.remember((shard, key), reader, limit, is_there) {
            self.tell(&readers, &key, None);
        }
    }

    /// Tells every connection to drop everything (FLUSHALL).
    fn forget_all(&self) {
        self.table.take_all(|_, _| true, |_, _| {});
        for listener in self.listeners.read().by_id.values() {
            listener.hear(None, Outbox::invalidate_all);
        }
    }

    /// What this node's copy of the shard said can no longer be vouched for: its keys went, another state has taken its
    /// place, or changes no longer come here. Those who have read keys of it, and those to whom its keys are broadcast,
    /// are told to drop everything.
    pub fn forget_shard(&self, shard: GroupId) {
        let mut affected = BTreeSet::new();
        self.table.take_all(|of, _| of == shard, |_, readers| affected.extend(readers.iter().copied()));
        let listeners = self.listeners.read();
        let affected = |id, listener: &&Arc<Listener>| {
            listener.tracking.scope == Scope::Broadcast || affected.contains(id)
        };
        for (_, listener) in listeners.by_id.iter().filter(|(id, listener)| affected(id, listener)) {
            listener.hear(None, Outbox::invalidate_all);
        }
    }

    /// These slots are served elsewhere from now on: who has read keys of them here is told that they have changed.
    pub fn forget_slots(&self, moved: impl Fn(u16) -> bool) {
        let is_moved = |_, key: &[u8]| moved(slot_of(key));
        self.table.take_all(is_moved, |key, readers| self.tell(readers, key, None));
    }

    fn tell(&self, readers: &[u64], key: &[u8], author: Option<u64>) {
        let listeners = self.listeners.read();
        let readers = readers.iter().filter_map(|reader| listeners.by_id.get(reader));
        for reader in readers.filter(|reader| reader.tracking.scope != Scope::Broadcast) {
            reader.hear(author, |outbox| outbox.invalidate(key));
        }
    }

    fn broadcast(&self, author: Option<u64>, effects: &[Effect]) {
        let keys = || {
            effects.iter().filter_map(|effect| match effect {
                Effect::Key { key, .. } => Some(&**key),
                Effect::Flushed => None,
            })
        };
        let listeners = self.listeners.read();
        if let [Effect::Key { key, .. }] = effects {
            for (prefix, listener) in listeners.broadcast.of(key) {
                listener.hear(author, |outbox| {
                    outbox.broadcast(prefix, key);
                    outbox.announce();
                });
            }
            return;
        }
        for key in keys() {
            for (prefix, listener) in listeners.broadcast.of(key) {
                listener.hear(author, |outbox| outbox.broadcast(prefix, key));
            }
        }
        for (_, listener) in keys().flat_map(|key| listeners.broadcast.of(key)) {
            listener.hear(author, Outbox::announce);
        }
    }
}
