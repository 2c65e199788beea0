//! Walking over slots: what SCAN, KEYS, DBSIZE and RANDOMKEY see.
//!
//! A walk holds one slot's lock at a time, so that it never stops writers for long. It sees the whole locked keyspace,
//! unless the caller names a
//! [`Territory`](crate::keyspace::territory::Territory): a node of a cluster shows the slots it leads, which lie in several
//! keyspaces (one a shard), and not those it only follows.

use slotcast_wire::slot::SLOTS;

use crate::keyspace::Keyspace;
use crate::keyspace::locked::Locked;
use crate::keyspace::record::Record;

impl<'k> Locked<'k> {
    /// Walks one slot's live records; locks it for that time unless it is held. A slot outside the territory is empty.
    pub fn walk<R>(&self, slot: u16, f: impl FnOnce(&mut dyn Iterator<Item = &Record>) -> R) -> R {
        let now = self.now();
        let live = |record: &&Record| record.expires_at().is_none_or(|deadline| deadline > now);
        if let Some(held) = self.held_slot(slot).filter(|_| self.territory().is_none()) {
            return f(&mut held.iter().filter(live));
        }
        match self.keyspace_of(slot) {
            Some(keyspace) => f(&mut keyspace.lock(slot).iter().filter(live)),
            None => f(&mut std::iter::empty()),
        }
    }

    /// Number of keys (those past their deadline but not yet removed included, as in Redis).
    pub fn count(&self) -> usize {
        match self.territory() {
            None => self.keyspace().usage().keys.max(0) as usize,
            Some(territory) => {
                (0..SLOTS as u16).filter_map(|slot| Some(territory.keyspace_of(slot)?.slot_len(slot))).sum()
            }
        }
    }

    /// A live key drawn at random: from the first slot, from a random one on, that has one.
    pub fn random_key(&self) -> Option<Box<[u8]>> {
        let (first, draw) = (self.random() as usize % SLOTS, self.random());
        (0..SLOTS).find_map(|step| {
            let slot = ((first + step) % SLOTS) as u16;
            let count = self.walk(slot, |records| records.count());
            let at = draw as usize % count.max(1);
            self.walk(slot, |records| records.nth(at).map(|record| record.key().into()))
        })
    }

    fn keyspace_of(&self, slot: u16) -> Option<&'k Keyspace> {
        match self.territory() {
            None => Some(self.keyspace()),
            Some(territory) => territory.keyspace_of(slot),
        }
    }
}

#[cfg(test)]
mod tests {
    use slotcast_wire::slot::slot_of;

    use super::*;
    use crate::keyspace::effect::Nobody;
    use crate::keyspace::locked::{Deadline, Needs};
    use crate::keyspace::territory::Territory;

    struct Halves([Keyspace; 2]);

    impl Territory for Halves {
        fn keyspace_of(&self, slot: u16) -> Option<&Keyspace> {
            match slot {
                0..5000 => Some(&self.0[0]),
                5000..15000 => Some(&self.0[1]),
                _ => None,
            }
        }
    }

    #[test]
    fn a_territory_joins_keyspaces_and_hides_what_others_lead() {
        let halves = Halves([Keyspace::new(), Keyspace::new()]);
        // Both hold every key; the slot decides which copy counts.
        for key in ["foo", "bar", "hello", "qux"] {
            for half in &halves.0 {
                Locked::new(half, &Needs::Everything, 1, 0, &Nobody).put_bytes(
                    key.as_bytes(),
                    b"",
                    Deadline::Never,
                );
            }
        }
        let led = ["foo", "bar", "hello", "qux"].iter().filter(|key| slot_of(key.as_bytes()) < 15000).count();
        let locked = Locked::new(&halves.0[0], &Needs::Nothing, 1, 0, &Nobody).over(&halves);
        let walked: usize = (0..SLOTS as u16).map(|slot| locked.walk(slot, |records| records.count())).sum();
        assert_eq!((walked, locked.count()), (led, led));
        for _ in 0..20 {
            assert!(slot_of(&locked.random_key().unwrap()) < 15000);
        }
    }

    #[test]
    fn a_random_key_is_live() {
        let keyspace = Keyspace::new();
        let mut locked = Locked::new(&keyspace, &Needs::Everything, 0, 0, &Nobody);
        locked.put_bytes(b"gone", b"", Deadline::At(10));
        locked.put_bytes(b"there", b"", Deadline::Never);
        drop(locked);
        let locked = Locked::new(&keyspace, &Needs::Nothing, 10, 7, &Nobody);
        assert!((0..50).all(|_| locked.random_key().as_deref() == Some(b"there")));
        assert_eq!(locked.count(), 2);
        let empty = Keyspace::new();
        assert_eq!(Locked::new(&empty, &Needs::Nothing, 0, 0, &Nobody).random_key(), None);
    }
}
