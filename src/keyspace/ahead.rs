//! What a running cut writes ahead of its walk, and what it must know to write each record once.
//!
//! It doesn't know which slots are still to be written, nor who pulls: `cut` does.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;

use hashbrown::HashTable;
use hashbrown::hash_table::IntoIter;

use crate::keyspace::discard::discard;
use crate::keyspace::item::{put_record, put_slot};
use crate::keyspace::record::Record;
use crate::keyspace::slot::Slot;

/// The versions of a slot, as [`Slot::versions`] gives them.
type Versions = (u32, u32);

/// Why a cut came to no end. Another can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost(pub &'static str);

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// How much at a time, and how much at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Bytes written in one slice, about; one slot, or one value, may be longer.
    pub slice: usize,
    /// Bytes held back; more end the cut.
    pub held: usize,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Ahead {
    limits: Limits,
    /// The versions at the cut of slots that have changed since and are not written.
    changed: HashMap<u16, Versions>,
    /// Records written ahead, in blocks of about a slice.
    blocks: VecDeque<Vec<u8>>,
    /// Their bytes.
    held: usize,
    /// Flushed tables: no more memory than they took before, so nothing limits them.
    flushed: Vec<Flushed>,
    /// Keys written ahead of a change that then did not come.
    unchanged: HashSet<Box<[u8]>>,
    lost: Option<Lost>,
}

/// A table taken out of its slot.
struct Flushed {
    number: u16,
    versions: Versions,
    records: IntoIter<Record>,
}

impl Ahead {
    /// Nothing yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Why the cut cannot be finished.
    pub fn lost(&self) -> Option<Lost> {
        self.lost
    }

    /// Ends the cut and frees what was held for it.
    pub fn lose(&mut self, lost: Lost) {
        let lost = Some(self.lost.unwrap_or(lost));
        discard(std::mem::replace(self, Self { lost, ..Self::default() }));
    }

    /// Moves what was written ahead to `out`, which is empty; about a slice of it.
    pub fn drain(&mut self, out: &mut Vec<u8>) {
        if let Some(block) = self.blocks.pop_front() {
            self.held -= block.len();
            *out = block;
        }
        while let Some(flushed) = self.flushed.last_mut().filter(|_| out.len() < self.limits.slice) {
            put_slot(flushed.number, flushed.versions, out);
            for record in flushed.records.by_ref() {
                if is_due(&mut self.unchanged, flushed.versions, &record) {
                    put_record(&record, out);
                }
                if out.len() >= self.limits.slice {
                    return;
                }
            }
            self.flushed.pop();
        }
    }

    /// Writes a slot as it was at the cut, without what has been written ahead.
    pub fn write_slot(&mut self, number: u16, slot: &Slot, out: &mut Vec<u8>) {
        let versions = self.changed.remove(&number).unwrap_or(slot.versions());
        if versions == (0, 0) {
            return; // Nothing had ever happened to it.
        }
        put_slot(number, versions, out);
        for record in slot.iter() {
            if is_due(&mut self.unchanged, versions, record) {
                put_record(record, out);
            }
        }
    }

    /// Writes a whole slot ahead.
    pub fn write_slot_ahead(&mut self, number: u16, slot: &Slot) {
        self.write(|this, out| this.write_slot(number, slot, out));
    }

    /// Notes that a slot is about to change, and writes a record of it ahead, unless that has been done or it is newer
    /// than the cut.
    pub fn write_record_ahead(&mut self, number: u16, slot: &Slot, record: Option<&Record>) {
        let versions = *self.changed.entry(number).or_insert(slot.versions());
        if let Some(record) = record
            && record.version() <= versions.0
            && !self.unchanged.contains(record.key())
        {
            self.write(|_, out| {
                put_slot(number, versions, out);
                put_record(record, out);
            });
        }
    }

    /// The change that a record was written ahead of did not come.
    pub fn not_changed(&mut self, key: &[u8]) {
        self.unchanged.insert(key.into());
    }

    /// Keeps a table taken out of its slot, until it is written; `versions`: the slot's before.
    pub fn keep(&mut self, number: u16, versions: Versions, table: HashTable<Record>) {
        let versions = self.changed.remove(&number).unwrap_or(versions);
        if versions != (0, 0) {
            self.flushed.push(Flushed { number, versions, records: table.into_iter() });
        }
    }

    /// Appends to the last block what `f` writes.
    fn write(&mut self, f: impl FnOnce(&mut Self, &mut Vec<u8>)) {
        let mut block = match self.blocks.pop_back() {
            Some(block) if block.len() < self.limits.slice => block,
            full => {
                self.blocks.extend(full);
                Vec::with_capacity(self.limits.slice)
            }
        };
        let before = block.len();
        f(self, &mut block);
        self.held += block.len() - before;
        self.blocks.push_back(block);
        if self.held > self.limits.held {
            self.lose(Lost("too much changed before it was taken"));
        }
    }
}

/// Whether a record belongs to a cut at these versions and has not been written ahead.
fn is_due(unchanged: &mut HashSet<Box<[u8]>>, (version, _): Versions, record: &Record) -> bool {
    record.version() <= version && (unchanged.is_empty() || !unchanged.remove(record.key()))
}
