//! A part of the near cache's memory: some slots, what is known of each, and the entries of their keys.
//!
//! A stripe is what one lock guards. That a slot's state and its entries are under the same lock is what makes the
//! rules of [`crate::l1`] atomic: between looking at a slot and touching an entry nothing happens to either.
//!
//! When room is needed the CLOCK algorithm chooses: a hand goes round the entries, passes once over those that were used
//! since it last came by, and takes the first that was not. Which entries are dead is the caller's to say.

use std::hash::BuildHasher;

use bytes::Bytes;
use hashbrown::HashTable;
use slotcast_wire::position::Position;

/// What is known of a slot.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slot {
    /// The shard it belongs to; none: nothing of it may be cached.
    pub owner: Option<u32>,
    /// The topology's version that says so.
    pub epoch: u64,
    /// Entries below this index are dead.
    pub floor: u64,
    /// The newest change of any of its keys: a value read before it isn't taken.
    pub changed: u64,
    /// One's own writes up to this index may have been overtaken within their own log entry.
    pub contested: u64,
}

/// A cached value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Whose.
    pub key: Bytes,
    /// What; none: the key doesn't exist.
    pub value: Option<Bytes>,
    /// When it was true.
    pub position: Position,
    /// Of one's own write, which is somewhere in the log entry at that index; else read, behind all of it.
    pub written: bool,
    /// Time since the cache's origin in µs from which on it is not.
    pub expires_at: Option<u64>,
    /// Used since the hand came by.
    pub used: bool,
}

impl Entry {
    /// Memory it takes, roughly.
    pub fn weight(&self) -> usize {
        const OVERHEAD: usize = size_of::<Option<Entry>>() + 16;
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len) + OVERHEAD
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Stripe {
    /// By the slot's number divided by the number of stripes.
    pub slots: Vec<Slot>,
    hasher: foldhash::fast::RandomState,
    table: HashTable<u32>,
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    hand: usize,
}

impl Stripe {
    /// So many slots nothing is known of.
    pub fn new(slots: usize) -> Self {
        Self { slots: vec![Slot::default(); slots], ..Self::default() }
    }

    /// The entry of a key.
    pub fn find(&mut self, key: &[u8]) -> Option<&mut Entry> {
        let hash = self.hasher.hash_one(key);
        let at = *self.table.find(hash, |at| holds(&self.entries, *at, key))?;
        self.entries.get_mut(at as usize)?.as_mut()
    }

    /// Puts an entry in; gives the one that was in its place.
    pub fn insert(&mut self, entry: Entry) -> Option<Entry> {
        if let Some(present) = self.find(&entry.key) {
            return Some(std::mem::replace(present, entry));
        }
        let hash = self.hasher.hash_one(&entry.key[..]);
        let at = self.free.pop().unwrap_or(self.entries.len() as u32);
        match self.entries.get_mut(at as usize) {
            Some(place) => *place = Some(entry),
            None => self.entries.push(Some(entry)),
        }
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.table.insert_unique(hash, at, |at| hash_at(entries, hasher, *at));
        None
    }

    /// Takes a key's entry out.
    pub fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let hash = self.hasher.hash_one(key);
        let found = self.table.find_entry(hash, |at| holds(&self.entries, *at, key)).ok()?;
        let (at, _) = found.remove();
        self.free.push(at);
        self.entries.get_mut(at as usize)?.take()
    }

    /// Takes the entry out that is dead or was longest not used, as the hand finds them; none if there is none.
    pub fn evict(
        &mut self,
        dead: impl Fn(&Slot, &Entry) -> bool,
        slot_of: impl Fn(&[u8]) -> usize,
    ) -> Option<Entry> {
        for _ in 0..2 * self.entries.len() {
            self.hand = (self.hand + 1) % self.entries.len();
            let Some(Some(entry)) = self.entries.get_mut(self.hand) else { continue };
            let slot = self.slots.get(slot_of(&entry.key));
            if entry.used && !slot.is_some_and(|slot| dead(slot, entry)) {
                entry.used = false;
                continue;
            }
            let key = entry.key.clone();
            return self.remove(&key);
        }
        None
    }
}

fn holds(entries: &[Option<Entry>], at: u32, key: &[u8]) -> bool {
    matches!(entries.get(at as usize), Some(Some(entry)) if entry.key == key)
}

fn hash_at(entries: &[Option<Entry>], hasher: &foldhash::fast::RandomState, at: u32) -> u64 {
    entries.get(at as usize).and_then(Option::as_ref).map_or(0, |entry| hasher.hash_one(&entry.key[..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str) -> Entry {
        let key = Bytes::copy_from_slice(key.as_bytes());
        Entry {
            key,
            value: None,
            position: Position::default(),
            written: false,
            expires_at: None,
            used: false,
        }
    }

    #[test]
    fn what_is_put_in_is_found_until_it_is_taken_out() {
        let mut stripe = Stripe::new(1);
        for n in 0..1000 {
            assert!(stripe.insert(entry(&format!("key:{n}"))).is_none());
        }
        assert!(stripe.insert(entry("key:7")).is_some(), "it was there");
        for n in (0..1000).step_by(2) {
            assert!(stripe.remove(format!("key:{n}").as_bytes()).is_some());
        }
        for n in 0..1000 {
            assert_eq!(stripe.find(format!("key:{n}").as_bytes()).is_some(), n % 2 == 1, "{n}");
        }
        (0..500).for_each(|n| assert!(stripe.insert(entry(&format!("new:{n}"))).is_none()));
        assert_eq!(stripe.entries.len(), 1000, "places are used again");
    }

    #[test]
    fn the_hand_spares_what_was_used_and_takes_what_is_dead_first() {
        let mut stripe = Stripe::new(1);
        ["a", "b", "c"].iter().for_each(|key| drop(stripe.insert(entry(key))));
        stripe.find(b"b").unwrap().used = true;
        stripe.find(b"c").unwrap().used = true;
        let mut evicted = |dead: &str| {
            let out = stripe.evict(|_, entry| entry.key == dead.as_bytes(), |_| 0);
            out.map(|entry| String::from_utf8(entry.key.to_vec()).unwrap())
        };
        assert_eq!(evicted("c").as_deref(), Some("c"), "dead, though used");
        assert_eq!(evicted("").as_deref(), Some("a"), "not used");
        assert_eq!(evicted("").as_deref(), Some("b"), "the only one left");
        assert_eq!(evicted(""), None);
    }
}
