//! What a stream of invalidations says, and what [`L1`] does about it: rules 3 and 4, and where the stream stands.
//!
//! Of each shard one stream is listened to at a time ([`crate::follow`]), and one task calls this for all of them; readers
//! and writers go on meanwhile. When a shard goes over to another stream, what that one says may lie behind what the old
//! one has said by then: numbers of one history only ever rise.

use std::sync::atomic::Ordering;
use std::time::Duration;

use slotcast_wire::invalidation::{Push, Reason};
use slotcast_wire::position::Position;
use slotcast_wire::slot::SLOTS;

use crate::l1::{L1, Rule, STRIPES, micros};
use crate::stripe::{Entry, Slot};

/// How a shard's part of a subscription begins (the reply to INVALIDATIONS SUBSCRIBE).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// See [`Start`].
    pub start: Start,
    /// Where it begins.
    pub position: Position,
    /// The topology's version that `slots` is of.
    pub epoch: u64,
    /// The shard's slots: first and last.
    pub slots: Vec<(u16, u16)>,
}

/// See [`Subscribed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Now: no position was given.
    Fresh,
    /// From the position given on, at once or when the copy has come so far.
    Resumed,
    /// Now: the position given cannot be resumed from.
    Flush,
}

/// The stream has left something out: subscribe again from [`L1::cursors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap;

impl L1 {
    /// A shard's part of the stream begins.
    pub fn subscribed(&self, begun: &Subscribed) {
        let to = begun.position;
        let resumed = begun.start == Start::Resumed && self.lineage(to.shard) == Some(to.lineage);
        self.own(begun.epoch, &begun.slots, to, !resumed);
        if !resumed {
            self.restart(to);
        }
    }

    /// Rules 3 and 4. `asked_at`: some time before the server wrote this push, by the cache's own clock; what the push
    /// says about the past is counted from it. Of a heartbeat, what comes behind a gap isn't looked at.
    pub fn take(&self, push: &Push, asked_at: Option<Duration>) -> Result<(), Gap> {
        match push {
            Push::Keys { to, from, keys } => self.take_keys(*to, *from, keys),
            Push::Slots { to, slots, reason: Reason::TooMany, .. } => {
                each_slot(slots, |slot| self.raise(slot, *to));
                Ok(())
            }
            Push::Slots { to, epoch, slots, .. } => {
                self.own(*epoch, slots, *to, true);
                self.restart(*to);
                Ok(())
            }
            Push::Heartbeat(positions) => {
                positions.iter().try_for_each(|(position, age)| self.vouched(*position, *age, asked_at))
            }
        }
    }

    fn take_keys(&self, to: Position, from: u64, keys: &[(Vec<u8>, u64)]) -> Result<(), Gap> {
        let Some(shard) = self.shards.get(to.shard as usize) else { return Ok(()) };
        let cursor = shard.cursor.load(Ordering::Acquire);
        if self.lineage(to.shard) != Some(to.lineage) || (from > cursor && self.keeps(Rule::Gap)) {
            return Err(Gap);
        }
        let mut before = None;
        for named in keys {
            let again = before.replace(named) == Some(named);
            self.invalidate(to.shard, &named.0, named.1, again);
        }
        shard.cursor.store(cursor.max(to.index), Ordering::Release);
        Ok(())
    }

    /// Rule 3. `again`: one log entry has changed it more than once.
    fn invalidate(&self, shard: u32, key: &[u8], index: u64, again: bool) {
        let (stripe, place) = self.place(key);
        let mut stripe = stripe.lock();
        let slot = &mut stripe.slots[place];
        if slot.owner != Some(shard) {
            return;
        }
        slot.changed = slot.changed.max(index);
        if again {
            slot.contested = slot.contested.max(index);
        }
        let stale = |entry: &Entry| match again && entry.written && self.keeps(Rule::Contested) {
            true => entry.position.index <= index,
            false => entry.position.index < index,
        };
        if stripe.find(key).is_some_and(|entry| stale(entry)) && self.keeps(Rule::Entry) {
            let removed = stripe.remove(key);
            self.account(None, removed);
            self.counters.keys.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Rule 4, for a slot that stays where it is.
    fn raise(&self, slot: u16, to: Position) {
        let mut stripe = self.stripe(slot).lock();
        let slot = &mut stripe.slots[slot as usize / STRIPES];
        if slot.owner == Some(to.shard) && self.lineage(to.shard) == Some(to.lineage) {
            slot.floor = slot.floor.max(to.index);
            slot.changed = slot.changed.max(to.index);
            slot.contested = slot.contested.max(to.index);
            self.counters.slots.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// These slots, and no others, are `to`'s shard's, unless a newer topology said otherwise. All that was known of
    /// those that it has anew is forgotten, and with `floored` of those it had before.
    fn own(&self, epoch: u64, slots: &[(u16, u16)], to: Position, floored: bool) {
        // Of the same history; the numbers of another say nothing.
        let known = self.cursor(to.shard).filter(|cursor| cursor.lineage == to.lineage);
        let raised = |before: u64| if known.is_some() { before.max(to.index) } else { to.index };
        // What was said until now of slots that it has anew went unheard.
        let heard = known.map_or(to.index, |known| known.index.max(to.index));
        let anew = Slot { owner: Some(to.shard), epoch, floor: heard, changed: heard, contested: heard };
        let mut listed = [false; SLOTS];
        each_slot(slots, |slot| listed[slot as usize] = true);
        for (number, stripe) in self.stripes().enumerate() {
            for (place, slot) in stripe.lock().slots.iter_mut().enumerate() {
                let owned = slot.owner == Some(to.shard);
                if owned && floored {
                    slot.floor = raised(slot.floor);
                    slot.changed = raised(slot.changed);
                    slot.contested = raised(slot.contested);
                    self.counters.slots.fetch_add(1, Ordering::Relaxed);
                }
                if epoch < slot.epoch {
                    continue;
                }
                match (listed[place * STRIPES + number], owned) {
                    (true, true) => slot.epoch = epoch,
                    (true, false) => *slot = anew,
                    (false, true) => *slot = Slot { epoch, ..Slot::default() },
                    (false, false) => {}
                }
            }
        }
    }

    /// The shard's stream goes on from here, come what may. After [`L1::own`], so that whoever sees the new lineage
    /// sees its slots' floors.
    fn restart(&self, to: Position) {
        let Some(shard) = self.shards.get(to.shard as usize) else { return };
        if shard.lineage.load(Ordering::Acquire) == to.lineage {
            shard.cursor.fetch_max(to.index, Ordering::AcqRel);
            return;
        }
        shard.verified_at.store(0, Ordering::Release);
        shard.cursor.store(to.index, Ordering::Release);
        shard.lineage.store(to.lineage, Ordering::Release);
    }

    /// A quorum stood behind everything up to `to`, `age_ms` before the push was written. See [`L1::take`].
    pub fn vouched(&self, to: Position, age_ms: u64, asked_at: Option<Duration>) -> Result<(), Gap> {
        let Some(shard) = self.shards.get(to.shard as usize) else { return Ok(()) };
        if self.lineage(to.shard) != Some(to.lineage) {
            return Ok(());
        }
        if to.index > shard.cursor.load(Ordering::Acquire) && self.keeps(Rule::Gap) {
            return Err(Gap);
        }
        if let Some(at) = asked_at.and_then(|at| at.checked_sub(Duration::from_millis(age_ms))) {
            shard.verified_at.fetch_max(micros(at) + 1, Ordering::AcqRel);
        }
        Ok(())
    }
}

fn each_slot(ranges: &[(u16, u16)], each: impl FnMut(u16)) {
    let slots = ranges.iter().flat_map(|(first, last)| *first..=*last);
    slots.filter(|slot| (*slot as usize) < SLOTS).for_each(each);
}
