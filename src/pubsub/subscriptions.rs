//! What one connection has subscribed to: what UNSUBSCRIBE without names leaves, and what a connection that closes
//! takes out of the registry. Ordered, so that replies come in the same order every time.

use std::collections::BTreeSet;

use crate::pubsub::registry::Kind;

/// Channels, patterns and shard channels a connection may hold together; one more is refused.
pub const MAX_SUBSCRIPTIONS: usize = 1 << 18;
/// Bytes their names may take together, likewise.
pub const MAX_BYTES: usize = 64 << 20;

/// More than a limit of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Subscriptions {
    /// By [`Kind`].
    names: [BTreeSet<Box<[u8]>>; 3],
    bytes: usize,
    left: u64,
}

impl Subscriptions {
    /// Adds one; false: it was there.
    pub fn add(&mut self, kind: Kind, name: &[u8]) -> Result<bool, TooMany> {
        if self.names[kind as usize].contains(name) {
            return Ok(false);
        }
        if self.len() >= MAX_SUBSCRIPTIONS || self.bytes + name.len() > MAX_BYTES {
            return Err(TooMany);
        }
        self.bytes += name.len();
        Ok(self.names[kind as usize].insert(name.into()))
    }

    /// Removes one; false: it was not there.
    pub fn remove(&mut self, kind: Kind, name: &[u8]) -> bool {
        let removed = self.names[kind as usize].remove(name);
        if removed {
            self.bytes -= name.len();
            self.left += 1;
        }
        removed
    }

    /// Removes and returns all of a kind.
    pub fn take(&mut self, kind: Kind) -> BTreeSet<Box<[u8]>> {
        let taken = std::mem::take(&mut self.names[kind as usize]);
        self.bytes -= taken.iter().map(|name| name.len()).sum::<usize>();
        self.left += taken.len() as u64;
        taken
    }

    /// All of a kind, in order.
    pub fn list(&self, kind: Kind) -> Vec<Box<[u8]>> {
        self.names[kind as usize].iter().cloned().collect()
    }

    /// How many there are of a kind.
    pub fn count(&self, kind: Kind) -> usize {
        self.names[kind as usize].len()
    }

    /// The number that confirmations name: of channels and patterns together, or of shard channels.
    pub fn counted_with(&self, kind: Kind) -> usize {
        match kind {
            Kind::Channel | Kind::Pattern => self.count(Kind::Channel) + self.count(Kind::Pattern),
            Kind::Shard => self.count(Kind::Shard),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.names.iter().map(BTreeSet::len).sum()
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.names.iter().all(BTreeSet::is_empty)
    }

    /// Counts what was ever removed.
    pub fn left(&self) -> u64 {
        self.left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_held_once_and_counted_as_redis_counts() {
        let mut held = Subscriptions::default();
        assert_eq!(held.add(Kind::Channel, b"a"), Ok(true));
        assert_eq!(held.add(Kind::Channel, b"a"), Ok(false));
        assert_eq!(held.add(Kind::Pattern, b"a"), Ok(true));
        assert_eq!(held.add(Kind::Shard, b"a"), Ok(true));
        assert_eq!((held.len(), held.counted_with(Kind::Pattern), held.counted_with(Kind::Shard)), (3, 2, 1));
        assert!(held.remove(Kind::Channel, b"a") && !held.remove(Kind::Channel, b"a"));
        assert_eq!(held.take(Kind::Shard).len(), 1);
        assert_eq!((held.len(), held.left()), (1, 2));
    }

    #[test]
    fn names_are_limited_by_their_bytes() {
        let mut held = Subscriptions::default();
        assert_eq!(held.add(Kind::Channel, &vec![0; MAX_BYTES]), Ok(true));
        assert_eq!(held.add(Kind::Pattern, b"x"), Err(TooMany));
        held.take(Kind::Channel);
        assert_eq!(held.add(Kind::Pattern, b"x"), Ok(true));
    }
}
