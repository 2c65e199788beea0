//! Changing keys: the writing half of the door.
//!
//! Every method leaves the slot's tables, the totals, the record's version and the effects in agreement; that is why
//! nothing else in the crate changes a record.

use smallvec::SmallVec;

use crate::keyspace::effect::{Change, Effect, Key};
use crate::keyspace::hash::Hash;
use crate::keyspace::locked::{Deadline, Held, Locked, WrongType};
use crate::keyspace::record::Record;
use crate::keyspace::slot::Slot;
use crate::keyspace::totals::Usage;
use crate::keyspace::value::{Value, ValueRef};
use crate::time::Millis;

impl Locked<'_> {
    /// Sets a key to a string. A deadline that has passed removes the key.
    pub fn put_bytes(&mut self, key: &[u8], value: &[u8], deadline: Deadline) {
        if matches!(deadline, Deadline::At(at) if at <= self.now()) {
            self.remove(key);
            return;
        }
        let (hash, now) = (self.keyspace().hash(key), self.now());
        let Some((slot_number, slot)) = self.slot_mut(key) else { return };
        let version = slot.next_version();
        let mut kept = None;
        if let Some(record) = slot.find_mut(hash, key) {
            let current = record.expires_at().filter(|deadline| *deadline > now);
            let wanted = wanted(deadline, current);
            // A record past its deadline is replaced too, so `Keep` must not revive the old deadline.
            if wanted == record.expires_at() && record.overwrite(value) {
                record.set_version(version);
                record.touch((now / 1000) as u32);
                self.note(slot_number, key, Change::Set);
                self.events.value_put(key, Some(false), matches!(deadline, Deadline::At(_)));
                return;
            }
            kept = wanted;
        } else if let Deadline::At(at) = deadline {
            kept = Some(at);
        }
        let over = self.insert(Record::inline(key, value, kept), version);
        self.events.value_put(key, over, matches!(deadline, Deadline::At(_)));
    }

    /// Sets a key to a value with an allocation of its own.
    pub fn put(&mut self, key: &[u8], value: Value, deadline: Deadline) {
        let current = self.peek(key).and_then(Record::expires_at);
        let Some((_, slot)) = self.slot_mut(key) else { return };
        let version = slot.next_version();
        let over = self.insert(Record::boxed(key, Box::new(value), wanted(deadline, current)), version);
        self.events.value_put(key, over, matches!(deadline, Deadline::At(_)));
    }

    /// Changes a string in place, creating it first if the key is absent; `f` must not leave it as it was (that would
    /// count as a change).
    pub fn edit_bytes<R>(&mut self, key: &[u8], f: impl FnOnce(&mut Vec<u8>) -> R) -> Result<R, WrongType> {
        match self.find(key).map(Record::value) {
            None => {
                let mut bytes = Vec::new();
                let result = f(&mut bytes);
                self.put(key, Value::Bytes(bytes), Deadline::Never);
                return Ok(result);
            }
            Some(ValueRef::Bytes(_)) => self.give_room(key),
            Some(_) => return Err(WrongType),
        }
        let result = self.edit_if(key, |value| match value {
            Value::Bytes(bytes) => (true, Some(f(bytes))),
            Value::Hash(_) => (false, None),
        });
        result.flatten().ok_or(WrongType)
    }

    /// Gives the string at a key an allocation of its own, if it has none. No change that anybody could see: a replica
    /// that began with a snapshot has the same strings in other places, and must count the same versions.
    fn give_room(&mut self, key: &[u8]) {
        let (keyspace, hash, number) = (self.keyspace(), self.keyspace().hash(key), self.number(key));
        let Some(slot) = self.held_slot_mut(number) else { return };
        let Some(record) = slot.find_mut(hash, key).filter(|record| !record.is_boxed()) else { return };
        let before = record.memory() as i64;
        *record = record.with_room();
        keyspace.totals.add(Usage { bytes: record.memory() as i64 - before, ..Usage::default() });
    }

    /// Changes a hash in place, creating it first if the key is absent; removes the key if nothing is left. `f`
    /// returns whether it changed anything, and its result.
    pub fn edit_hash<R>(
        &mut self,
        key: &[u8],
        f: impl FnOnce(&mut Hash) -> (bool, R),
    ) -> Result<R, WrongType> {
        let Some(record) = self.find(key) else {
            let mut hash = Hash::default();
            let (_, result) = f(&mut hash);
            if !hash.is_empty() {
                self.put(key, Value::Hash(hash), Deadline::Never);
            }
            return Ok(result);
        };
        if !matches!(record.value(), ValueRef::Hash(_)) {
            return Err(WrongType);
        }
        let mut changed = true;
        let result = self.edit_if(key, |value| match value {
            Value::Hash(hash) => {
                let (did, result) = f(hash);
                changed = did;
                (did, Some(result))
            }
            Value::Bytes(_) => (false, None),
        });
        result.flatten().ok_or(WrongType)
    }

    /// Removes a key; whether it was there.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        self.take(key, Change::Removed).is_some()
    }

    /// Removes a key for a reason and returns its record; `None` if it was absent (past its deadline included,
    /// then it is removed as expired).
    pub fn take(&mut self, key: &[u8], change: Change) -> Option<Record> {
        let (record, change) = self.take_out(key, change)?;
        self.events.gone(change, key);
        (change != Change::Expired).then_some(record)
    }

    /// The same, but for the event; returns what the change was.
    fn take_out(&mut self, key: &[u8], change: Change) -> Option<(Record, Change)> {
        let hash = self.keyspace().hash(key);
        let (keyspace, now) = (self.keyspace(), self.now());
        let (slot_number, slot) = self.slot_mut(key)?;
        let before = slot.table_memory();
        let record = slot.remove(hash, key, |key| keyspace.hash(key))?;
        let table = slot.table_memory() as i64 - before as i64;
        keyspace.follow(slot_number, slot, table);
        let deadline = record.expires_at();
        keyspace.totals.add(Usage {
            keys: -1,
            bytes: table - record.memory() as i64,
            volatile: -(deadline.is_some() as i64),
        });
        let lapsed = deadline.is_some_and(|deadline| deadline <= now);
        let change = if lapsed { Change::Expired } else { change };
        self.note(slot_number, key, change);
        Some((record, change))
    }

    /// Removes a key if it is past its deadline; whether it did.
    pub fn expire(&mut self, key: &[u8]) -> bool {
        let (hash, now) = (self.keyspace().hash(key), self.now());
        let record = self.slot(key).and_then(|slot| slot.find(hash, key));
        let lapsed = record.and_then(Record::expires_at).is_some_and(|deadline| deadline <= now);
        if lapsed {
            self.take(key, Change::Expired);
        }
        lapsed
    }

    /// Sets or clears a key's deadline; whether the key was there. A deadline that has passed removes the key.
    pub fn set_deadline(&mut self, key: &[u8], deadline: Option<Millis>) -> bool {
        if self.peek(key).is_none() {
            return false;
        }
        if deadline.is_some_and(|deadline| deadline <= self.now()) {
            return self.remove(key);
        }
        let (keyspace, hash) = (self.keyspace(), self.keyspace().hash(key));
        let Some((slot_number, slot)) = self.slot_mut(key) else { return false };
        let version = slot.next_version();
        let Some(record) = slot.find_mut(hash, key) else { return false };
        let (memory, had) = (record.memory() as i64, record.expires_at().is_some());
        let old = std::mem::replace(record, Record::inline(b"", b"", None));
        *record = old.with_deadline(deadline);
        record.set_version(version);
        keyspace.totals.add(Usage {
            keys: 0,
            bytes: record.memory() as i64 - memory,
            volatile: deadline.is_some() as i64 - had as i64,
        });
        self.note(slot_number, key, Change::Set);
        self.events.dated(key, deadline.is_some());
        true
    }

    /// Moves what a key holds to another, deadline included; whether there was anything.
    pub fn rename(&mut self, from: &[u8], to: &[u8]) -> bool {
        match self.take_out(from, Change::Removed) {
            Some((record, Change::Removed)) => {
                self.put_record(record.under(to));
                self.events.renamed(from, to);
                true
            }
            lapsed => {
                lapsed.into_iter().for_each(|(_, change)| self.events.gone(change, from));
                false
            }
        }
    }

    /// Copies what a key holds to another, deadline included; whether there was anything.
    pub fn copy(&mut self, from: &[u8], to: &[u8]) -> bool {
        let copied = self.find(from).map(|record| record.copy_under(to));
        let copied = copied.map(|record| self.put_record(record)).is_some();
        if copied {
            self.events.copied(to);
        }
        copied
    }

    /// Puts a record under its own key.
    fn put_record(&mut self, record: Record) {
        let key: SmallVec<[u8; 64]> = record.key().into();
        let Some((_, slot)) = self.slot_mut(&key) else { return };
        let version = slot.next_version();
        self.insert(record, version);
    }

    /// Removes every key of the held slots.
    pub fn flush(&mut self) {
        let keyspace = self.keyspace();
        let mut gone = Usage::default();
        let mut clear = |number: u16, slot: &mut Slot| {
            gone.bytes -= slot.table_memory() as i64;
            let (versions, table) = (slot.versions(), slot.clear());
            for record in &table {
                gone.keys -= 1;
                gone.bytes -= record.memory() as i64;
                gone.volatile -= record.expires_at().is_some() as i64;
            }
            keyspace.let_go(number, versions, table);
        };
        match &mut self.held {
            Held::Nothing => {}
            Held::One(number, slot) => clear(*number, slot),
            Held::Many(slots) => slots.iter_mut().for_each(|(number, slot)| clear(*number, slot)),
        }
        keyspace.totals.add(gone);
        self.effects.push(Effect::Flushed);
    }

    /// Runs `f` on a live, boxed value; if it says so, stamps, accounts and notes the change.
    fn edit_if<R>(&mut self, key: &[u8], f: impl FnOnce(&mut Value) -> (bool, R)) -> Option<R> {
        let (keyspace, hash, seconds) = (self.keyspace(), self.keyspace().hash(key), self.seconds());
        let (slot_number, slot) = self.slot_mut(key)?;
        let version = slot.next_version();
        let record = slot.find_mut(hash, key)?;
        let before = record.memory() as i64;
        let value = record.boxed_mut()?;
        let (changed, result) = f(value);
        let spent = value.is_spent();
        if changed {
            record.set_version(version);
            record.touch(seconds);
            let bytes = record.memory() as i64 - before;
            keyspace.totals.add(Usage { bytes, ..Usage::default() });
            self.events.value_changed(key);
            if spent {
                self.remove(key);
            } else {
                self.note(slot_number, key, Change::Set);
            }
        } else if keyspace.is_uncut(slot_number) {
            keyspace.not_changed(key);
        }
        Some(result)
    }

    /// Puts a record in; if it replaces one, whether that one's time had come.
    fn insert(&mut self, mut record: Record, version: u32) -> Option<bool> {
        let (keyspace, seconds, now) = (self.keyspace(), self.seconds(), self.now());
        record.set_version(version);
        record.touch(seconds);
        let hash = keyspace.hash(record.key());
        let noted = self.audience.cares_for(record.key()).then(|| Key::from_slice(record.key()));
        let (memory, volatile) = (record.memory() as i64, record.expires_at().is_some() as i64);
        let at = self.number(record.key());
        let slot = self.held_slot_mut(at)?;
        let before = slot.table_memory() as i64;
        let replaced = slot.insert(hash, record, |key| keyspace.hash(key));
        let table = slot.table_memory() as i64 - before;
        keyspace.follow(at, slot, table);
        let old = replaced.as_ref().map_or(Usage::default(), |old| Usage {
            keys: 1,
            bytes: old.memory() as i64,
            volatile: old.expires_at().is_some() as i64,
        });
        keyspace.totals.add(Usage {
            keys: 1 - old.keys,
            bytes: table + memory - old.bytes,
            volatile: volatile - old.volatile,
        });
        if let Some(key) = noted {
            self.effects.push(Effect::Key { slot: at, key, change: Change::Set });
        }
        replaced.map(|old| old.expires_at().is_some_and(|deadline| deadline <= now))
    }

    fn note(&mut self, slot: u16, key: &[u8], change: Change) {
        if self.audience.cares_for(key) {
            self.effects.push(Effect::Key { slot, key: Key::from_slice(key), change });
        }
    }
}

fn wanted(deadline: Deadline, current: Option<Millis>) -> Option<Millis> {
    match deadline {
        Deadline::Keep => current,
        Deadline::Never => None,
        Deadline::At(at) => Some(at),
    }
}
