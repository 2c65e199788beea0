//! The node's register: channels, patterns and shard channels, each with its subscribers' connection ids.
//!
//! Publishing reads, subscribing writes. Names are spread over stripes with a lock each, so that publishers hold up
//! nobody but who subscribes to a channel of the same stripe; patterns, few by nature, share one lock. Subscribers are
//! visited while the lock is held: once an unsubscription has returned, nothing of that channel is delivered any more.

use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashMap;
use parking_lot::RwLock;

use crate::glob;

/// What one may subscribe to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A channel, by name (SUBSCRIBE).
    Channel,
    /// All channels whose name matches (PSUBSCRIBE).
    Pattern,
    /// A channel of the shard that owns its slot (SSUBSCRIBE).
    Shard,
}

const STRIPES: usize = 64;

/// Ascending, so that a message goes to its subscribers in the order in which they connected.
type Subscribers = BTreeSet<u64>;
type Stripe = HashMap<Box<[u8]>, Subscribers, foldhash::fast::RandomState>;

/// See the module's documentation.
pub struct Registry {
    channels: Names,
    patterns: Names,
    shards: Names,
}

struct Names {
    stripes: Box<[RwLock<Stripe>]>,
    hasher: foldhash::fast::RandomState,
    count: AtomicUsize,
}

impl Default for Registry {
    fn default() -> Self {
        Self { channels: Names::new(STRIPES), patterns: Names::new(1), shards: Names::new(STRIPES) }
    }
}

impl Names {
    fn new(stripes: usize) -> Self {
        let stripes = (0..stripes).map(|_| RwLock::default()).collect();
        Names { stripes, hasher: foldhash::fast::RandomState::default(), count: AtomicUsize::new(0) }
    }

    fn stripe(&self, name: &[u8]) -> &RwLock<Stripe> {
        &self.stripes[self.hasher.hash_one(name) as usize % self.stripes.len()]
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    fn each(&self, mut visit: impl FnMut(&[u8], &Subscribers)) {
        if !self.is_empty() {
            let stripes = self.stripes.iter().map(|stripe| stripe.read());
            stripes.for_each(|stripe| stripe.iter().for_each(|(name, ids)| visit(name, ids)));
        }
    }
}

impl Registry {
    /// Adds a subscriber.
    pub fn subscribe(&self, kind: Kind, name: &[u8], id: u64) {
        let names = self.names(kind);
        let mut stripe = names.stripe(name).write();
        match stripe.get_mut(name) {
            Some(subscribers) => drop(subscribers.insert(id)),
            None => {
                stripe.insert(name.into(), Subscribers::from([id]));
                names.count.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    /// Takes a subscriber out. What is published from here on doesn't reach it by this name.
    pub fn unsubscribe(&self, kind: Kind, name: &[u8], id: u64) {
        let names = self.names(kind);
        let mut stripe = names.stripe(name).write();
        let Some(subscribers) = stripe.get_mut(name) else { return };
        subscribers.remove(&id);
        if subscribers.is_empty() {
            stripe.remove(name);
            names.count.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Visits the subscribers of a channel (or shard channel); returns how many there are.
    pub fn each_subscriber(&self, kind: Kind, name: &[u8], visit: impl FnMut(u64)) -> usize {
        let names = self.names(kind);
        if names.is_empty() {
            return 0;
        }
        let stripe = names.stripe(name).read();
        let Some(subscribers) = stripe.get(name) else { return 0 };
        subscribers.iter().copied().for_each(visit);
        subscribers.len()
    }

    /// Visits the patterns that a channel matches, each with its subscribers.
    pub fn each_match(&self, channel: &[u8], mut visit: impl FnMut(&[u8], &BTreeSet<u64>)) {
        self.patterns.each(|pattern, subscribers| {
            if glob::matches(pattern, channel) {
                visit(pattern, subscribers);
            }
        });
    }

    /// How many names of a kind have subscribers.
    pub fn count(&self, kind: Kind) -> usize {
        self.names(kind).count.load(Ordering::SeqCst)
    }

    /// Whether a message on any channel (shard channels aside) would reach somebody, as far as can be told quickly.
    pub fn listens(&self) -> bool {
        !(self.channels.is_empty() && self.patterns.is_empty())
    }

    /// Names with subscribers that `admitted` lets pass, in order.
    pub fn list(&self, kind: Kind, admitted: impl Fn(&[u8]) -> bool) -> Vec<Box<[u8]>> {
        let mut names = Vec::new();
        self.names(kind).each(|name, _| names.extend(admitted(name).then(|| name.into())));
        names.sort_unstable();
        names
    }

    /// How many subscribe to a name.
    pub fn subscribers(&self, kind: Kind, name: &[u8]) -> usize {
        self.names(kind).stripe(name).read().get(name).map_or(0, BTreeSet::len)
    }

    /// Whether a connection subscribes to a name.
    pub fn is_subscribed(&self, kind: Kind, name: &[u8], id: u64) -> bool {
        self.names(kind).stripe(name).read().get(name).is_some_and(|subscribers| subscribers.contains(&id))
    }

    fn names(&self, kind: Kind) -> &Names {
        match kind {
            Kind::Channel => &self.channels,
            Kind::Pattern => &self.patterns,
            Kind::Shard => &self.shards,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(registry: &Registry, kind: Kind, name: &[u8]) -> Vec<u64> {
        let mut ids = Vec::new();
        assert_eq!(registry.each_subscriber(kind, name, |id| ids.push(id)), ids.len());
        ids
    }

    #[test]
    fn a_name_is_there_while_somebody_subscribes_to_it() {
        let registry = Registry::default();
        assert!(!registry.listens());
        for id in [3, 1, 3] {
            registry.subscribe(Kind::Channel, b"a", id);
        }
        assert_eq!(told(&registry, Kind::Channel, b"a"), [1, 3]);
        assert!(told(&registry, Kind::Shard, b"a").is_empty(), "another kind");
        assert!(registry.listens() && registry.is_subscribed(Kind::Channel, b"a", 3));
        assert_eq!((registry.count(Kind::Channel), registry.subscribers(Kind::Channel, b"a")), (1, 2));
        for id in [1, 3, 9] {
            registry.unsubscribe(Kind::Channel, b"a", id);
        }
        assert_eq!((registry.count(Kind::Channel), registry.listens()), (0, false));
    }

    #[test]
    fn a_channel_is_matched_by_patterns() {
        let registry = Registry::default();
        for (pattern, id) in [(&b"n*"[..], 1), (b"n*", 2), (b"news", 1), (b"x?", 3)] {
            registry.subscribe(Kind::Pattern, pattern, id);
        }
        let mut matches = Vec::new();
        registry.each_match(b"news", |pattern, ids| matches.push((pattern.to_vec(), ids.len())));
        matches.sort();
        assert_eq!(matches, [(b"n*".to_vec(), 2), (b"news".to_vec(), 1)]);
        assert_eq!(registry.list(Kind::Pattern, |name| name != b"x?").len(), 2);
    }
}
