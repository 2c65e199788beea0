//! The state of a keyspace at one moment, written while it changes.
//!
//! A cut is a walk over the slots that writes what each held at the cut, a slice at a time, and a watch on what changes
//! ahead of the walk. Beginning one costs nothing: it counts up the keyspace's number of cuts, and each slot remembers
//! the last cut it was written for, so that a change knows with one comparison whether its slot is still to be written.
//! The first change of such a slot notes the slot's versions; every record that has a newer one was changed since the
//! cut. So a change writes the *record* it is about to change first, unless that has been done, and the walk leaves out
//! what is newer than the cut: each record of the cut is written once, and a change costs one record, not one slot.
//!
//! What is written ahead is held until it is pulled, which it is before the walk goes on. It is never more than the
//! keyspace held; beyond a quarter of that (the puller is slower than the writers) the cut is given up, and another can
//! be made. A flush hands its tables over as they are, and they are written and freed in slices too. Dropping a cut ends
//! it; what slots remember of it is overtaken by their next change.
//!
//! A slot is walked under its lock and a value is written whole: a slot with millions of keys (one hash tag) or a hash
//! with millions of fields stops its slot, and the thread that pulls or changes it, for as long as copying it takes.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use hashbrown::HashTable;
use slotcast_wire::slot::SLOTS;

use crate::keyspace::Keyspace;
use crate::keyspace::ahead::{Ahead, Limits, Lost};
use crate::keyspace::discard::discard;
use crate::keyspace::record::Record;
use crate::keyspace::slot::Slot;

/// Bytes held back for a slow puller, at least; if a quarter of the keyspace is more, that.
const MIN_HELD: usize = 64 << 20;

/// Bytes in a chunk, at most. It is written in about a third of a millisecond.
pub const MAX_CHUNK: usize = 128 << 10;

/// Cuts a keyspace. To be called between two changes, by the thread that makes them; `None` while an earlier cut is
/// running.
pub fn cut(keyspace: &Arc<Keyspace>) -> Option<Cut> {
    let held = (keyspace.usage().bytes.max(0) as usize / 4).max(MIN_HELD);
    cut_within(keyspace, Limits { slice: MAX_CHUNK, held })
}

fn cut_within(keyspace: &Arc<Keyspace>, limits: Limits) -> Option<Cut> {
    let mut running = keyspace.cut.lock();
    if running.is_some() {
        return None;
    }
    *running = Some(Box::new(Ahead::new(limits)));
    keyspace.cuts.fetch_add(1, Relaxed);
    Some(Cut { keyspace: keyspace.clone(), slice: limits.slice, next: 0, rest: Bytes::new(), ended: false })
}

/// See the module's documentation. An iterator over the snapshot's bytes, in chunks of at most [`MAX_CHUNK`].
pub struct Cut {
    keyspace: Arc<Keyspace>,
    slice: usize,
    /// The next slot of the walk.
    next: usize,
    /// Of a slice that was longer than a chunk.
    rest: Bytes,
    ended: bool,
}

impl Iterator for Cut {
    type Item = Result<Bytes, Lost>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        if self.rest.is_empty() {
            match self.slice() {
                Ok(slice) => self.rest = slice.into(),
                Err(lost) => {
                    self.end();
                    return Some(Err(lost));
                }
            }
        }
        if self.rest.is_empty() {
            self.end();
            return None;
        }
        Some(Ok(self.rest.split_to(self.rest.len().min(MAX_CHUNK))))
    }
}

impl Cut {
    /// The next bytes; none: that was all.
    fn slice(&mut self) -> Result<Vec<u8>, Lost> {
        let mut out = Vec::with_capacity(self.slice + self.slice / 4);
        if let Some(ahead) = self.keyspace.cut.lock().as_mut() {
            if let Some(lost) = ahead.lost() {
                return Err(lost);
            }
            ahead.drain(&mut out);
        }
        while out.len() < self.slice && self.next < SLOTS {
            self.write_slot(self.next as u16, &mut out);
            self.next += 1;
        }
        Ok(out)
    }

    fn write_slot(&self, number: u16, out: &mut Vec<u8>) {
        let slot = self.keyspace.lock(number);
        if !self.keyspace.is_uncut(number) {
            return; // It was written ahead, or flushed.
        }
        if let Some(ahead) = self.keyspace.cut.lock().as_mut() {
            ahead.write_slot(number, &slot, out);
        }
        self.keyspace.mark_cut(number);
    }

    fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            discard(self.keyspace.cut.lock().take());
        }
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.end();
    }
}

impl Keyspace {
    /// Whether a slot is still to be written for the last cut that was made. To be asked with its lock held.
    #[inline]
    pub(crate) fn is_uncut(&self, number: u16) -> bool {
        self.slots[number as usize % SLOTS].hint.cut.load(Relaxed) != self.cuts.load(Relaxed)
    }

    fn mark_cut(&self, number: u16) {
        self.slots[number as usize % SLOTS].hint.cut.store(self.cuts.load(Relaxed), Relaxed);
    }

    /// To be called before a key of an uncut slot changes, with the slot's lock held.
    #[cold]
    pub(crate) fn before_change(&self, number: u16, slot: &Slot, key: &[u8]) {
        let mut running = self.cut.lock();
        match running.as_mut().filter(|ahead| ahead.lost().is_none()) {
            Some(ahead) if !slot.renumbers_soon() => {
                return ahead.write_record_ahead(number, slot, slot.find(self.hash(key), key));
            }
            Some(ahead) => ahead.write_slot_ahead(number, slot),
            None => {}
        }
        self.mark_cut(number);
    }

    /// To be called if the change that [`Keyspace::before_change`] was told of did not come.
    #[cold]
    pub(crate) fn not_changed(&self, key: &[u8]) {
        if let Some(ahead) = self.cut.lock().as_mut() {
            ahead.not_changed(key);
        }
    }

    /// Frees a table taken out of its slot, or leaves that to the cut that still needs it; `versions`: the slot's before.
    pub(crate) fn let_go(&self, number: u16, versions: (u32, u32), table: HashTable<Record>) {
        if !self.is_uncut(number) {
            return;
        }
        self.mark_cut(number);
        if let Some(ahead) = self.cut.lock().as_mut().filter(|ahead| ahead.lost().is_none()) {
            ahead.keep(number, versions, table);
        }
    }

    /// Ends a running cut, since the state it was made of is replaced.
    pub(crate) fn lose_cut(&self) {
        if let Some(ahead) = self.cut.lock().as_mut() {
            ahead.lose(Lost("the state was replaced by a newer one"));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use slotcast_wire::slot::slot_of;

    use super::*;
    use crate::keyspace::effect::Nobody;
    use crate::keyspace::hash::Hash;
    use crate::keyspace::locked::{Deadline, Locked, Needs};
    use crate::keyspace::snapshot::{Reader, digest};
    use crate::keyspace::value::Value;

    /// Slices of so few bytes that a walk takes many.
    const SMALL: Limits = Limits { slice: 64, held: usize::MAX };

    #[derive(Clone, Debug)]
    enum Step {
        Put(u8, u8),
        HashSet(u8, u8),
        /// Removes a field that may be there or not.
        HashRemove(u8, u8),
        Append(u8),
        Remove(u8),
        Rename(u8, u8),
        Copy(u8, u8),
        Deadline(u8, Option<u8>),
        /// Removes a key if its time has come, and lets time pass.
        Expire(u8),
        /// Two changes under one guard, as a transaction makes them.
        Both(u8, u8),
        Flush,
        FlushSlot(u8),
        Pull(u8),
        /// Only before a cut: the slots' versions are nearly at their end.
        Count,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let key = 0..12u8;
        let step = prop_oneof![
            4 => (key.clone(), any::<u8>()).prop_map(|(key, length)| Step::Put(key, length)),
            3 => (key.clone(), 0..4u8).prop_map(|(key, field)| Step::HashSet(key, field)),
            2 => (key.clone(), 0..5u8).prop_map(|(key, field)| Step::HashRemove(key, field)),
            2 => key.clone().prop_map(Step::Append),
            2 => key.clone().prop_map(Step::Remove),
            1 => (key.clone(), key.clone()).prop_map(|(from, to)| Step::Rename(from, to)),
            1 => (key.clone(), key.clone()).prop_map(|(from, to)| Step::Copy(from, to)),
            2 => (key.clone(), any::<Option<u8>>()).prop_map(|(key, at)| Step::Deadline(key, at)),
            2 => key.clone().prop_map(Step::Expire),
            1 => (key.clone(), key.clone()).prop_map(|(one, other)| Step::Both(one, other)),
            1 => Just(Step::Flush),
            1 => key.clone().prop_map(Step::FlushSlot),
            4 => (0..4u8).prop_map(Step::Pull),
            1 => Just(Step::Count),
        ];
        proptest::collection::vec(step, 0..60)
    }

    /// Keys in three slots.
    fn key(n: u8) -> Vec<u8> {
        format!("{{{}}}{n}", n % 3).into_bytes()
    }

    struct Bench {
        keyspace: Arc<Keyspace>,
        now: u64,
    }

    impl Bench {
        fn new() -> Self {
            Self { keyspace: Arc::new(Keyspace::new()), now: 1 }
        }

        /// With the keys' slots held.
        fn locked<R>(&self, f: impl FnOnce(&mut Locked<'_>) -> R) -> R {
            let mut slots = [0, 1, 2].map(|n| slot_of(&key(n)));
            slots.sort();
            let needs = Needs::Slots(slots.into_iter().collect());
            f(&mut Locked::new(&self.keyspace, &needs, self.now, 0, &Nobody))
        }

        fn put(&self, key: &[u8], length: usize) {
            self.locked(|locked| locked.put_bytes(key, &vec![b'x'; length], Deadline::Keep));
        }

        fn step(&mut self, step: &Step) {
            let now = self.now;
            match step {
                Step::Put(n, length) => self.put(&key(*n), *length as usize / 4),
                Step::HashSet(n, field) => self.locked(|locked| {
                    let _ = locked.edit_hash(&key(*n), |hash| (true, hash.set(&[*field], b"value")));
                }),
                Step::HashRemove(n, field) => self.locked(|locked| {
                    let _ = locked.edit_hash(&key(*n), |hash| (hash.remove(&[*field]), ()));
                }),
                Step::Append(n) => self.locked(|locked| {
                    let _ = locked.edit_bytes(&key(*n), |bytes| bytes.push(b'y'));
                }),
                Step::Remove(n) => self.locked(|locked| _ = locked.remove(&key(*n))),
                Step::Rename(from, to) => self.locked(|locked| _ = locked.rename(&key(*from), &key(*to))),
                Step::Copy(from, to) => self.locked(|locked| _ = locked.copy(&key(*from), &key(*to))),
                Step::Deadline(n, after) => self.locked(|locked| {
                    locked.set_deadline(&key(*n), after.map(|after| now + after as u64 / 4));
                }),
                Step::Expire(n) => {
                    self.now += 5;
                    self.locked(|locked| _ = locked.expire(&key(*n)));
                }
                Step::Both(one, other) => self.locked(|locked| {
                    let mut hash = Hash::default();
                    hash.set(b"f", b"v");
                    locked.put(&key(*one), Value::Hash(hash), Deadline::Never);
                    locked.rename(&key(*one), &key(*other));
                }),
                Step::Flush => self.locked(|locked| locked.flush()),
                Step::FlushSlot(n) => {
                    let slot = slot_of(&key(*n));
                    Locked::new(&self.keyspace, &Needs::Slot(slot), self.now, 0, &Nobody).flush();
                }
                Step::Count => {
                    for n in 0..3 {
                        let slot = slot_of(&key(n));
                        let mut slot = self.keyspace.lock(slot);
                        // As after very many changes: the records keep their versions.
                        let (version, removed) = slot.versions();
                        slot.set_versions((version.max(u32::MAX - 18), removed));
                    }
                }
                Step::Pull(_) => {}
            }
        }

        fn step_during(&mut self, step: &Step) {
            if !matches!(step, Step::Count) {
                self.step(step);
            }
        }

        fn state(&self) -> State {
            state(&self.keyspace)
        }
    }

    /// Digests and versions of the keys' slots, and what the keyspace holds.
    type State = ([(u64, (u32, u32)); 3], i64, i64);

    fn state(keyspace: &Keyspace) -> State {
        let slot = |number| (digest(keyspace, number), keyspace.lock(number).versions());
        let usage = keyspace.usage();
        ([0, 1, 2].map(|n| slot(slot_of(&key(n)))), usage.keys, usage.volatile)
    }

    fn restore(chunks: impl Iterator<Item = Bytes>) -> State {
        let mut reader = Reader::new(Keyspace::new());
        chunks.for_each(|chunk| reader.take(&chunk).unwrap());
        state(&reader.finish().unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn a_cut_shows_the_state_it_was_made_of_whatever_changes_meanwhile(before in steps(), during in steps()) {
            let mut bench = Bench::new();
            before.iter().for_each(|step| bench.step(step));
            let expected = bench.state();
            let mut cut = cut_within(&bench.keyspace, SMALL).unwrap();
            let mut chunks = Vec::new();
            for step in &during {
                if let Step::Pull(count) = step {
                    chunks.extend(cut.by_ref().take(*count as usize).map(Result::unwrap));
                }
                bench.step_during(step);
            }
            chunks.extend(cut.map(Result::unwrap));
            prop_assert!(restore(chunks.into_iter()) == expected);
            // Nothing is left of it, and the next cut is as right.
            prop_assert!(bench.keyspace.cut.lock().is_none());
            let expected = bench.state();
            prop_assert!(restore(cut_within(&bench.keyspace, SMALL).unwrap().map(Result::unwrap)) == expected);
        }

        #[test]
        fn a_cut_given_up_half_way_leaves_nothing_behind(before in steps(), during in steps(), pulled in 0..9usize) {
            let mut bench = Bench::new();
            before.iter().for_each(|step| bench.step(step));
            let mut cut = cut_within(&bench.keyspace, SMALL).unwrap();
            let _ = cut.by_ref().take(pulled).count();
            during.iter().for_each(|step| bench.step_during(step));
            drop(cut);
            prop_assert!(bench.keyspace.cut.lock().is_none());
            let expected = bench.state();
            let mut cut = cut_within(&bench.keyspace, SMALL).unwrap();
            let first: Vec<Bytes> = cut.by_ref().take(pulled).map(Result::unwrap).collect();
            during.iter().for_each(|step| bench.step_during(step));
            prop_assert!(restore(first.into_iter().chain(cut.map(Result::unwrap))) == expected);
        }
    }

    #[test]
    fn there_is_one_cut_at_a_time() {
        let bench = Bench::new();
        let first = cut(&bench.keyspace).unwrap();
        assert!(cut(&bench.keyspace).is_none());
        drop(first);
        assert!(cut(&bench.keyspace).is_some());
    }

    #[test]
    fn a_slot_is_watched_until_it_is_written_and_no_longer() {
        let bench = Bench::new();
        bench.put(&key(1), 10);
        let slot = slot_of(&key(1));
        let running = cut(&bench.keyspace).unwrap();
        assert!(bench.keyspace.is_uncut(slot));
        drop(running);
        bench.put(&key(1), 10);
        assert!(!bench.keyspace.is_uncut(slot), "a change looks once whether the cut still runs");
    }

    #[test]
    fn versions_that_begin_anew_do_not_pass_for_old_ones() {
        let mut bench = Bench::new();
        (0..9).for_each(|n| bench.put(&key(n), 10));
        bench.step(&Step::Count);
        let expected = bench.state();
        let running = cut(&bench.keyspace).unwrap();
        (0..30).for_each(|_| bench.put(&key(0), 20));
        assert!(bench.keyspace.lock(slot_of(&key(0))).versions().0 < 100, "it has begun anew");
        assert!(restore(running.map(Result::unwrap)) == expected);
    }

    #[test]
    fn a_flush_that_begins_the_versions_anew_hands_over_the_old_ones() {
        let bench = Bench::new();
        (0..3).for_each(|_| bench.put(&key(0), 10));
        bench.keyspace.lock(slot_of(&key(0))).set_versions((u32::MAX, 0));
        let expected = bench.state();
        let running = cut(&bench.keyspace).unwrap();
        bench.locked(|locked| locked.flush());
        assert!(restore(running.map(Result::unwrap)) == expected);
    }

    #[test]
    fn a_change_that_does_not_come_writes_its_key_ahead_once() {
        let mut bench = Bench::new();
        bench.step(&Step::HashSet(0, 1));
        let expected = bench.state();
        let length = || cut(&bench.keyspace).unwrap().map(|chunk| chunk.unwrap().len()).sum::<usize>();
        let quiet = length();
        let running = cut(&bench.keyspace).unwrap();
        for _ in 0..100 {
            bench.locked(|locked| _ = locked.edit_hash(&key(0), |_| (false, ())));
        }
        let chunks: Vec<Bytes> = running.map(Result::unwrap).collect();
        assert!(chunks.iter().map(Bytes::len).sum::<usize>() < 2 * quiet);
        assert_eq!(restore(chunks.into_iter()).1, expected.1);
    }

    #[test]
    fn who_pulls_too_slowly_loses_the_cut_and_its_memory_and_can_have_another() {
        let bench = Bench::new();
        (0..100).for_each(|n| bench.put(&key(n), 100));
        let mut slow = cut_within(&bench.keyspace, Limits { slice: 1000, held: 5000 }).unwrap();
        assert!(slow.next().unwrap().is_ok());
        (0..100).for_each(|n| bench.put(&key(n), 100));
        assert!(slow.next().unwrap().is_err());
        assert!(slow.next().is_none());
        let expected = bench.state();
        assert!(restore(cut(&bench.keyspace).unwrap().map(Result::unwrap)) == expected);
    }

    #[test]
    fn a_keyspace_that_is_succeeded_loses_its_cut_and_takes_over_all_of_the_other() {
        let bench = Bench::new();
        bench.put(&key(1), 10);
        let mut running = cut(&bench.keyspace).unwrap();
        let successor = bench.keyspace.successor();
        Locked::new(&successor, &Needs::Everything, 1, 0, &Nobody).put_bytes(&key(2), b"v", Deadline::At(9));
        let (expected, usage) = (state(&successor), successor.usage());
        bench.keyspace.succeed_by(successor);
        assert!(running.next().unwrap().is_err());
        assert!(bench.state() == expected);
        assert_eq!(bench.keyspace.usage(), usage);
        bench.locked(|locked| assert!(locked.peek(&key(1)).is_none() && locked.peek(&key(2)).is_some()));
    }
}
