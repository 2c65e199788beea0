//! The door to the keyspace: the slots a request names, locked, at one moment of the log's clock.
//!
//! A command's function receives `&Locked` or `&mut Locked`; the signature is the permission. Whatever changes a key
//! passes through here, is counted in the totals and leaves an effect. A record past its deadline at `now` is absent
//! for every method, whether or not it has been removed yet.
//!
//! Locks are taken in ascending order of slots, all at once, so requests cannot deadlock. The methods don't check
//! that a key lies in a held slot where one slot is held (the router did); with several, a foreign key is absent.

use std::cell::{Cell, RefCell};

use parking_lot::MutexGuard;
use slotcast_wire::slot::{SLOTS, slot_of};
use smallvec::SmallVec;

use crate::keyspace::Keyspace;
use crate::keyspace::effect::{Change, Effect};
use crate::keyspace::hash::Hash;
use crate::keyspace::record::Record;
use crate::keyspace::slot::{Slot, Stamp};
use crate::keyspace::totals::Usage;
use crate::keyspace::value::{Value, ValueRef};
use crate::keyspace::walk::Territory;
use crate::time::Millis;

/// The key holds another type than the command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongType;

/// What to do with a key's deadline when its value is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// Leave it.
    Keep,
    /// The key stays until removed.
    Never,
    /// It expires then.
    At(Millis),
}

/// Which slots to lock.
#[derive(Clone, Debug)]
pub enum Needs {
    /// None: the command locks slots one after another as it walks (SCAN, DBSIZE), or looks at no key.
    Nothing,
    /// One slot.
    Slot(u16),
    /// Several; ascending, without repetition.
    Slots(SmallVec<[u16; 8]>),
    /// Every slot (FLUSHALL, a transaction with such a command).
    Everything,
}

enum Held<'k> {
    Nothing,
    One(u16, MutexGuard<'k, Slot>),
    Many(Vec<(u16, MutexGuard<'k, Slot>)>),
}

/// The locked slots.
pub struct Locked<'k> {
    keyspace: &'k Keyspace,
    held: Held<'k>,
    now: Millis,
    seed: Cell<u64>,
    territory: Option<&'k dyn Territory>,
    effects: Option<Vec<Effect>>,
    lapsed: RefCell<Vec<Box<[u8]>>>,
}

/// Keys found past their deadline that one request reports for removal; further ones wait for the next request.
const MAX_LAPSED: usize = 16;

impl<'k> Locked<'k> {
    /// Locks what is needed. `now` is the leader's time (in a read: at least the log's clock), `seed` feeds random
    /// choices; `observed` says whether anybody wants the effects.
    pub fn new(keyspace: &'k Keyspace, needs: &Needs, now: Millis, seed: u64, observed: bool) -> Self {
        let held = match needs {
            Needs::Nothing => Held::Nothing,
            Needs::Slot(slot) => Held::One(*slot, keyspace.lock(*slot)),
            Needs::Slots(slots) => {
                Held::Many(slots.iter().map(|slot| (*slot, keyspace.lock(*slot))).collect())
            }
            Needs::Everything => {
                Held::Many((0..SLOTS as u16).map(|slot| (slot, keyspace.lock(slot))).collect())
            }
        };
        Self {
            keyspace,
            held,
            now,
            seed: Cell::new(seed),
            territory: None,
            effects: observed.then(Vec::new),
            lapsed: RefCell::default(),
        }
    }

    /// Makes walks visit `territory` instead of the keyspace. For reads that hold no slot ([`Needs::Nothing`]).
    pub fn over(self, territory: &'k dyn Territory) -> Self {
        Self { territory: Some(territory), ..self }
    }

    /// What walks visit instead of the keyspace.
    pub fn territory(&self) -> Option<&'k dyn Territory> {
        self.territory
    }

    /// The moment at which this executes, by the log's clock.
    pub fn now(&self) -> Millis {
        self.now
    }

    /// The next number of this request's seeded random sequence (splitmix64): equal on every replica.
    pub fn random(&self) -> u64 {
        self.seed.set(self.seed.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mut z = self.seed.get();
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The whole keyspace, for its totals.
    pub fn keyspace(&self) -> &'k Keyspace {
        self.keyspace
    }

    /// What happened so far, in order; the locks are still held.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        self.effects.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Keys that were found past their deadline and should be removed by a write.
    pub fn take_lapsed(&mut self) -> Vec<Box<[u8]>> {
        std::mem::take(self.lapsed.get_mut())
    }

    /// Finds a live record and notes the use.
    pub fn find(&self, key: &[u8]) -> Option<&Record> {
        let record = self.peek(key)?;
        record.touch(self.seconds());
        Some(record)
    }

    /// Finds a live record without noting a use (OBJECT, TTL, TOUCH's opposite).
    pub fn peek(&self, key: &[u8]) -> Option<&Record> {
        let record = self.slot(key)?.find(self.keyspace.hash(key), key)?;
        if record.expires_at().is_some_and(|deadline| deadline <= self.now) {
            let mut lapsed = self.lapsed.borrow_mut();
            if lapsed.len() < MAX_LAPSED {
                lapsed.push(key.into());
            }
            return None;
        }
        Some(record)
    }

    /// The string at a key.
    pub fn string(&self, key: &[u8]) -> Result<Option<&[u8]>, WrongType> {
        match self.find(key).map(Record::value) {
            None => Ok(None),
            Some(ValueRef::Bytes(bytes)) => Ok(Some(bytes)),
            Some(_) => Err(WrongType),
        }
    }

    /// The hash at a key.
    pub fn hash(&self, key: &[u8]) -> Result<Option<&Hash>, WrongType> {
        match self.find(key).map(Record::value) {
            None => Ok(None),
            Some(ValueRef::Hash(hash)) => Ok(Some(hash)),
            Some(_) => Err(WrongType),
        }
    }

    /// The state of a key, for WATCH.
    pub fn stamp(&self, key: &[u8]) -> Stamp {
        self.slot(key).map_or(Stamp::Absent(0), |slot| slot.stamp(self.peek(key)))
    }

    /// Sets a key to a string. A deadline that has passed removes the key.
    pub fn put_bytes(&mut self, key: &[u8], value: &[u8], deadline: Deadline) {
        if matches!(deadline, Deadline::At(at) if at <= self.now) {
            self.remove(key);
            return;
        }
        let (hash, now) = (self.keyspace.hash(key), self.now);
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
                return;
            }
            kept = wanted;
        } else if let Deadline::At(at) = deadline {
            kept = Some(at);
        }
        self.insert(Record::inline(key, value, kept), version);
    }

    /// Sets a key to a value with an allocation of its own.
    pub fn put(&mut self, key: &[u8], value: Value, deadline: Deadline) {
        let current = self.peek(key).and_then(Record::expires_at);
        let Some((_, slot)) = self.slot_mut(key) else { return };
        let version = slot.next_version();
        self.insert(Record::boxed(key, Box::new(value), wanted(deadline, current)), version);
    }

    /// Changes a string in place, creating an empty one first if the key is absent; `f` must not leave it as it
    /// was (that would count as a change).
    pub fn edit_bytes<R>(&mut self, key: &[u8], f: impl FnOnce(&mut Vec<u8>) -> R) -> Result<R, WrongType> {
        let inline = match self.find(key).map(|record| (record, record.value())) {
            None => Some((Vec::new(), None)),
            // A record whose value already has room of its own is edited there.
            Some((record, ValueRef::Bytes(_))) if record.is_boxed() => None,
            Some((record, ValueRef::Bytes(bytes))) => Some((bytes.to_vec(), record.expires_at())),
            Some(_) => return Err(WrongType),
        };
        if let Some((bytes, deadline)) = inline {
            let deadline = deadline.map_or(Deadline::Never, Deadline::At);
            self.put_unnoted(key, Value::Bytes(bytes), deadline);
        }
        match self.edit(key, |value| match value {
            Value::Bytes(bytes) => Some(f(bytes)),
            Value::Hash(_) => None,
        }) {
            Some(Some(result)) => Ok(result),
            _ => Err(WrongType),
        }
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
        let hash = self.keyspace.hash(key);
        let (keyspace, now) = (self.keyspace, self.now);
        let (slot_number, slot) = self.slot_mut(key)?;
        let before = slot.table_memory();
        let record = slot.remove(hash, key, |key| keyspace.hash(key))?;
        let table = slot.table_memory() as i64 - before as i64;
        let deadline = record.expires_at();
        keyspace.totals.add(Usage {
            keys: -1,
            bytes: table - record.memory() as i64,
            volatile: -(deadline.is_some() as i64),
        });
        let lapsed = deadline.is_some_and(|deadline| deadline <= now);
        self.note(slot_number, key, if lapsed { Change::Expired } else { change });
        (!lapsed).then_some(record)
    }

    /// Removes a key if it is past its deadline; whether it did.
    pub fn expire(&mut self, key: &[u8]) -> bool {
        let (hash, now) = (self.keyspace.hash(key), self.now);
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
        if deadline.is_some_and(|deadline| deadline <= self.now) {
            return self.remove(key);
        }
        let (keyspace, hash) = (self.keyspace, self.keyspace.hash(key));
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
        true
    }

    /// Moves what a key holds to another, deadline included; whether there was anything.
    pub fn rename(&mut self, from: &[u8], to: &[u8]) -> bool {
        let taken = self.take(from, Change::Removed).map(|record| record.under(to));
        taken.map(|record| self.put_record(record)).is_some()
    }

    /// Copies what a key holds to another, deadline included; whether there was anything.
    pub fn copy(&mut self, from: &[u8], to: &[u8]) -> bool {
        let copied = self.find(from).map(|record| record.copy_under(to));
        copied.map(|record| self.put_record(record)).is_some()
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
        let keyspace = self.keyspace;
        let mut gone = Usage::default();
        let mut clear = |slot: &mut Slot| {
            gone.bytes -= slot.table_memory() as i64;
            for record in slot.clear() {
                gone.keys -= 1;
                gone.bytes -= record.memory() as i64;
                gone.volatile -= record.expires_at().is_some() as i64;
            }
        };
        match &mut self.held {
            Held::Nothing => {}
            Held::One(_, slot) => clear(slot),
            Held::Many(slots) => slots.iter_mut().for_each(|(_, slot)| clear(slot)),
        }
        keyspace.totals.add(gone);
        if let Some(effects) = &mut self.effects {
            effects.push(Effect::Flushed);
        }
    }

    fn seconds(&self) -> u32 {
        (self.now / 1000) as u32
    }

    fn put_unnoted(&mut self, key: &[u8], value: Value, deadline: Deadline) {
        let effects = self.effects.take();
        self.put(key, value, deadline);
        self.effects = effects;
    }

    fn edit<R>(&mut self, key: &[u8], f: impl FnOnce(&mut Value) -> R) -> Option<R> {
        self.edit_if(key, |value| (true, f(value)))
    }

    /// Runs `f` on a live, boxed value; if it says so, stamps, accounts and notes the change.
    fn edit_if<R>(&mut self, key: &[u8], f: impl FnOnce(&mut Value) -> (bool, R)) -> Option<R> {
        let (keyspace, hash, seconds) = (self.keyspace, self.keyspace.hash(key), self.seconds());
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
            if spent {
                self.remove(key);
            } else {
                self.note(slot_number, key, Change::Set);
            }
        }
        Some(result)
    }

    fn insert(&mut self, mut record: Record, version: u32) {
        let (keyspace, seconds) = (self.keyspace, self.seconds());
        record.set_version(version);
        record.touch(seconds);
        let hash = keyspace.hash(record.key());
        let key: Option<Box<[u8]>> = self.effects.is_some().then(|| record.key().into());
        let (memory, volatile) = (record.memory() as i64, record.expires_at().is_some() as i64);
        let at = self.number(record.key());
        let Some(slot) = self.held_slot_mut(at) else { return };
        let before = slot.table_memory() as i64;
        let replaced = slot.insert(hash, record, |key| keyspace.hash(key));
        let table = slot.table_memory() as i64 - before;
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
        if let Some(key) = key {
            self.note(at, &key, Change::Set);
        }
    }

    fn note(&mut self, slot: u16, key: &[u8], change: Change) {
        if let Some(effects) = &mut self.effects {
            effects.push(Effect::Key { slot, key: key.into(), change });
        }
    }

    fn slot(&self, key: &[u8]) -> Option<&Slot> {
        match &self.held {
            Held::One(_, slot) => Some(slot),
            _ => self.held_slot(slot_of(key)),
        }
    }

    fn slot_mut(&mut self, key: &[u8]) -> Option<(u16, &mut Slot)> {
        let number = self.number(key);
        self.held_slot_mut(number).map(|slot| (number, slot))
    }

    /// The slot a key is looked up in: the held one, if there is one.
    fn number(&self, key: &[u8]) -> u16 {
        match &self.held {
            Held::One(number, _) => *number,
            _ => slot_of(key),
        }
    }

    pub(super) fn held_slot(&self, slot: u16) -> Option<&Slot> {
        match &self.held {
            Held::Nothing => None,
            Held::One(number, held) => (*number == slot).then_some(&**held),
            Held::Many(slots) => {
                slots.binary_search_by_key(&slot, |(number, _)| *number).ok().map(|at| &*slots[at].1)
            }
        }
    }

    fn held_slot_mut(&mut self, slot: u16) -> Option<&mut Slot> {
        match &mut self.held {
            Held::Nothing => None,
            Held::One(number, held) => (*number == slot).then_some(&mut **held),
            Held::Many(slots) => {
                slots.binary_search_by_key(&slot, |(number, _)| *number).ok().map(|at| &mut *slots[at].1)
            }
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
