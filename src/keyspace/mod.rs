//! The keys of one shard on one node: 16384 slots, each a small hash table of [`record::Record`]s behind a lock of
//! its own.
//!
//! A slot is the unit of everything that follows from the cluster: a multi-key command lives in one slot, so one
//! lock makes it atomic; COUNTKEYSINSLOT, migration and snapshots walk slots; a table that grows rehashes a
//! sixteen-thousandth of the keys, so there is no pause. [`locked::Locked`] is the only door: it holds the locks of
//! the slots a request names, is what a command's function receives, and writes down an [`effect::Effect`] for
//! every key it changes.
//!
//! Deliberately absent: clocks (the caller brings the time), commands, shards and Raft, tracking, sockets.

pub mod ahead;
pub mod cut;
pub mod discard;
pub mod edit;
pub mod effect;
pub mod event;
pub mod eviction;
pub mod expiry;
pub mod hash;
pub mod hint;
mod item;
pub mod locked;
pub mod record;
pub mod slot;
pub mod snapshot;
pub mod territory;
pub mod totals;
pub mod value;
pub mod walk;

use std::hash::BuildHasher;
use std::sync::atomic::AtomicU32;

use parking_lot::{Mutex, MutexGuard};
use slotcast_wire::slot::SLOTS;

use crate::keyspace::ahead::Ahead;
use crate::keyspace::discard::discard;
use crate::keyspace::hint::Hint;
use crate::keyspace::record::Record;
use crate::keyspace::slot::Slot;
use crate::keyspace::totals::{Totals, Usage};

/// A slot's lock and what may be known of it without; one cache line.
#[derive(Default)]
#[repr(align(64))]
struct Guarded {
    slot: Mutex<Slot>,
    hint: Hint,
}

const _: () = assert!(size_of::<Guarded>() == 64);

/// The keys of one shard on one node.
pub struct Keyspace {
    slots: Box<[Guarded]>,
    hasher: foldhash::fast::RandomState,
    /// How many cuts were made; see `cut`.
    cuts: AtomicU32,
    cut: Mutex<Option<Box<Ahead>>>,
    pub(crate) totals: Totals,
}

impl Default for Keyspace {
    fn default() -> Self {
        Self::new()
    }
}

impl Keyspace {
    /// An empty keyspace. Its hash seed is drawn at random, against crafted collisions; nothing that replicas must
    /// agree on depends on it.
    pub fn new() -> Self {
        Self::with_hasher(foldhash::fast::RandomState::default())
    }

    fn with_hasher(hasher: foldhash::fast::RandomState) -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Guarded::default()).collect(),
            hasher,
            cuts: AtomicU32::new(0),
            cut: Mutex::default(),
            totals: Totals::default(),
        }
    }

    /// An empty keyspace that can take this one's place.
    pub fn successor(&self) -> Self {
        Self::with_hasher(self.hasher.clone())
    }

    /// Takes over what a [`Keyspace::successor`] holds. Readers see slot after slot change; nobody else may write
    /// meanwhile. What was here before is freed elsewhere.
    pub fn succeed_by(&self, successor: Keyspace) {
        self.lose_cut();
        let (before, after) = (self.usage(), successor.usage());
        for (here, there) in self.slots.iter().zip(&successor.slots) {
            std::mem::swap(&mut *here.slot.lock(), &mut *there.slot.lock());
            here.hint.swap(&there.hint);
        }
        self.totals.add(Usage {
            keys: after.keys - before.keys,
            bytes: after.bytes - before.bytes,
            volatile: after.volatile - before.volatile,
        });
        discard(successor);
    }

    /// What the keys take, all slots together.
    pub fn usage(&self) -> Usage {
        self.totals.sum()
    }

    /// How many keys a slot holds (those past their deadline but not yet removed included, as in Redis).
    pub fn slot_len(&self, slot: u16) -> usize {
        self.lock(slot).len()
    }

    /// Puts a record of a snapshot into its slot as it is, version included.
    pub(crate) fn restore(&self, number: u16, record: Record) {
        let (bytes, volatile) = (record.memory() as i64, record.expires_at().is_some() as i64);
        let mut slot = self.lock(number);
        let before = slot.table_memory() as i64;
        let replaced = slot.insert(self.hash(record.key()), record, |key| self.hash(key));
        let table = slot.table_memory() as i64 - before;
        self.follow(number, &slot, table);
        let old = replaced.map_or(Usage::default(), |old| Usage {
            keys: 1,
            bytes: old.memory() as i64,
            volatile: old.expires_at().is_some() as i64,
        });
        self.totals.add(Usage {
            keys: 1 - old.keys,
            bytes: bytes + table - old.bytes,
            volatile: volatile - old.volatile,
        });
    }

    /// Keeps the hint beside a slot right when its table's memory has changed by `table`.
    #[inline]
    pub(crate) fn follow(&self, number: u16, slot: &Slot, table: i64) {
        if table != 0 {
            self.slots[number as usize % SLOTS].hint.follow(slot);
        }
    }

    pub(crate) fn lock(&self, slot: u16) -> MutexGuard<'_, Slot> {
        self.slots[slot as usize % SLOTS].slot.lock()
    }

    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    /// First of three steps of a prefetch, to be done for a batch of keys each: the slot.
    #[inline]
    pub fn prefetch_slot(&self, slot: u16) {
        crate::keyspace::record::prefetch(&raw const self.slots[slot as usize % SLOTS] as *const u8);
    }

    /// Second: the place in the slot's table. Returns the key's hash.
    #[inline]
    pub fn prefetch_bucket(&self, slot: u16, key: &[u8]) -> u64 {
        let hash = self.hash(key);
        self.slots[slot as usize % SLOTS].hint.prefetch(hash);
        hash
    }

    /// Third: the record.
    #[inline]
    pub fn prefetch_record(&self, slot: u16, hash: u64) {
        if let Some(guard) = self.slots[slot as usize % SLOTS].slot.try_lock() {
            guard.prefetch(hash);
        }
    }
}
