//! The door to the keyspace: the slots a request names, locked, at one moment of the log's clock.
//!
//! A command's function receives `&Locked` or `&mut Locked`; the signature is the permission. Whatever changes a key
//! passes through here (`edit` has those methods), is counted in the totals and leaves an effect. A record past its
//! deadline at `now` is absent for every method, whether or not it has been removed yet.
//!
//! Locks are taken in ascending order of slots, all at once, so requests cannot deadlock. The methods don't check
//! that a key lies in a held slot where one slot is held (the router did); with several, a foreign key is absent.

use std::cell::{Cell, RefCell};

use parking_lot::MutexGuard;
use slotcast_wire::slot::{SLOTS, slot_of};
use smallvec::SmallVec;

use crate::keyspace::Keyspace;
use crate::keyspace::effect::{Audience, Effect, Effects};
use crate::keyspace::event::Events;
use crate::keyspace::hash::Hash;
use crate::keyspace::record::Record;
use crate::keyspace::slot::{Slot, Stamp};
use crate::keyspace::territory::Territory;
use crate::keyspace::value::ValueRef;
use crate::time::Millis;

/// The key holds another type than the command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongType;

/// How often a request looked a key up, and found it or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lookups {
    /// Found.
    pub hits: u64,
    /// Absent.
    pub misses: u64,
}

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

/// The guards of the locked slots.
pub(super) enum Held<'k> {
    Nothing,
    One(u16, MutexGuard<'k, Slot>),
    Many(Vec<(u16, MutexGuard<'k, Slot>)>),
}

/// The locked slots.
pub struct Locked<'k> {
    keyspace: &'k Keyspace,
    pub(super) held: Held<'k>,
    now: Millis,
    seed: Cell<u64>,
    territory: Option<&'k dyn Territory>,
    pub(super) audience: &'k dyn Audience,
    pub(super) effects: Effects,
    /// What it is called (keyspace notifications).
    pub events: Events,
    lapsed: RefCell<Vec<Box<[u8]>>>,
    lookups: Cell<Lookups>,
}

/// Keys found past their deadline that one request reports for removal; further ones wait for the next request.
const MAX_LAPSED: usize = 16;

impl<'k> Locked<'k> {
    /// Locks what is needed. `now` is the leader's time (in a read: at least the log's clock), `seed` feeds random
    /// choices; `audience` would be told of the effects.
    #[inline]
    pub fn new(
        keyspace: &'k Keyspace,
        needs: &Needs,
        now: Millis,
        seed: u64,
        audience: &'k dyn Audience,
    ) -> Self {
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
            audience,
            effects: Effects::new(),
            events: Events::default(),
            lapsed: RefCell::default(),
            lookups: Cell::default(),
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

    /// What happened so far that the audience cares for, in order; the locks are still held.
    pub fn effects(&self) -> &[Effect] {
        &self.effects
    }

    /// Keys that were found past their deadline and should be removed by a write.
    pub fn take_lapsed(&mut self) -> Vec<Box<[u8]>> {
        std::mem::take(self.lapsed.get_mut())
    }

    /// How many keys were looked up so far.
    pub fn lookups(&self) -> Lookups {
        self.lookups.get()
    }

    /// Finds a live record and notes the use.
    pub fn find(&self, key: &[u8]) -> Option<&Record> {
        let record = self.peek(key)?;
        record.touch(self.seconds());
        Some(record)
    }

    /// Finds a live record without noting a use (OBJECT, TTL, TOUCH's opposite).
    pub fn peek(&self, key: &[u8]) -> Option<&Record> {
        let found = self.live(key);
        let Lookups { hits, misses } = self.lookups.get();
        let found_one = u64::from(found.is_some());
        self.lookups.set(Lookups { hits: hits + found_one, misses: misses + 1 - found_one });
        found
    }

    /// Whether no live record is there; nothing is counted.
    pub fn is_absent(&self, key: &[u8]) -> bool {
        self.live(key).is_none()
    }

    /// Finds a live record; nothing is counted.
    pub fn live(&self, key: &[u8]) -> Option<&Record> {
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

    pub(super) fn seconds(&self) -> u32 {
        (self.now / 1000) as u32
    }

    pub(super) fn slot(&self, key: &[u8]) -> Option<&Slot> {
        match &self.held {
            Held::One(_, slot) => Some(slot),
            _ => self.held_slot(slot_of(key)),
        }
    }

    /// The slot of a key that is about to change: the one way there. A cut that still needs the key as it is gets it.
    pub(super) fn slot_mut(&mut self, key: &[u8]) -> Option<(u16, &mut Slot)> {
        let (keyspace, number) = (self.keyspace, self.number(key));
        let slot = self.held_slot_mut(number)?;
        if keyspace.is_uncut(number) {
            keyspace.before_change(number, slot, key);
        }
        Some((number, slot))
    }

    /// The slot a key is looked up in: the held one, if there is one.
    pub(super) fn number(&self, key: &[u8]) -> u16 {
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

    pub(super) fn held_slot_mut(&mut self, slot: u16) -> Option<&mut Slot> {
        match &mut self.held {
            Held::Nothing => None,
            Held::One(number, held) => (*number == slot).then_some(&mut **held),
            Held::Many(slots) => {
                slots.binary_search_by_key(&slot, |(number, _)| *number).ok().map(|at| &mut *slots[at].1)
            }
        }
    }
}
