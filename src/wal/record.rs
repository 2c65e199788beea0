//! One record as bytes.
//!
//! ```text
//! mark u32 ─ crc u32 ─ length u32 ─ kind u8 ─ group u32 ─ member u64 ─ term u64 ─ index u64 ─ body
//!            └ CRC-32C of all that follows                              (little-endian)
//! ```
//!
//! The mark is the segment's own and never zero, so that preallocated zeros end a segment and no client can write a
//! value that passes for a record. What `term` and `index` say depends on the kind.

use crate::id::{GroupId, MemberId};
use crate::wal::Key;

/// Bytes before the body.
pub const HEAD: usize = 41;
/// Where the bytes begin that the checksum covers.
const CHECKED_FROM: usize = 8;
/// A body of more bytes than this is no record's (a proposal is at most 64 MB).
pub const MAX_BODY: usize = 80 << 20;

/// What a record says about its member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// It has voted in `term` for member `index`; a body byte of 1: and that member won.
    Vote = 1,
    /// Its log goes on with entry (`term`, `index`); what came at `index` and after it before is gone.
    Append = 2,
    /// Its log ends before `index`.
    Truncate = 3,
    /// Its log begins after (`term`, `index`): the state up to there is elsewhere.
    Purge = 4,
    /// Its entries up to (`term`, `index`) are committed.
    Committed = 5,
    /// The node's own: what it must know of itself at the next start. The last one counts.
    Note = 6,
    /// The node's own: all before segment `term`, offset `index` is on the disk.
    Synced = 7,
    /// The node's own: it stopped in order; nothing is missing.
    Stopped = 8,
    /// The member is no more.
    Forget = 9,
    /// The node's own: nothing before this counts any more.
    Cleared = 10,
}

impl Kind {
    const ALL: [Kind; 10] = [
        Kind::Vote,
        Kind::Append,
        Kind::Truncate,
        Kind::Purge,
        Kind::Committed,
        Kind::Note,
        Kind::Synced,
        Kind::Stopped,
        Kind::Forget,
        Kind::Cleared,
    ];

    fn of(byte: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A record to be written, or just read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What it says.
    pub kind: Kind,
    /// About whom.
    pub key: Key,
    /// See [`Kind`].
    pub term: u64,
    /// See [`Kind`].
    pub index: u64,
    /// Opaque, in two pieces that are one on the disk (the second one is usually somebody else's and long).
    pub body: [&'a [u8]; 2],
}

impl<'a> Record<'a> {
    /// One without a body.
    pub fn new(kind: Kind, key: Key, term: u64, index: u64) -> Record<'a> {
        Record { kind, key, term, index, body: [&[], &[]] }
    }

    /// Bytes on the disk.
    pub fn size(&self) -> usize {
        HEAD + self.body_len()
    }

    fn body_len(&self) -> usize {
        self.body[0].len() + self.body[1].len()
    }

    /// Appends the record's bytes.
    pub fn put(&self, mark: u32, out: &mut Vec<u8>) {
        let start = out.len();
        let (GroupId(group), member) = self.key;
        out.reserve(self.size());
        out.extend_from_slice(&mark.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(self.body_len() as u32).to_le_bytes());
        out.push(self.kind as u8);
        out.extend_from_slice(&group.to_le_bytes());
        for number in [member, self.term, self.index] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        self.body.iter().for_each(|piece| out.extend_from_slice(piece));
        let crc = crc32c::crc32c(&out[start + CHECKED_FROM..]);
        out[start + 4..start + CHECKED_FROM].copy_from_slice(&crc.to_le_bytes());
    }

    /// The record at the start of `bytes`; `None`: there is none, or not a whole one.
    pub fn parse(mark: u32, bytes: &'a [u8]) -> Option<Record<'a>> {
        let head: &[u8; HEAD] = bytes.first_chunk()?;
        let length = u32_at(head, 8) as usize;
        if u32_at(head, 0) != mark || length > MAX_BODY {
            return None;
        }
        let body = bytes.get(HEAD..HEAD + length)?;
        let checked = bytes.get(CHECKED_FROM..HEAD + length)?;
        if crc32c::crc32c(checked) != u32_at(head, 4) {
            return None;
        }
        let member: MemberId = u64_at(head, 17);
        Some(Record {
            kind: Kind::of(head[12])?,
            key: (GroupId(u32_at(head, 13)), member),
            term: u64_at(head, 25),
            index: u64_at(head, 33),
            body: [&[], body],
        })
    }
}

fn u32_at(head: &[u8; HEAD], at: usize) -> u32 {
    head.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(head: &[u8; HEAD], at: usize) -> u64 {
    head.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MARK: u32 = 0xABCD_EF01;

    fn some(body: &[u8]) -> Vec<u8> {
        let record = Record { body: [b"x", body], ..Record::new(Kind::Append, (GroupId(3), 77), 5, 12) };
        let mut out = vec![9; 3];
        record.put(MARK, &mut out);
        assert_eq!(out.len(), 3 + record.size());
        out.split_off(3)
    }

    #[test]
    fn what_was_put_is_read() {
        let bytes = some(b"hello");
        let read = Record::parse(MARK, &bytes).unwrap();
        assert_eq!((read.kind, read.key, read.term, read.index), (Kind::Append, (GroupId(3), 77), 5, 12));
        assert_eq!(read.body[1], b"xhello");
        assert_eq!(read.size(), bytes.len());
    }

    #[test]
    fn zeros_another_segments_mark_and_a_cut_are_no_record() {
        let bytes = some(b"hello");
        assert_eq!(Record::parse(MARK, &[0; 200]), None);
        assert_eq!(Record::parse(MARK + 1, &bytes), None);
        for length in 0..bytes.len() {
            assert_eq!(Record::parse(MARK, &bytes[..length]), None, "cut at {length}");
        }
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_noticed(body in proptest::collection::vec(any::<u8>(), 0..300), bit in any::<usize>()) {
            let mut bytes = some(&body);
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Record::parse(MARK, &bytes), None);
        }

        #[test]
        fn any_bytes_are_a_record_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mark = bytes.first_chunk().map_or(1, |mark| u32::from_le_bytes(*mark));
            let _ = Record::parse(mark, &bytes);
        }
    }
}
