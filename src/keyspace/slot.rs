//! One slot: a hash table of records, and the versions that WATCH compares.
//!
//! Every change of a key takes the slot's next version; a record carries the version of its last change, the slot
//! the version of its last removal. So two equal stamps of a key mean that nothing happened to it in between, at a
//! cost of four bytes a key. Versions are part of the replicated state. A slot doesn't know its number.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::keyspace::record::{Record, prefetch_record};

/// The records of one hash slot.
#[derive(Default)]
pub struct Slot {
    table: HashTable<Record>,
    version: u32,
    removed: u32,
}

/// What a key's state was: equal stamps, unchanged key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stamp {
    /// Present since this version.
    Present(u32),
    /// Absent, and the slot's last removal had this version.
    Absent(u32),
}

impl Slot {
    /// Number of records.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether it holds no record.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Finds a record.
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<&Record> {
        self.table.find(hash, |record| record.key() == key)
    }

    /// Finds a record to change it.
    pub fn find_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut Record> {
        self.table.find_mut(hash, |record| record.key() == key)
    }

    /// Puts a record in, returning the one it replaces. The caller has stamped it with [`Slot::next_version`].
    pub fn insert(&mut self, hash: u64, record: Record, rehash: impl Fn(&[u8]) -> u64) -> Option<Record> {
        match self.table.entry(hash, |other| other.key() == record.key(), |other| rehash(other.key())) {
            Entry::Occupied(mut found) => Some(std::mem::replace(found.get_mut(), record)),
            Entry::Vacant(free) => {
                free.insert(record);
                None
            }
        }
    }

    /// Takes a record out.
    pub fn remove(&mut self, hash: u64, key: &[u8], rehash: impl Fn(&[u8]) -> u64) -> Option<Record> {
        let found = self.table.find_entry(hash, |record| record.key() == key).ok()?;
        let (record, _) = found.remove();
        self.removed = self.next_version();
        self.shrink(rehash);
        Some(record)
    }

    /// Takes all records out, as they are: before the version of their removal is taken, which may renumber records.
    pub fn clear(&mut self) -> HashTable<Record> {
        let table = std::mem::take(&mut self.table);
        if !table.is_empty() {
            self.removed = self.next_version();
        }
        table
    }

    /// All records, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        self.table.iter()
    }

    /// The records from a random place of the table to its end, then from its start.
    pub fn from_random(&self, random: u64) -> impl Iterator<Item = &Record> {
        let buckets = self.table.num_buckets();
        let first = random as usize % buckets.max(1);
        (first..buckets).chain(0..first).filter_map(|bucket| self.table.get_bucket(bucket))
    }

    /// The version for a change that happens now.
    pub fn next_version(&mut self) -> u32 {
        if self.version == u32::MAX {
            self.renumber();
        }
        self.version += 1;
        self.version
    }

    /// Counts from the beginning again after 2^32 changes, so that no record is ever newer than its slot. A WATCH would
    /// have to stay open over all of them to be fooled.
    #[cold]
    fn renumber(&mut self) {
        self.table.iter_mut().for_each(|record| record.set_version(1));
        (self.version, self.removed) = (1, 1);
    }

    /// Whether one of the next few changes will renumber all records.
    pub fn renumbers_soon(&self) -> bool {
        self.version >= u32::MAX - 16
    }

    /// The state of a key, to compare later. `record` is what `find` returned, without records past their deadline.
    pub fn stamp(&self, record: Option<&Record>) -> Stamp {
        record.map_or(Stamp::Absent(self.removed), |record| Stamp::Present(record.version()))
    }

    /// The slot's counters, for a snapshot.
    pub fn versions(&self) -> (u32, u32) {
        (self.version, self.removed)
    }

    /// Takes over the counters of a snapshot, after its records went in.
    pub fn set_versions(&mut self, (version, removed): (u32, u32)) {
        (self.version, self.removed) = (version, removed);
    }

    /// Bytes of the table itself.
    pub fn table_memory(&self) -> usize {
        self.table.allocation_size()
    }

    /// Number of buckets of the table.
    pub fn buckets(&self) -> usize {
        self.table.num_buckets()
    }

    /// The index and the address of the first bucket in use.
    pub fn first_bucket(&self) -> Option<(usize, usize)> {
        let first = (0..self.table.num_buckets())
            .find_map(|bucket| Some((bucket, self.table.get_bucket(bucket)?)))?;
        Some((first.0, std::ptr::from_ref(first.1).addr()))
    }

    /// Starts fetching the record that a hash most likely leads to.
    pub fn prefetch(&self, hash: u64) {
        if let Some(record) = self.table.find(hash, |_| true) {
            prefetch_record(record);
        }
    }

    /// Gives memory back after mass removals; the factor of eight keeps it from thrashing.
    fn shrink(&mut self, rehash: impl Fn(&[u8]) -> u64) {
        if self.table.capacity() > 16 && self.table.len() * 8 < self.table.capacity() {
            self.table.shrink_to(self.table.len() * 2, |record| rehash(record.key()));
        }
    }
}
