//! A shard's invalidation log: which keys changed, by log index, as far back as its bounds let it reach.
//!
//! Every copy of a shard fills its own while it applies entries, so any of them can tell a cache what it has missed, and
//! a cache that has lost its connection, or its leader, goes on at another. A subscriber is a cursor, nothing more: it
//! costs the ring nothing to have thousands of them, and one that is slow falls off the end, which it is told.
//!
//! Bounded in bytes and in age, by whole [`Segment`]s. A ring doesn't know who reads it, nor clocks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::time::Millis;
use crate::tracking::frames::Frames;
use crate::tracking::segment::{Mark, Segment, Touched};

/// A segment is closed at this size: what an idle reader holds on to, and the grain in which the past is forgotten.
const SEGMENT_BYTES: usize = 64 << 10;
/// A longer key is noted as a change of its whole slot, so that no single record outgrows a segment.
const MAX_KEY: usize = 16 << 10;

/// Distinguishes rings: a place in one means nothing in another.
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// See the module's documentation.
#[derive(Debug)]
pub struct Ring {
    id: u64,
    state: Mutex<State>,
    /// The state's, for readers who only ask whether there is anything new: whoever is woken looks at all rings.
    lineage: AtomicU64,
    head: AtomicU64,
    /// What readers of everything were told last.
    pub frames: Frames<Cursor>,
    /// Bytes it may hold.
    limit: AtomicUsize,
}

#[derive(Debug)]
struct State {
    lineage: u64,
    /// Nothing is known of changes up to here.
    floor: u64,
    /// Everything is known of changes from the floor up to here: the last entry applied as a whole.
    head: u64,
    closed: VecDeque<Closed>,
    /// Number of the first of them; they are numbered through.
    first: u64,
    open: Segment,
    /// When its first record came.
    opened: Millis,
    /// Bytes in all segments.
    bytes: usize,
    /// The time, as told last.
    now: Millis,
}

#[derive(Debug)]
struct Closed {
    segment: Arc<Segment>,
    /// When its last record came.
    at: Millis,
}

/// Where a reader stands.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    /// In which history.
    pub lineage: u64,
    /// It knows of everything up to here.
    pub index: u64,
    place: Option<Place>,
    midway: bool,
}

/// A ring's id, a segment's number, a place in it.
#[derive(Clone, Copy, Debug)]
struct Place {
    ring: u64,
    segment: u64,
    mark: Mark,
}

/// What comes after a cursor.
pub enum Next {
    /// Nothing yet.
    Nothing,
    /// The ring cannot tell: it doesn't reach back so far.
    Forgotten,
    /// The ring cannot tell: the cursor is of another history.
    OtherLineage,
    /// This.
    Stretch(Stretch),
}

/// Some of the changes after a cursor, and where to go on after them.
pub struct Stretch {
    segment: Arc<Segment>,
    mark: Mark,
    /// Changes of later entries are not whole yet.
    head: u64,
    /// Everything up to here has been seen when the stretch is at its end.
    upto: u64,
    after: Place,
    /// Whether its last entry may go on behind it.
    midway: bool,
    /// Where the segment at hand begins in the ring's.
    origin: Place,
}

/// Bounds and figures of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The history.
    pub lineage: u64,
    /// Positions after this one can be resumed from.
    pub floor: u64,
    /// The newest.
    pub head: u64,
    /// Memory.
    pub bytes: usize,
}

impl Cursor {
    /// At a position.
    pub fn at(lineage: u64, index: u64) -> Self {
        Self { lineage, index, place: None, midway: false }
    }

    /// Whether some changes of an entry have been shown, and there may be more of them.
    pub fn is_midway(&self) -> bool {
        self.midway
    }
}

impl Ring {
    /// Empty, of no history yet. It may hold `limit` bytes.
    pub fn new(limit: usize) -> Self {
        let state = State {
            lineage: 0,
            floor: 0,
            head: 0,
            closed: VecDeque::new(),
            first: 0,
            open: Segment::new(0),
            opened: 0,
            bytes: 0,
            now: 0,
        };
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Self {
            id,
            state: Mutex::new(state),
            lineage: AtomicU64::new(0),
            head: AtomicU64::new(0),
            frames: Frames::default(),
            limit: AtomicUsize::new(limit),
        }
    }

    /// Notes what the entry at `index` changed.
    pub fn note<'a>(&self, index: u64, touched: impl Iterator<Item = Touched<'a>>) {
        #[cfg(feature = "broken")]
        if index.is_multiple_of(100) && crate::broken::breaks(crate::broken::Rule::ChangeLeftOut) {
            return;
        }
        let mut state = self.state.lock();
        for touched in touched {
            let touched = match touched {
                Touched::Key(slot, key) if key.len() > MAX_KEY => Touched::Slot(slot),
                touched => touched,
            };
            state.push(index, touched);
        }
        state.shrink(self.limit.load(Ordering::Relaxed));
    }

    /// The entry at `index` is applied as a whole; whether there is news for readers.
    pub fn publish(&self, index: u64) -> bool {
        let mut state = self.state.lock();
        let news = state.open.last() > state.head;
        state.head = state.head.max(index);
        self.head.store(state.head, Ordering::SeqCst);
        news
    }

    /// A history begins, or goes on from elsewhere: nothing is known of how things came to be as they are at `index`.
    pub fn restart(&self, lineage: u64, index: u64) {
        let mut state = self.state.lock();
        state.first += state.closed.len() as u64 + 1;
        state.closed.clear();
        state.open = Segment::new(index);
        state.bytes = 0;
        (state.lineage, state.floor, state.head) = (lineage, index, index);
        self.lineage.store(lineage, Ordering::SeqCst);
        self.head.store(index, Ordering::SeqCst);
    }

    /// Whether it is one of a history: a copy that was just made knows nothing yet.
    pub fn has_history(&self) -> bool {
        self.lineage.load(Ordering::SeqCst) != 0
    }

    /// Whether a cursor stands at the newest entry, and not within it. Whoever is woken by what comes behind it is
    /// woken after this tells so.
    #[inline]
    pub fn is_all_seen(&self, cursor: &Cursor) -> bool {
        self.head.load(Ordering::SeqCst) == cursor.index
            && self.lineage.load(Ordering::SeqCst) == cursor.lineage
            && !cursor.midway
    }

    /// Tells the time, and forgets what is older than `age` (ms) or beyond `limit` bytes.
    pub fn retire(&self, now: Millis, age: Millis, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
        let mut state = self.state.lock();
        state.now = now;
        if now.saturating_sub(state.opened) >= age {
            state.close();
        }
        while state.closed.front().is_some_and(|closed| now.saturating_sub(closed.at) >= age) {
            state.forget_first();
        }
        state.shrink(limit);
    }

    /// Its bounds.
    pub fn extent(&self) -> Extent {
        let State { lineage, floor, head, bytes, .. } = *self.state.lock();
        Extent { lineage, floor, head, bytes }
    }

    /// What comes after a cursor; a stretch at most.
    pub fn next(&self, cursor: &Cursor) -> Next {
        let state = self.state.lock();
        if state.lineage != cursor.lineage {
            return Next::OtherLineage;
        }
        if cursor.index < state.floor {
            return Next::Forgotten;
        }
        if cursor.index >= state.head {
            return Next::Nothing;
        }
        let place = cursor.place.filter(|place| place.ring == self.id && place.segment >= state.first);
        let (number, mark) = match place {
            Some(place) => (place.segment, Some(place.mark)),
            None => {
                let seen = state.closed.partition_point(|closed| closed.segment.last() <= cursor.index);
                (state.first + seen as u64, None)
            }
        };
        let at = (number - state.first) as usize;
        let place = |segment, mark| Place { ring: self.id, segment, mark };
        let head = state.head;
        Next::Stretch(match state.closed.get(at) {
            Some(Closed { segment, .. }) => Stretch {
                segment: segment.clone(),
                mark: mark.unwrap_or(segment.start()),
                head,
                // The last entry may go on in the next segment.
                upto: segment.last().saturating_sub(1).min(head),
                after: place(number + 1, state.start_of(at + 1)),
                midway: true,
                origin: place(number, segment.start()),
            },
            None => {
                let mark = mark.unwrap_or(state.open.start());
                let segment = Arc::new(state.open.tail(mark));
                let (start, after) = (segment.start(), place(number, state.open.end()));
                Stretch {
                    segment,
                    mark: start,
                    head,
                    upto: head,
                    after,
                    midway: false,
                    origin: place(number, mark),
                }
            }
        })
    }
}

impl Stretch {
    /// Shows every change after the cursor, with its index, and moves the cursor behind them.
    pub fn walk(self, cursor: &mut Cursor, mut f: impl FnMut(u64, Touched<'_>)) {
        let mut mark = self.mark;
        while let Some((index, touched, next)) = self.segment.next(mark) {
            if index > self.head {
                // The rest is not whole yet: to be read again from here, when it is.
                cursor.index = cursor.index.max(self.upto);
                cursor.midway = false;
                cursor.place = Some(Place { mark: mark.behind(self.origin.mark), ..self.origin });
                return;
            }
            if index > cursor.index {
                f(index, touched);
            }
            mark = next;
        }
        cursor.index = cursor.index.max(self.upto);
        (cursor.place, cursor.midway) = (Some(self.after), self.midway);
    }
}

impl State {
    fn push(&mut self, index: u64, touched: Touched<'_>) {
        if self.open.len() >= SEGMENT_BYTES {
            self.close();
        }
        if self.open.is_empty() {
            self.opened = self.now;
        }
        let before = self.open.len();
        self.open.push(index, touched);
        self.bytes += self.open.len() - before;
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            let next = Segment::new(self.open.last());
            let segment = Arc::new(std::mem::replace(&mut self.open, next));
            self.closed.push_back(Closed { segment, at: self.now });
        }
    }

    fn shrink(&mut self, limit: usize) {
        while self.bytes > limit && !self.closed.is_empty() {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some(Closed { segment, .. }) = self.closed.pop_front() {
            self.first += 1;
            self.bytes -= segment.len();
            self.floor = self.floor.max(segment.last());
        }
    }

    fn start_of(&self, at: usize) -> Mark {
        self.closed.get(at).map_or_else(|| self.open.start(), |closed| closed.segment.start())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Changes = Vec<(u64, Vec<u8>)>;

    /// Reads on from a cursor until nothing comes; `None`: the ring cannot tell.
    fn read(ring: &Ring, cursor: &mut Cursor) -> Option<Changes> {
        let mut all = Vec::new();
        loop {
            match ring.next(cursor) {
                Next::Nothing => return Some(all),
                Next::Forgotten | Next::OtherLineage => return None,
                Next::Stretch(stretch) => stretch.walk(cursor, |index, touched| match touched {
                    Touched::Key(_, key) => all.push((index, key.to_vec())),
                    Touched::Slot(slot) => all.push((index, format!("slot {slot}").into_bytes())),
                    Touched::All => all.push((index, b"all".to_vec())),
                }),
            }
        }
    }

    fn note(ring: &Ring, index: u64, key: &[u8]) {
        ring.note(index, std::iter::once(Touched::Key(1, key)));
    }

    #[test]
    fn a_reader_sees_whole_entries_only() {
        let ring = Ring::new(1 << 20);
        ring.restart(9, 0);
        let mut cursor = Cursor::at(9, 0);
        note(&ring, 1, b"a");
        assert_eq!(read(&ring, &mut cursor), Some(vec![]));
        note(&ring, 1, b"b");
        assert!(ring.publish(1));
        note(&ring, 2, b"c");
        assert_eq!(read(&ring, &mut cursor), Some(vec![(1, b"a".to_vec()), (1, b"b".to_vec())]));
        assert!(ring.publish(2));
        assert_eq!(read(&ring, &mut cursor), Some(vec![(2, b"c".to_vec())]));
        assert!(!ring.publish(3), "no change, no news");
        assert_eq!((read(&ring, &mut cursor), cursor.index), (Some(vec![]), 3), "nothing up to there");
    }

    #[test]
    fn what_is_too_old_too_much_or_of_another_history_is_a_gap() {
        let ring = Ring::new(1 << 20);
        ring.restart(9, 0);
        for index in 1..=20_000 {
            note(&ring, index, format!("key:{index}").as_bytes());
            ring.publish(index);
        }
        assert_eq!(read(&ring, &mut Cursor::at(9, 0)).unwrap().len(), 20_000);
        assert_eq!(read(&ring, &mut Cursor::at(9, 19_000)).unwrap()[0], (19_001, b"key:19001".to_vec()));
        ring.retire(1_000, 600_000, 100_000);
        let Extent { floor, bytes, .. } = ring.extent();
        assert!(bytes <= 100_000 + SEGMENT_BYTES && floor > 0);
        assert_eq!(read(&ring, &mut Cursor::at(9, floor - 1)), None);
        assert_eq!(read(&ring, &mut Cursor::at(9, floor)).unwrap().len() as u64, 20_000 - floor);
        assert_eq!(read(&ring, &mut Cursor::at(8, 20_000)), None);
        ring.retire(700_000, 600_000, 100_000);
        ring.retire(1_400_000, 600_000, 100_000);
        assert_eq!(ring.extent().bytes, 0, "too old");
        assert_eq!(read(&ring, &mut Cursor::at(9, 20_000)), Some(vec![]), "nothing is missing");
        ring.restart(9, 50_000);
        assert_eq!(read(&ring, &mut Cursor::at(9, 20_000)), None, "a snapshot in between");
        assert_eq!(read(&ring, &mut Cursor::at(9, 60_000)), Some(vec![]), "it is behind the reader");
    }

    #[test]
    fn a_giant_key_is_its_slot() {
        let ring = Ring::new(1 << 20);
        ring.restart(9, 0);
        note(&ring, 1, &vec![b'k'; MAX_KEY + 1]);
        ring.publish(1);
        assert_eq!(read(&ring, &mut Cursor::at(9, 0)), Some(vec![(1, b"slot 1".to_vec())]));
    }

    proptest! {
        /// Readers that begin anywhere and read at any time see each change once, in order, or are told that they cannot.
        #[test]
        fn nothing_is_left_out_and_nothing_comes_twice(
            steps in prop::collection::vec((0..4u8, 0..40u16), 1..300),
            limit in 0..400_000usize,
        ) {
            let ring = Ring::new(limit);
            ring.restart(9, 0);
            let (mut noted, mut index) = (Vec::new(), 0u64);
            let mut readers: Vec<(Cursor, u64, Changes)> = Vec::new();
            for (at, (what, amount)) in steps.into_iter().enumerate() {
                match what {
                    0 | 1 => {
                        index += 1 + u64::from(amount % 3);
                        for n in 0..amount {
                            let key = vec![n as u8; 1 + usize::from(amount) * 40];
                            note(&ring, index, &key);
                            noted.push((index, key));
                            if n % 7 == 3 {
                                for (cursor, _, seen) in &mut readers {
                                    seen.extend(read(&ring, cursor).unwrap_or_default());
                                }
                            }
                        }
                        ring.publish(index);
                    }
                    2 => {
                        let Extent { floor, head, .. } = ring.extent();
                        let from = floor + u64::from(amount) % (head - floor + 1);
                        readers.push((Cursor::at(9, from), from, Vec::new()));
                    }
                    _ => ring.retire(at as u64 * 1000, 100_000, limit),
                }
            }
            for (mut cursor, from, mut seen) in readers {
                let rest = read(&ring, &mut cursor);
                let upto = if rest.is_some() { index } else { cursor.index };
                seen.extend(rest.unwrap_or_default());
                let wanted: Vec<_> =
                    noted.iter().filter(|(index, _)| (from + 1..=upto).contains(index)).cloned().collect();
                prop_assert!(seen.len() >= wanted.len() && seen[..wanted.len()] == wanted, "{from} {upto}");
                prop_assert!(seen[wanted.len()..].iter().all(|(index, _)| *index == upto + 1), "an entry begun");
            }
        }
    }
}
