//! Which segments may go. Pure bookkeeping.
//!
//! A segment is needed as long as it holds an entry of some member that no snapshot of that member covers. Segments go
//! from the front only, so that a record that takes back an earlier one never goes before it. All else that a segment
//! says (votes, the note) is said again at the head of each new one.

use std::collections::{BTreeMap, VecDeque};

use crate::wal::Key;

/// The segments there are, oldest first; the last one is written to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    segments: VecDeque<Segment>,
    /// Up to which index each member's entries are covered.
    released: BTreeMap<Key, u64>,
    written: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    number: u64,
    bytes: u64,
    /// The last index each member has here.
    last: BTreeMap<Key, u64>,
}

impl Ledger {
    /// A new segment is written to.
    pub fn begin(&mut self, number: u64) {
        self.segments.push_back(Segment { number, bytes: 0, last: BTreeMap::new() });
    }

    /// So many bytes were written to the last segment.
    pub fn wrote(&mut self, bytes: u64) {
        self.written += bytes;
        if let Some(segment) = self.segments.back_mut() {
            segment.bytes += bytes;
        }
    }

    /// Among them an entry of this member.
    pub fn appended(&mut self, key: Key, index: u64) {
        if let Some(segment) = self.segments.back_mut() {
            let last = segment.last.entry(key).or_insert(index);
            *last = index.max(*last);
        }
    }

    /// A snapshot covers this member's entries up to `index`.
    pub fn release(&mut self, key: Key, index: u64) {
        let released = self.released.entry(key).or_insert(index);
        *released = index.max(*released);
    }

    /// The member is no more.
    pub fn forget(&mut self, key: Key) {
        self.released.remove(&key);
        self.segments.iter_mut().for_each(|segment| {
            segment.last.remove(&key);
        });
    }

    /// All members are no more.
    pub fn clear(&mut self) {
        self.released.clear();
        self.segments.iter_mut().for_each(|segment| segment.last.clear());
    }

    /// Takes out the segments that nobody needs any more, never the last one; their numbers.
    pub fn take_unneeded(&mut self) -> Vec<u64> {
        let mut unneeded = Vec::new();
        while self.segments.len() > 1 {
            let needed = |segment: &Segment| {
                segment.last.iter().any(|(key, last)| self.released.get(key).is_none_or(|upto| upto < last))
            };
            match self.segments.front().filter(|segment| !needed(segment)) {
                Some(segment) => unneeded.push(segment.number),
                None => break,
            }
            self.segments.pop_front();
        }
        unneeded
    }

    /// Bytes of log, of all members, since the first entry of this one that is not covered: what a snapshot of it
    /// would set free at best.
    pub fn behind(&self, key: Key) -> u64 {
        let released = self.released.get(&key);
        let needs = |segment: &&Segment| {
            segment.last.get(&key).is_none_or(|last| released.is_some_and(|upto| upto >= last))
        };
        self.segments.iter().skip_while(needs).map(|segment| segment.bytes).sum()
    }

    /// Bytes of all segments there ever were.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Whose entries are there.
    pub fn members(&self) -> impl Iterator<Item = Key> {
        self.segments.iter().flat_map(|segment| segment.last.keys().copied())
    }

    /// The segments' numbers.
    pub fn numbers(&self) -> Vec<u64> {
        self.segments.iter().map(|segment| segment.number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::GroupId;

    const A: Key = (GroupId(1), 11);
    const B: Key = (GroupId(2), 21);

    /// Three segments of 100 bytes; A has entries 1 to 9 in the first and 10 to 19 in the second, B its only one, 5,
    /// in the first.
    fn three() -> Ledger {
        let mut ledger = Ledger::default();
        for (number, entries) in [(1, vec![(A, 9), (B, 5), (A, 8)]), (2, vec![(A, 19)]), (3, vec![])] {
            ledger.begin(number);
            ledger.wrote(100);
            entries.into_iter().for_each(|(key, index)| ledger.appended(key, index));
        }
        ledger
    }

    #[test]
    fn a_segment_goes_when_everybodys_entries_are_covered() {
        let mut ledger = three();
        assert!(ledger.take_unneeded().is_empty());
        ledger.release(A, 9);
        assert!(ledger.take_unneeded().is_empty(), "B's entry is not covered");
        ledger.release(B, 5);
        assert_eq!(ledger.take_unneeded(), [1]);
        ledger.release(A, 25);
        ledger.release(A, 3);
        assert_eq!(ledger.take_unneeded(), [2], "the one written to stays");
        assert_eq!(ledger.numbers(), [3]);
    }

    #[test]
    fn segments_go_from_the_front_only() {
        let mut ledger = three();
        ledger.release(A, 100);
        assert!(ledger.take_unneeded().is_empty(), "the second must not go before the first");
        ledger.forget(B);
        assert_eq!(ledger.take_unneeded(), [1, 2]);
    }

    #[test]
    fn a_cold_member_is_behind_by_all_that_others_wrote() {
        let mut ledger = three();
        assert_eq!((ledger.behind(A), ledger.behind(B), ledger.written()), (300, 300, 300));
        ledger.release(A, 9);
        assert_eq!((ledger.behind(A), ledger.behind(B)), (200, 300));
        ledger.release(B, 5);
        assert_eq!(ledger.behind(B), 0);
        ledger.clear();
        assert_eq!(ledger.take_unneeded(), [1, 2]);
    }
}
