//! The broadcast mode's table: prefix to the connections that are told of all keys that begin with it.
//!
//! Many connections share few prefixes, so it is kept by prefix, and a key is looked up once for each length that
//! prefixes have. It holds only what connections have named, which the session bounds.
//!
//! Its [`Outline`] is asked first, without a lock: most keys have none of the prefixes.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hashbrown::HashMap;

use crate::tracking::filter::Filter;

/// Of the outline's filter, in bytes.
const PLACES: usize = 16 << 10;

/// Whether a key may have one of the prefixes. Orders nothing, as [`Filter`].
#[derive(Default)]
pub struct Outline {
    /// Up to eight lengths that prefixes have, each one more in a byte; all ones: there are others.
    lengths: AtomicU64,
    prefixes: Filter<PLACES>,
    hasher: foldhash::fast::RandomState,
}

impl Outline {
    /// Whether it may.
    #[inline]
    pub fn may_match(&self, key: &[u8]) -> bool {
        let mut lengths = self.lengths.load(Relaxed);
        if lengths == u64::MAX {
            return true;
        }
        while lengths != 0 {
            let prefix = key.get(..(lengths & 0xff) as usize - 1);
            if prefix.is_some_and(|prefix| self.prefixes.may_hold(self.hasher.hash_one(prefix))) {
                return true;
            }
            lengths >>= 8;
        }
        false
    }

    fn draw_lengths<'a>(&self, lengths: impl Iterator<Item = &'a usize>) {
        let mut drawn = 0;
        for (n, length) in lengths.enumerate() {
            if n >= 8 || *length >= 0xfe {
                drawn = u64::MAX;
                break;
            }
            drawn |= (*length as u64 + 1) << (n * 8);
        }
        self.lengths.store(drawn, Relaxed);
    }
}

/// See the module's documentation. `M`: a member, under its connection's id.
pub struct Prefixes<M> {
    members: HashMap<Box<[u8]>, BTreeMap<u64, M>, foldhash::fast::RandomState>,
    /// How many prefixes have this length.
    lengths: BTreeMap<usize, usize>,
    outline: Arc<Outline>,
}

impl<M> Default for Prefixes<M> {
    fn default() -> Self {
        Self { members: HashMap::default(), lengths: BTreeMap::new(), outline: Arc::default() }
    }
}

impl<M> Prefixes<M> {
    /// From now on the member is told of keys that begin with `prefix`.
    pub fn join(&mut self, prefix: &[u8], id: u64, member: M) {
        let (lengths, outline) = (&mut self.lengths, &self.outline);
        let members = self.members.entry_ref(prefix).or_insert_with(|| {
            *lengths.entry(prefix.len()).or_insert(0) += 1;
            outline.prefixes.enter(outline.hasher.hash_one(prefix));
            outline.draw_lengths(lengths.keys());
            BTreeMap::new()
        });
        members.insert(id, member);
    }

    /// It no longer is.
    pub fn leave(&mut self, prefix: &[u8], id: u64) {
        let Some(members) = self.members.get_mut(prefix) else { return };
        members.remove(&id);
        if !members.is_empty() {
            return;
        }
        self.members.remove(prefix);
        self.outline.prefixes.leave(self.outline.hasher.hash_one(prefix));
        if let Some(count) = self.lengths.get_mut(&prefix.len()) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&prefix.len());
            }
        }
        self.outline.draw_lengths(self.lengths.keys());
    }

    /// What can be asked without a lock.
    pub fn outline(&self) -> &Arc<Outline> {
        &self.outline
    }

    /// The members to tell of a key, with the prefix they have named. One that has named two of the key's comes twice.
    pub fn of<'a>(&'a self, key: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a M)> {
        let prefixes = self.lengths.keys().map_while(|length| key.get(..*length));
        let members = prefixes.filter_map(|prefix| Some((prefix, self.members.get(prefix)?)));
        members.flat_map(|(prefix, members)| members.values().map(move |member| (prefix, member)))
    }

    /// Number of prefixes.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is told of anything.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_finds_all_whose_prefix_it_has() {
        let mut prefixes = Prefixes::default();
        for (prefix, id) in [("", 1), ("user:", 2), ("user:1", 3), ("user:", 4), ("cart:", 5)] {
            prefixes.join(prefix.as_bytes(), id, id);
        }
        let told = |key: &str| prefixes.of(key.as_bytes()).map(|(_, id)| *id).collect::<Vec<_>>();
        assert_eq!(told("user:17"), [1, 2, 4, 3]);
        assert_eq!(told("user:2"), [1, 2, 4]);
        assert_eq!(told("us"), [1]);
        assert_eq!(told(""), [1]);
        assert!(prefixes.outline().may_match(b"us") && prefixes.outline().may_match(b""));
    }

    #[test]
    fn nothing_is_left_of_those_who_have_left() {
        let mut prefixes = Prefixes::default();
        prefixes.join(b"a", 1, 1);
        prefixes.join(b"a", 2, 2);
        prefixes.join(b"b", 1, 1);
        assert_eq!(prefixes.len(), 2);
        for (prefix, id) in [("a", 1), ("b", 1), ("b", 1), ("none", 9)] {
            prefixes.leave(prefix.as_bytes(), id);
        }
        assert_eq!(prefixes.of(b"abc").collect::<Vec<_>>(), [(&b"a"[..], &2)]);
        let may_match =
            |prefixes: &Prefixes<u64>| [b"abc", b"bcd"].map(|key| prefixes.outline().may_match(key));
        assert_eq!(may_match(&prefixes), [true, false]);
        prefixes.leave(b"a", 2);
        assert!(prefixes.is_empty() && prefixes.lengths.is_empty());
        assert_eq!(may_match(&prefixes), [false, false]);
    }

    #[test]
    fn the_outline_of_many_or_long_prefixes_is_a_blank() {
        let long = "x".repeat(300);
        for named in [(1..=9).collect::<Vec<_>>(), vec![300]] {
            let mut prefixes = Prefixes::default();
            named.iter().for_each(|length| prefixes.join(&long.as_bytes()[..*length], 1, 1));
            assert!(prefixes.outline().may_match(b"other"));
            named.iter().for_each(|length| prefixes.leave(&long.as_bytes()[..*length], 1));
            assert!(!prefixes.outline().may_match(b"other"));
        }
    }
}
