//! Part of an invalidation log, as a stream's entries: for those who ask again and again instead of subscribing.

use std::fmt;

use slotcast_wire::invalidation::Reason;
use slotcast_wire::number::parse_i64;

use crate::tracking::ring::{Cursor, Next, Ring};
use crate::tracking::segment::Touched;

/// A change's place: its entry's log index, and its number among the entry's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// See above.
    pub index: u64,
    /// See above.
    pub number: u64,
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// One key.
    Key(Box<[u8]>),
    /// Any key of a slot.
    Slot(u16),
    /// Any key of the shard.
    All(Reason),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Excerpt {
    /// The history the ids belong to.
    pub lineage: u64,
    /// In order.
    pub changes: Vec<(Id, Change)>,
}

impl Id {
    /// The last there can be.
    pub const MAX: Id = Id { index: u64::MAX, number: u64::MAX };

    /// `index-number`, or `index` alone, which means `number`.
    pub fn parse(text: &[u8], number: u64) -> Option<Id> {
        let part = |text: &[u8]| match parse_i64(text) {
            Some(n) => u64::try_from(n).ok(),
            // Beyond an i64: the number of an id that stands for a whole entry.
            None => std::str::from_utf8(text).ok()?.parse().ok(),
        };
        match text.iter().position(|byte| *byte == b'-') {
            Some(dash) => Some(Id { index: part(&text[..dash])?, number: part(&text[dash + 1..])? }),
            None => Some(Id { index: part(text)?, number }),
        }
    }

    /// The one behind it.
    pub fn next(self) -> Option<Id> {
        match self.number.checked_add(1) {
            Some(number) => Some(Id { number, ..self }),
            None => Some(Id { index: self.index.checked_add(1)?, number: 0 }),
        }
    }

    /// The one before it.
    pub fn previous(self) -> Option<Id> {
        match self.number.checked_sub(1) {
            Some(number) => Some(Id { number, ..self }),
            None => Some(Id { index: self.index.checked_sub(1)?, number: u64::MAX }),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.index, self.number)
    }
}

impl Excerpt {
    /// What comes after an id, up to another, and `count` changes at most. If the log does not reach back so far, it
    /// begins with a change of everything.
    pub fn after(ring: &Ring, after: Id, upto: Id, count: usize) -> Self {
        let extent = ring.extent();
        // Whoever has all of an entry needs only later ones; of another entry the rest must be there.
        let seen = if after.number == u64::MAX { after.index } else { after.index.saturating_sub(1) };
        let mut excerpt = Self { lineage: extent.lineage, changes: Vec::new() };
        if seen >= extent.floor {
            excerpt.walk(ring, seen, (after, upto), count);
        } else {
            let floor = Id { index: extent.floor, number: u64::MAX };
            excerpt.changes.push((floor, Change::All(Reason::Window)));
            excerpt.walk(ring, extent.floor, (floor, upto), count);
        }
        excerpt
    }

    /// What the log holds, up to an id.
    pub fn from_floor(ring: &Ring, upto: Id, count: usize) -> Self {
        let extent = ring.extent();
        let mut excerpt = Self { lineage: extent.lineage, changes: Vec::new() };
        let floor = Id { index: extent.floor, number: u64::MAX };
        excerpt.walk(ring, extent.floor, (floor, upto), count);
        excerpt
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn walk(&mut self, ring: &Ring, from: u64, (after, upto): (Id, Id), count: usize) {
        let mut cursor = Cursor::at(self.lineage, from);
        let mut last = Id { index: from, number: u64::MAX };
        while self.changes.len() < count && cursor.index < upto.index {
            // A ring that has moved on meanwhile is read from its new floor next time.
            let Next::Stretch(stretch) = ring.next(&cursor) else { return };
            let changes = &mut self.changes;
            stretch.walk(&mut cursor, |index, touched| {
                last = if last.index == index {
                    Id { index, number: last.number + 1 }
                } else {
                    Id { index, number: 0 }
                };
                if last > after && last <= upto && changes.len() < count {
                    changes.push((last, change(touched)));
                }
            });
        }
    }
}

fn change(touched: Touched<'_>) -> Change {
    match touched {
        Touched::Key(_, key) => Change::Key(key.into()),
        Touched::Slot(slot) => Change::Slot(slot),
        Touched::All => Change::All(Reason::Flushed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u64, number: u64) -> Id {
        Id { index, number }
    }

    fn ring() -> Ring {
        let ring = Ring::new(1 << 20);
        ring.restart(9, 10);
        for (index, keys) in [(11, &["a", "b"][..]), (12, &["c"]), (13, &["d", "e", "f"])] {
            ring.note(index, keys.iter().map(|key| Touched::Key(1, key.as_bytes())));
            ring.publish(index);
        }
        ring
    }

    fn keys(excerpt: &Excerpt) -> Vec<(Id, String)> {
        let text = |change: &Change| match change {
            Change::Key(key) => String::from_utf8_lossy(key).into_owned(),
            other => format!("{other:?}"),
        };
        excerpt.changes.iter().map(|(id, change)| (*id, text(change))).collect()
    }

    #[test]
    fn it_goes_on_behind_any_change() {
        let ring = ring();
        let all = keys(&Excerpt::from_floor(&ring, Id::MAX, 100));
        let names: String = all.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!((names.as_str(), all[1].0, all[5].0), ("abcdef", id(11, 1), id(13, 2)));
        for (seen, (after, _)) in all.iter().enumerate() {
            assert_eq!(keys(&Excerpt::after(&ring, *after, Id::MAX, 100)), all[seen + 1..]);
        }
        assert_eq!(keys(&Excerpt::after(&ring, id(10, u64::MAX), id(12, 0), 100)), all[..3]);
        assert_eq!(keys(&Excerpt::after(&ring, id(11, 0), Id::MAX, 2)), all[1..3]);
    }

    #[test]
    fn what_the_log_has_forgotten_is_everything() {
        let ring = ring();
        let excerpt = Excerpt::after(&ring, id(3, 0), Id::MAX, 100);
        assert_eq!(excerpt.changes[0], (id(10, u64::MAX), Change::All(Reason::Window)));
        assert_eq!(excerpt.changes.len(), 7);
    }

    #[test]
    fn ids_are_read_and_counted() {
        assert_eq!(Id::parse(b"5-18446744073709551615", 0), Some(id(5, u64::MAX)));
        assert_eq!(Id::parse(b"5", 7), Some(id(5, 7)));
        assert_eq!(Id::parse(b"x", 0), None);
        assert_eq!(Id::parse(b"1-", 0), None);
        assert_eq!(id(5, u64::MAX).next(), Some(id(6, 0)));
        assert_eq!(id(6, 0).previous(), Some(id(5, u64::MAX)));
        assert_eq!((Id::MAX.next(), Id::default().previous()), (None, None));
    }
}
