//! Reads a log back: what each member had, and where the log really ends. Pure: segments' bytes in, findings out.
//!
//! The end may be torn: a write that was under way when the process or the machine died. It is cut off. But a record
//! that was on the disk for certain (a later `Synced` record says so, or no machine died at all and yet good records
//! follow the bad one) and is not there now means that the disk forgets, and then nothing is guessed.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use crate::wal::ledger::Ledger;
use crate::wal::record::{Kind, Record};
use crate::wal::segment::{HEADER, Header};
use crate::wal::trust::{Boot, End};
use crate::wal::{Key, NODE};

/// A place in the log: segment, and offset in its file.
pub type Position = (u64, u64);

/// Where an entry's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// Its term.
    pub term: u64,
    /// Its index.
    pub index: u64,
    /// Its body's place.
    pub at: Position,
    /// Its body's bytes.
    pub length: usize,
}

/// What the log says of one member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Term, member voted for, whether that one won.
    pub vote: Option<(u64, u64, bool)>,
    /// (term, index) of the last entry known to be committed.
    pub committed: Option<(u64, u64)>,
    /// (term, index) of a snapshot that was installed: all up to there is in it, if anywhere.
    pub base: Option<(u64, u64)>,
    /// Entries without a gap. They may begin anywhere: what a snapshot covers may be gone.
    pub entries: VecDeque<Located>,
}

/// The log cannot be what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corrupt(pub String);

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the log is damaged: {}", self.0)
    }
}

impl std::error::Error for Corrupt {}

/// The state of reading. Give it every segment, in order.
#[derive(Debug, Default)]
pub struct Scan {
    /// The present boot.
    boot: Option<Boot>,
    /// Members, by key.
    pub members: BTreeMap<Key, Found>,
    /// The node's last note.
    pub note: Option<Vec<u8>>,
    /// Which segments are needed.
    pub ledger: Ledger,
    /// The log's own number.
    pub wal: Option<u64>,
    /// How it was written, and ended.
    pub end: Option<End>,
    /// Up to where it is on the disk for certain.
    pub synced: Position,
    /// Where it ends early, if it does: to be cut there, and all later segments with it.
    pub cut: Option<Position>,
    /// The last segment read.
    last: Option<u64>,
}

impl Scan {
    /// Of a log nothing is known of yet, on a machine booted thus.
    pub fn new(boot: Option<Boot>) -> Scan {
        Scan { boot, ..Scan::default() }
    }

    /// Reads the next segment.
    pub fn read(&mut self, number: u64, bytes: &[u8]) -> Result<(), Corrupt> {
        if let Some(last) = self.last.replace(number)
            && number != last + 1
        {
            return Err(Corrupt(format!("segment {} is missing", last + 1)));
        }
        let header = Header::parse(bytes)
            .filter(|header| header.number == number && self.wal.is_none_or(|wal| wal == header.wal));
        let Some(header) = header else {
            self.cut.get_or_insert((number, 0));
            return Ok(());
        };
        if self.cut.is_some() {
            return self.vouch(&header, bytes, HEADER);
        }
        self.wal = Some(header.wal);
        self.end = Some(End { boot: header.boot, sync: header.sync, stopped: false });
        self.ledger.begin(number);
        self.ledger.wrote(bytes.len() as u64);
        let mut at = HEADER;
        while let Some(rest) = bytes.get(at..).filter(|rest| rest.iter().take(4).any(|byte| *byte != 0)) {
            let Some(record) = Record::parse(header.mark(), rest) else {
                self.cut = Some((number, at as u64));
                return self.vouch(&header, bytes, at + 1);
            };
            self.take(&record, (number, at as u64));
            at += record.size();
        }
        // Zeros: the end, or a page that never reached the disk.
        let torn = bytes.get(at..).is_some_and(|rest| rest.iter().any(|byte| *byte != 0));
        if torn {
            self.cut = Some((number, at as u64));
            return self.vouch(&header, bytes, at);
        }
        Ok(())
    }

    /// Whether something after the cut says that what is cut off was kept.
    fn vouch(&mut self, header: &Header, bytes: &[u8], from: usize) -> Result<(), Corrupt> {
        let Some(cut) = self.cut else { return Ok(()) };
        let mark = header.mark().to_le_bytes();
        let same_boot = header.boot.is_some() && header.boot == self.boot;
        let mut at = from;
        while let Some(found) = bytes.get(at..).and_then(|rest| rest.windows(4).position(|four| four == mark))
        {
            at += found;
            if let Some(record) = bytes.get(at..).and_then(|rest| Record::parse(header.mark(), rest)) {
                let synced = record.kind == Kind::Synced && (record.term, record.index) > cut;
                if synced || same_boot {
                    let (segment, offset) = cut;
                    let file = crate::wal::segment::name(segment);
                    return Err(Corrupt(format!("{file} is bad at byte {offset}, and good records follow")));
                }
            }
            at += 1;
        }
        Ok(())
    }

    fn take(&mut self, record: &Record, (segment, at): Position) {
        let Record { kind, key, term, index, body } = *record;
        if kind == Kind::Cleared {
            (self.members, self.note) = Default::default();
            self.ledger.clear();
        }
        if let Some(end) = &mut self.end {
            end.stopped = kind == Kind::Stopped;
        }
        if key == NODE {
            match kind {
                Kind::Note => self.note = Some(body.concat()),
                Kind::Synced => self.synced = (term, index),
                _ => {}
            }
            return;
        }
        if kind == Kind::Forget {
            self.members.remove(&key);
            self.ledger.forget(key);
            return;
        }
        let member = self.members.entry(key).or_default();
        match kind {
            Kind::Vote => member.vote = Some((term, index, body[1] == [1])),
            Kind::Append => {
                let at = (segment, at + crate::wal::record::HEAD as u64);
                member.append(Located { term, index, at, length: body[1].len() });
                self.ledger.appended(key, index);
            }
            Kind::Truncate => member.truncate(index),
            Kind::Purge => member.purge(term, index),
            Kind::Committed => member.committed = member.committed.max(Some((term, index))),
            _ => {}
        }
    }
}

impl Found {
    fn append(&mut self, entry: Located) {
        self.truncate(entry.index);
        let next = self.entries.back().map(|last| last.index + 1);
        if next.is_some_and(|next| next != entry.index) {
            self.entries.clear();
        }
        self.entries.push_back(entry);
    }

    fn truncate(&mut self, index: u64) {
        while self.entries.back().is_some_and(|entry| entry.index >= index) {
            self.entries.pop_back();
        }
    }

    fn purge(&mut self, term: u64, index: u64) {
        while self.entries.front().is_some_and(|entry| entry.index <= index) {
            self.entries.pop_front();
        }
        self.base = Some((term, index));
    }

    /// Whether the entries go on, without a gap, from a state that holds all up to `state` (`None`: the empty one).
    pub fn follows(&self, state: Option<u64>) -> bool {
        let next = state.map_or(0, |state| state + 1);
        self.base.is_none_or(|(_, base)| base < next)
            && self.entries.front().is_none_or(|first| first.index <= next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::GroupId;
    use crate::wal::trust::Sync;
    use proptest::prelude::*;

    const A: Key = (GroupId(1), 11);
    const BOOT: Option<Boot> = Some(Boot(1));

    fn header(number: u64) -> Header {
        Header { number, wal: 5, boot: BOOT, sync: Sync::Background }
    }

    /// A segment of these records, and where each of them begins.
    fn segment(number: u64, records: &[Record]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = header(number).bytes().to_vec();
        let mut starts = Vec::new();
        for record in records {
            starts.push(bytes.len());
            record.put(header(number).mark(), &mut bytes);
        }
        (bytes, starts)
    }

    fn append(index: u64, body: &[u8]) -> Record<'_> {
        Record { body: [&[], body], ..Record::new(Kind::Append, A, 1, index) }
    }

    fn indexes(found: &Found) -> Vec<u64> {
        found.entries.iter().map(|entry| entry.index).collect()
    }

    /// Scanned after the machine has died.
    fn scan(segments: &[Vec<u8>]) -> Result<Scan, Corrupt> {
        let mut scan = Scan::new(Some(Boot(2)));
        (1..).zip(segments).try_for_each(|(number, bytes)| scan.read(number, bytes))?;
        Ok(scan)
    }

    #[test]
    fn a_members_records_add_up() {
        let first = [
            Record { body: [&[], &[1]], ..Record::new(Kind::Vote, A, 3, 12) },
            append(0, b"a"),
            append(1, b"b"),
            append(2, b"c"),
            append(1, b"other"),
            Record::new(Kind::Committed, A, 1, 1),
        ];
        let second = [append(2, b"d"), append(3, b"e"), Record::new(Kind::Truncate, A, 0, 3)];
        let segments = [segment(1, &first).0, [segment(2, &second).0, vec![0; 500]].concat()];
        let scan = scan(&segments).unwrap();
        let found = &scan.members[&A];
        assert_eq!((found.vote, found.committed, found.base), (Some((3, 12, true)), Some((1, 1)), None));
        assert_eq!((indexes(found), scan.cut), (vec![0, 1, 2], None));
        let Located { at: (number, offset), length, .. } = found.entries[1];
        let body = &segments[number as usize - 1][offset as usize..][..length];
        assert_eq!(body, b"other");
        assert!(found.follows(None) && found.follows(Some(2)) && found.follows(Some(90)));
        assert_eq!(scan.end, Some(End { boot: BOOT, sync: Sync::Background, stopped: false }));
    }

    #[test]
    fn an_installed_snapshot_is_a_base_that_the_log_alone_does_not_reach() {
        let records = [append(0, b"a"), Record::new(Kind::Purge, A, 2, 9), append(10, b"b")];
        let scan = scan(&[segment(1, &records).0]).unwrap();
        let found = &scan.members[&A];
        assert_eq!((indexes(found), found.base), (vec![10], Some((2, 9))));
        assert!(!found.follows(None) && !found.follows(Some(8)) && found.follows(Some(9)));
    }

    #[test]
    fn a_log_whose_beginning_is_deleted_goes_on_from_a_snapshot_only() {
        let scan = scan(&[segment(1, &[append(70, b"a"), append(71, b"b")]).0]).unwrap();
        let found = &scan.members[&A];
        assert!(!found.follows(None) && !found.follows(Some(68)) && found.follows(Some(69)));
    }

    #[test]
    fn forgetting_and_clearing_leave_nothing() {
        let note = Record { body: [&[], b"me"], ..Record::new(Kind::Note, NODE, 0, 0) };
        let mut records = vec![append(0, b"a"), note, Record::new(Kind::Stopped, NODE, 0, 0)];
        let read = scan(&[segment(1, &records).0]).unwrap();
        assert_eq!((read.note.as_deref(), read.end.unwrap().stopped), (Some(&b"me"[..]), true));
        records.push(Record::new(Kind::Forget, A, 0, 0));
        let read = scan(&[segment(1, &records).0]).unwrap();
        assert_eq!((read.members.len(), read.end.unwrap().stopped), (0, false));
        records.push(Record::new(Kind::Cleared, NODE, 0, 0));
        assert_eq!(scan(&[segment(1, &records).0]).unwrap().note, None);
    }

    #[test]
    fn a_bad_record_before_one_that_was_synced_is_an_error_and_after_it_a_torn_end() {
        let synced = |offset| Record::new(Kind::Synced, NODE, 1, offset);
        let (whole, starts) = segment(1, &[append(0, b"a"), append(1, b"b"), append(2, b"c")]);
        let damage = |synced: Record| {
            let mut bytes = whole.clone();
            synced.put(header(1).mark(), &mut bytes);
            bytes[starts[1] + 20] ^= 1;
            scan(&[bytes])
        };
        let error = damage(synced(starts[2] as u64)).unwrap_err();
        assert!(error.to_string().contains(&format!("bad at byte {}", starts[1])), "{error}");
        let torn = damage(synced(starts[1] as u64)).unwrap();
        assert_eq!((indexes(&torn.members[&A]), torn.cut), (vec![0], Some((1, starts[1] as u64))));
    }

    #[test]
    fn without_a_dead_machine_nothing_follows_a_torn_end() {
        let (mut bytes, starts) = segment(1, &[append(0, b"a"), append(1, b"b"), append(2, b"c")]);
        bytes[starts[1] + 20] ^= 1;
        assert!(Scan::new(BOOT).read(1, &bytes).is_err());
        bytes.truncate(starts[2] + 5);
        let mut scan = Scan::new(BOOT);
        scan.read(1, &bytes).unwrap();
        assert_eq!(indexes(&scan.members[&A]), [0]);
    }

    #[test]
    fn segments_after_a_torn_one_are_cut_off_too_unless_they_vouch_for_it() {
        let (mut first, starts) = segment(1, &[append(0, b"a"), append(1, b"b")]);
        first[starts[1] + 20] ^= 1;
        let cut = scan(&[first.clone(), segment(2, &[append(2, b"c")]).0]).unwrap();
        assert_eq!((indexes(&cut.members[&A]), cut.cut), (vec![0], Some((1, starts[1] as u64))));
        let vouching = segment(2, &[append(2, b"c"), Record::new(Kind::Synced, NODE, 2, 50)]).0;
        assert!(scan(&[first, vouching]).is_err());
    }

    #[test]
    fn a_missing_segment_is_an_error_and_a_headless_one_the_end() {
        let [one, two, three] = [1, 2, 3].map(|number| segment(number, &[append(number, b"a")]).0);
        let mut holed = Scan::new(None);
        holed.read(1, &one).unwrap();
        assert!(holed.read(3, &three).unwrap_err().0.contains("segment 2 is missing"));
        assert_eq!(scan(&[one, vec![0; 300]]).unwrap().cut, Some((2, 0)));
        assert_eq!(scan(&[two]).unwrap().cut, Some((1, 0)), "another segment's file");
    }

    proptest! {
        /// Of a log whose first records were synced, whatever happens to the bytes after them, exactly the synced
        /// ones and a prefix of the others come back.
        #[test]
        fn a_cut_or_a_flip_in_the_tail_leaves_a_prefix_that_holds_all_that_was_synced(
            lengths in proptest::collection::vec(0usize..200, 1..12),
            synced in any::<usize>(),
            cut in any::<usize>(),
            flip in proptest::option::of(any::<usize>()),
            zeros in 0usize..100,
        ) {
            let bodies: Vec<Vec<u8>> = lengths.iter().map(|length| vec![*length as u8; *length]).collect();
            let records: Vec<Record> = (0..).zip(&bodies).map(|(index, body)| append(index, body)).collect();
            let (mut bytes, mut starts) = segment(1, &records);
            starts.push(bytes.len());
            let written = bytes.clone();
            let kept = synced % starts.len();
            let tail = bytes.len() - starts[kept];
            bytes.truncate(starts[kept] + cut % (tail + 1));
            let left = bytes.len() - starts[kept];
            if let Some(flip) = flip.filter(|_| left > 0) {
                bytes[starts[kept] + flip / 8 % left] ^= 1 << (flip % 8);
            }
            bytes.extend(std::iter::repeat_n(0, zeros));
            let same = |ends: &&[usize]| bytes.get(ends[0]..ends[1]) == written.get(ends[0]..ends[1]);
            let whole = starts.windows(2).take_while(same).count();
            let scan = scan(&[bytes]).unwrap();
            let found = scan.members.get(&A).map(indexes).unwrap_or_default();
            prop_assert_eq!(&found, &(0..whole as u64).collect::<Vec<_>>());
            prop_assert!(found.len() >= kept);
        }

        #[test]
        fn any_bytes_are_a_log_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            let _ = scan(&[[header(1).bytes().to_vec(), bytes].concat()]);
        }
    }
}
