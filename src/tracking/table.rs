//! The default mode's table: key to the connections that have read it since its last change.
//!
//! One notice a key: a key that changes leaves the table, and the connection has to read it again to be told again
//! (as Redis defines it). A connection that has gone is not searched for: its id means nothing any more and goes
//! with the key, or when the key's readers are too many. Beyond its limits the table lets keys go and tells their
//! readers, as if they had changed.
//!
//! While anybody tracks, every write asks for its key: a [`Filter`] says of almost all that nobody has read them, and only
//! the others are looked up. Keys that are not long lie in the table itself.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use hashbrown::HashTable;
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::id::GroupId;
use crate::tracking::filter::Filter;

/// The readers of a key.
pub type Readers = SmallVec<[u64; 2]>;
/// A key.
pub type Key = SmallVec<[u8; 31]>;

const STRIPES: usize = 256;
/// Of the filter, in bytes: with a table at its default limit it still knows three of five keys that nobody has read.
const PLACES: usize = 2 << 20;

/// Bytes that a key may take on average, its readers included: the table's limit in bytes is this times its limit in
/// keys, so that long keys or keys with thousands of readers don't take memory without bound.
const BYTES_A_KEY: usize = 512;
/// What an entry takes besides its key's bytes and its readers beyond the first two.
const ENTRY_BYTES: usize = 72;
/// Keys let go for one that comes, at most: enough to reach a limit that was lowered, little enough for a read.
const LET_GO_AT_ONCE: usize = 4;
/// From this many readers on, those who have gone are looked for when there is no room for one more.
const MANY_READERS: usize = 16;

struct Entry {
    key: Key,
    /// The shard whose copy has been read.
    shard: GroupId,
    /// Ascending.
    readers: Readers,
}

impl Entry {
    fn bytes(&self) -> usize {
        ENTRY_BYTES + self.key.len() + self.readers.len() * size_of::<u64>()
    }
}

/// The keys with one hash modulo [`STRIPES`], under a lock of their own.
#[derive(Default)]
struct Stripe {
    entries: HashTable<Entry>,
    /// Keys, each counted once for every reader.
    items: usize,
    bytes: usize,
}

/// See the module's documentation.
pub struct Table {
    stripes: Box<[Mutex<Stripe>]>,
    hasher: foldhash::fast::RandomState,
    keys: AtomicUsize,
    filter: Filter<PLACES>,
}

impl Default for Table {
    fn default() -> Self {
        let hasher = foldhash::fast::RandomState::default();
        let stripes = (0..STRIPES).map(|_| Mutex::new(Stripe::default())).collect();
        Self { stripes, hasher, keys: AtomicUsize::new(0), filter: Filter::default() }
    }
}

/// Keys that were let go, with those to tell.
pub type LetGo = SmallVec<[(Key, Readers); 1]>;

impl Table {
    /// Notes that `reader` has read `key` in a copy of `shard`. `limit`: keys the table may hold; those it lets go
    /// instead come back. `is_there` tells whether a reader has not gone.
    pub fn remember(
        &self,
        (shard, key): (GroupId, &[u8]),
        reader: u64,
        limit: usize,
        is_there: impl Fn(u64) -> bool,
    ) -> LetGo {
        let hash = self.hash(key);
        let mut guard = self.stripe(hash).lock();
        let stripe = &mut *guard;
        match stripe.entries.find_mut(hash, |entry| *entry.key == *key) {
            Some(entry) => {
                let Err(mut at) = entry.readers.binary_search(&reader) else { return LetGo::new() };
                let (bytes, count) = (entry.bytes(), entry.readers.len());
                if count >= MANY_READERS && count == entry.readers.capacity() {
                    // A key that nobody changes is read by connections that come and go.
                    entry.readers.retain(|other| is_there(*other));
                    at = entry.readers.partition_point(|other| *other < reader);
                }
                entry.readers.insert(at, reader);
                stripe.items = stripe.items + entry.readers.len() - count;
                stripe.bytes = stripe.bytes + entry.bytes() - bytes;
            }
            None => {
                let entry =
                    Entry { key: Key::from_slice(key), shard, readers: Readers::from_slice(&[reader]) };
                stripe.items += 1;
                stripe.bytes += entry.bytes();
                stripe.entries.insert_unique(hash, entry, |entry| self.hash(&entry.key));
                self.keys.fetch_add(1, Relaxed);
                self.filter.enter(filtered(hash));
            }
        }
        self.let_go(stripe, key, limit)
    }

    /// Lets keys of a stripe go, but this one, while there are more than the limits allow.
    fn let_go(&self, stripe: &mut Stripe, but: &[u8], limit: usize) -> LetGo {
        let most_bytes = (limit.saturating_mul(BYTES_A_KEY) / STRIPES).max(BYTES_A_KEY);
        let mut gone = LetGo::new();
        while gone.len() < LET_GO_AT_ONCE && (self.len() > limit || stripe.bytes > most_bytes) {
            let other = stripe.entries.iter().find(|entry| *entry.key != *but);
            let Some(other) = other.map(|entry| entry.key.clone()) else { break };
            let Some(entry) = self.remove(stripe, self.hash(&other), &other) else { break };
            gone.push((entry.key, entry.readers));
        }
        gone
    }

    fn remove(&self, stripe: &mut Stripe, hash: u64, key: &[u8]) -> Option<Entry> {
        let (entry, _) = stripe.entries.find_entry(hash, |entry| *entry.key == *key).ok()?.remove();
        stripe.items -= entry.readers.len();
        stripe.bytes -= entry.bytes();
        self.keys.fetch_sub(1, Relaxed);
        self.filter.leave(filtered(hash));
        Some(entry)
    }

    /// Whether anybody may have read the key, asked under the lock of its slot; no lock is taken here.
    #[inline]
    pub fn may_hold(&self, key: &[u8]) -> bool {
        !self.is_empty() && self.filter.may_hold(filtered(self.hash(key)))
    }

    /// Starts fetching what [`Table::may_hold`] looks at.
    #[inline]
    pub fn prefetch(&self, key: &[u8]) {
        if !self.is_empty() {
            self.filter.prefetch(filtered(self.hash(key)));
        }
    }

    /// Takes a key's readers out: they are to be told.
    pub fn take(&self, key: &[u8]) -> Option<Readers> {
        let hash = self.hash(key);
        if self.is_empty() || !self.filter.may_hold(filtered(hash)) {
            return None;
        }
        self.remove(&mut self.stripe(hash).lock(), hash, key).map(|entry| entry.readers)
    }

    /// Takes out the keys that are meant, with their readers, who are to be told by `tell`.
    pub fn take_all(&self, is_meant: impl Fn(GroupId, &[u8]) -> bool, mut tell: impl FnMut(&[u8], &[u64])) {
        for stripe in &self.stripes {
            // Told behind the lock: whoever is told may be looked up under another one.
            let taken: Vec<_> = {
                let mut guard = stripe.lock();
                let stripe = &mut *guard;
                let taken: Vec<_> =
                    stripe.entries.extract_if(|entry| is_meant(entry.shard, &entry.key)).collect();
                stripe.items -= taken.iter().map(|entry| entry.readers.len()).sum::<usize>();
                stripe.bytes -= taken.iter().map(Entry::bytes).sum::<usize>();
                self.keys.fetch_sub(taken.len(), Relaxed);
                taken.iter().for_each(|entry| self.filter.leave(filtered(self.hash(&entry.key))));
                taken
            };
            taken.iter().for_each(|entry| tell(&entry.key, &entry.readers));
        }
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.keys.load(Relaxed)
    }

    /// Whether no key is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of keys, each counted once for every reader.
    pub fn items(&self) -> usize {
        self.stripes.iter().map(|stripe| stripe.lock().items).sum()
    }

    fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    /// Chosen by other bits than the place in its table.
    fn stripe(&self, hash: u64) -> &Mutex<Stripe> {
        &self.stripes[(hash >> 32) as usize % STRIPES]
    }
}

/// The bits of a hash by which the filter finds its place: other ones than the tables'.
fn filtered(hash: u64) -> u64 {
    hash >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: GroupId = GroupId(1);

    fn remember(table: &Table, reader: u64, key: &str, limit: usize) -> Vec<(Key, Readers)> {
        table.remember((SHARD, key.as_bytes()), reader, limit, |_| true).into_vec()
    }

    /// The totals, counted anew.
    fn counted(table: &Table) -> (usize, usize, usize) {
        let mut totals = (0, 0, 0);
        for stripe in &table.stripes {
            for entry in &stripe.lock().entries {
                totals.0 += 1;
                totals.1 += entry.readers.len();
                totals.2 += entry.bytes();
            }
        }
        totals
    }

    fn bytes(table: &Table) -> usize {
        table.stripes.iter().map(|stripe| stripe.lock().bytes).sum()
    }

    fn totals(table: &Table) -> (usize, usize, usize) {
        (table.len(), table.items(), bytes(table))
    }

    #[test]
    fn a_change_is_told_once_to_each_reader() {
        let table = Table::default();
        for reader in [1, 2, 1] {
            remember(&table, reader, "k", 10);
        }
        assert_eq!((table.len(), table.items()), (1, 2));
        assert_eq!(table.take(b"k").as_deref(), Some(&[1, 2][..]));
        assert_eq!(table.take(b"k"), None);
        assert_eq!(totals(&table), (0, 0, 0));
    }

    #[test]
    fn only_keys_that_are_there_may_be_there() {
        let table = Table::default();
        (0..1_000).for_each(|n| drop(remember(&table, 7, &format!("key:{n}"), 10_000)));
        assert!((0..1_000).all(|n| table.may_hold(format!("key:{n}").as_bytes())));
        let others = (0..10_000).filter(|n| table.may_hold(format!("other:{n}").as_bytes())).count();
        assert!(others < 50, "{others}");
        (0..500).for_each(|n| drop(table.take(format!("key:{n}").as_bytes())));
        table.take_all(|_, _| true, |_, _| {});
        assert!((0..1_000).all(|n| !table.may_hold(format!("key:{n}").as_bytes())));
        remember(&table, 7, "another", 10_000);
        assert_eq!((0..1_000).filter(|n| table.may_hold(format!("key:{n}").as_bytes())).count(), 0);
    }

    #[test]
    fn beyond_the_limit_another_key_is_let_go_and_its_readers_told() {
        let table = Table::default();
        let mut told = 0;
        for n in 0..10_000 {
            for (key, readers) in remember(&table, 7, &format!("key:{n}"), 1_000) {
                assert_ne!(*key, *format!("key:{n}").as_bytes());
                assert_eq!(readers.as_slice(), [7]);
                told += 1;
            }
        }
        assert_eq!(table.len() + told, 10_000);
        assert!(table.len() <= 1_000 + STRIPES);
        assert_eq!(totals(&table), counted(&table));
    }

    #[test]
    fn a_limit_that_was_lowered_is_reached() {
        let table = Table::default();
        (0..10_000).for_each(|n| drop(remember(&table, 7, &format!("key:{n}"), 10_000)));
        (0..10_000).for_each(|n| drop(remember(&table, 7, &format!("other:{n}"), 1_000)));
        assert!(table.len() <= 1_000 + STRIPES, "{}", table.len());
    }

    #[test]
    fn long_keys_and_many_readers_count_for_more() {
        let table = Table::default();
        let long = "x".repeat(100_000);
        (0..1_000).for_each(|n| drop(remember(&table, 7, &format!("{long}{n}"), 10_000)));
        assert!(bytes(&table) <= STRIPES * 2 * 100_100, "{}", bytes(&table));
        let table = Table::default();
        for reader in 0..500 {
            (0..1_000).for_each(|n| drop(remember(&table, reader, &format!("key:{n}"), 1_000)));
        }
        assert!(table.items() * 8 <= 1_000 * BYTES_A_KEY + STRIPES * 16_000, "{}", table.items());
        assert_eq!(totals(&table), counted(&table));
    }

    #[test]
    fn readers_who_have_gone_do_not_pile_up_at_a_key_that_never_changes() {
        let table = Table::default();
        for reader in 0..100_000 {
            table.remember((SHARD, b"k"), reader, 10, |other| other + 5 > reader);
        }
        assert!(table.items() < 100, "{}", table.items());
        assert_eq!(totals(&table), counted(&table));
        assert!(table.take(b"k").is_some_and(|readers| readers.ends_with(&[99_998, 99_999])));
    }

    #[test]
    fn keys_that_are_meant_are_taken_with_their_readers() {
        let table = Table::default();
        table.remember((GroupId(1), b"a"), 1, 10, |_| true);
        table.remember((GroupId(2), b"b"), 1, 10, |_| true);
        table.remember((GroupId(2), b"b"), 2, 10, |_| true);
        let mut told = Vec::new();
        table.take_all(
            |shard, _| shard == GroupId(2),
            |key, readers| told.push((key.to_vec(), readers.to_vec())),
        );
        assert_eq!(told, [(b"b".to_vec(), vec![1, 2])]);
        assert_eq!(table.len(), 1);
        assert_eq!(totals(&table), counted(&table));
    }
}
