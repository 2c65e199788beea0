//! The default mode's table: key to the connections that have read it since its last change.
//!
//! One notice a key: a key that changes leaves the table, and the connection has to read it again to be told again
//! (as Redis defines it). A connection that has gone is not searched for: its id means nothing any more and goes
//! with the key. Beyond its limit the table lets a key go and tells its readers, as if it had changed.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use hashbrown::HashMap;
use parking_lot::Mutex;
use smallvec::SmallVec;

/// The readers of a key.
pub type Readers = SmallVec<[u64; 2]>;

const STRIPES: usize = 256;

type Stripe = HashMap<Box<[u8]>, Readers, foldhash::fast::RandomState>;

/// See the module's documentation.
pub struct Table {
    stripes: Box<[Mutex<Stripe>]>,
    hasher: foldhash::fast::RandomState,
    keys: AtomicUsize,
}

impl Default for Table {
    fn default() -> Self {
        let hasher = foldhash::fast::RandomState::default();
        let stripes = (0..STRIPES).map(|_| Mutex::new(Stripe::default())).collect();
        Self { stripes, hasher, keys: AtomicUsize::new(0) }
    }
}

impl Table {
    /// Notes that `reader` has read `key`. If there are more than `limit` keys then, some other key is let go and
    /// returned: its readers are to be told.
    pub fn remember(&self, reader: u64, key: &[u8], limit: usize) -> Option<(Box<[u8]>, Readers)> {
        let mut stripe = self.stripe(key).lock();
        if let Some(readers) = stripe.get_mut(key) {
            if !readers.contains(&reader) {
                readers.push(reader);
            }
            return None;
        }
        stripe.insert(key.into(), SmallVec::from_slice(&[reader]));
        if self.keys.fetch_add(1, Relaxed) < limit {
            return None;
        }
        let other = stripe.keys().find(|other| ***other != *key).cloned()?;
        self.keys.fetch_sub(1, Relaxed);
        stripe.remove_entry(&other)
    }

    /// Takes a key's readers out: they are to be told.
    pub fn take(&self, key: &[u8]) -> Option<Readers> {
        if self.is_empty() {
            return None;
        }
        let readers = self.stripe(key).lock().remove(key)?;
        self.keys.fetch_sub(1, Relaxed);
        Some(readers)
    }

    /// Forgets everything: everybody is to be told.
    pub fn clear(&self) {
        for stripe in &self.stripes {
            let gone = std::mem::take(&mut *stripe.lock());
            self.keys.fetch_sub(gone.len(), Relaxed);
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

    fn stripe(&self, key: &[u8]) -> &Mutex<Stripe> {
        &self.stripes[self.hasher.hash_one(key) as usize % STRIPES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once_to_each_reader() {
        let table = Table::default();
        table.remember(1, b"k", 10);
        table.remember(2, b"k", 10);
        table.remember(1, b"k", 10);
        assert_eq!(table.take(b"k").as_deref(), Some(&[1, 2][..]));
        assert_eq!(table.take(b"k"), None);
    }

    #[test]
    fn beyond_the_limit_another_key_is_let_go_and_its_readers_told() {
        let table = Table::default();
        let mut told = 0;
        for n in 0..10_000 {
            if let Some((key, readers)) = table.remember(7, format!("key:{n}").as_bytes(), 1_000) {
                assert_ne!(*key, *format!("key:{n}").as_bytes());
                assert_eq!(readers.as_slice(), [7]);
                told += 1;
            }
        }
        assert_eq!(table.len() + told, 10_000);
        assert!(table.len() <= 1_000 + STRIPES);
    }

    #[test]
    fn clearing_forgets_all() {
        let table = Table::default();
        table.remember(1, b"a", 10);
        table.remember(1, b"b", 10);
        table.clear();
        assert!(table.is_empty());
    }
}
