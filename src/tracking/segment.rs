//! A stretch of the invalidation log, as bytes.
//!
//! ```text
//! record = index - the previous record's (varint) | length * 4 + kind (varint) | slot u16 | key
//! ```
//! Ten bytes a change and the key; written by the machine, read by every subscriber. Nothing here comes from outside, but
//! reading past the end is impossible all the same.

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touched<'a> {
    /// One key, and its slot.
    Key(u16, &'a [u8]),
    /// Any key of a slot.
    Slot(u16),
    /// Any key.
    All,
}

const KEY: u64 = 0;
const SLOT: u64 = 1;
const ALL: u64 = 2;

/// Consecutive records.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Where the first record counts from.
    base: u64,
    /// Of the last record; the base if there is none.
    last: u64,
    bytes: Vec<u8>,
}

/// A place between two records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    offset: usize,
    /// Index of the record before it.
    index: u64,
}

impl Mark {
    /// The same place, counted from where `origin` is counted from, in a segment that begins at `origin`.
    pub fn behind(self, origin: Mark) -> Mark {
        Mark { offset: origin.offset + self.offset, ..self }
    }
}

impl Segment {
    /// Empty; its records have indexes of at least `base`.
    pub fn new(base: u64) -> Self {
        Self { base, last: base, bytes: Vec::new() }
    }

    /// Index of the last record; the base if there is none.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Bytes of records.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Before the first record.
    pub fn start(&self) -> Mark {
        Mark { offset: 0, index: self.base }
    }

    /// After the last record.
    pub fn end(&self) -> Mark {
        Mark { offset: self.bytes.len(), index: self.last }
    }

    /// Appends a change made by the entry at `index`, which is not less than the last one's.
    pub fn push(&mut self, index: u64, touched: Touched<'_>) {
        let (kind, slot, key): (u64, u16, &[u8]) = match touched {
            Touched::Key(slot, key) => (KEY, slot, key),
            Touched::Slot(slot) => (SLOT, slot, b""),
            Touched::All => (ALL, 0, b""),
        };
        put_varint(&mut self.bytes, index.saturating_sub(self.last));
        put_varint(&mut self.bytes, (key.len() as u64) << 2 | kind);
        self.bytes.extend_from_slice(&slot.to_le_bytes());
        self.bytes.extend_from_slice(key);
        self.last = self.last.max(index);
    }

    /// What comes after `mark`, alone.
    pub fn tail(&self, mark: Mark) -> Segment {
        let bytes = self.bytes.get(mark.offset..).unwrap_or_default().to_vec();
        Segment { base: mark.index, last: self.last, bytes }
    }

    /// The record after `mark`: its index, what changed, and the place behind it.
    pub fn next(&self, mark: Mark) -> Option<(u64, Touched<'_>, Mark)> {
        let mut rest = self.bytes.get(mark.offset..)?;
        let index = mark.index.saturating_add(read_varint(&mut rest)?);
        let tag = read_varint(&mut rest)?;
        let (slot, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_at_checked((tag >> 2) as usize)?;
        let slot = u16::from_le_bytes(*slot);
        let touched = match tag & 3 {
            KEY => Touched::Key(slot, key),
            SLOT => Touched::Slot(slot),
            _ => Touched::All,
        };
        Some((index, touched, Mark { offset: self.bytes.len() - rest.len(), index }))
    }
}

fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn read_varint(from: &mut &[u8]) -> Option<u64> {
    let mut n = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        n |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn records(segment: &Segment, mut mark: Mark) -> Vec<(u64, Touched<'_>)> {
        let mut records = Vec::new();
        while let Some((index, touched, next)) = segment.next(mark) {
            records.push((index, touched));
            mark = next;
        }
        assert_eq!(mark, segment.end());
        records
    }

    #[test]
    fn records_come_back_from_any_place_between_them() {
        let long = vec![7; 5000];
        let all = [
            (10, Touched::Key(3, b"a")),
            (10, Touched::Slot(16383)),
            (400, Touched::Key(9, &long)),
            (1 << 50, Touched::All),
        ];
        let mut segment = Segment::new(10);
        let mut marks = vec![segment.start()];
        for (index, touched) in all {
            segment.push(index, touched);
            marks.push(segment.end());
        }
        assert_eq!(segment.last(), 1 << 50);
        for (count, mark) in marks.into_iter().enumerate() {
            assert_eq!(records(&segment, mark), all[count..]);
            let tail = segment.tail(mark);
            assert_eq!(records(&tail, tail.start()), all[count..]);
        }
    }

    proptest! {
        #[test]
        fn nonsense_ends(bytes: Vec<u8>) {
            let segment = Segment { base: 0, last: 0, bytes };
            let mut mark = segment.start();
            while let Some((_, _, next)) = segment.next(mark) {
                mark = next;
            }
        }
    }
}
