//! What may be served and what may be kept: the four rules that make a near cache right, without I/O and without a clock.
//!
//! Each value carries the [`Position`] it was true at (the reply's *stamp*); the stream of invalidations carries positions
//! too. So it doesn't matter which of a reply and an invalidation arrives first, how often, or through which node:
//!
//! 1. **Serve** an entry only if its shard still owns the slot, its lineage is the shard's, its index isn't below the
//!    slot's floor, its time hasn't come, and the stream was vouched for no longer than `max_staleness` ago. In the last
//!    case the entry is kept and the read bypasses it.
//! 2. **Fill** only with what is as new as the newest change known of the *slot*, never over a newer entry, nor after one
//!    that was here and is gone (its time had come, or there was no room). So a value that was read before a change and
//!    arrives behind its invalidation is not taken, even from a follower that lags.
//! 3. **Invalidate**: first the slot's newest change is raised, then the key's entry is dropped if it is older. One's own
//!    write is an entry at the write's index: its echo from the stream drops nothing. But a log entry holds many writes,
//!    and another's may be behind ours in the same: a key that one log entry has changed more than once is *contested*
//!    there (the stream names it twice), and one's own writes of that index are not kept.
//! 4. **Slots as a whole** are invalidated by a floor, in time that doesn't depend on the number of entries.
//!
//! One lock guards a slot and its entries, so rules 2 and 3 cannot slip between each other's steps. Lineages and
//! positions in the stream are a shard's: atomics, written by the stream's task alone.
//!
//! Times are durations since an origin of the caller's choice.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use slotcast_wire::position::Position;
use slotcast_wire::slot::{SLOTS, slot_of};

use crate::stripe::{Entry, Slot, Stripe};

/// Locks over the slots.
pub(crate) const STRIPES: usize = 64;
/// Shards of a cluster; what belongs to one with a higher number isn't cached.
const MAX_SHARDS: usize = 1024;
/// Entries that may go for one insertion; what is over the limits then goes for the next ones.
const MAX_EVICTIONS: usize = 4 * STRIPES;

/// How much is kept, and for how long without news.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Entries; beyond it those not used lately go.
    pub max_entries: usize,
    /// Bytes of keys, values and what surrounds them, likewise.
    pub max_bytes: usize,
    /// How long ago a quorum must have vouched for the stream, at most.
    pub max_staleness: Duration,
    /// Only keys that begin with one of these are kept; none: all.
    pub prefixes: Vec<Bytes>,
}

/// What a key's entry is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Serve this; none: the key doesn't exist.
    Hit(Option<Bytes>),
    /// There is none.
    Miss,
    /// There is one, but the stream hasn't been vouched for lately.
    Unverified,
}

/// Counts since the cache was made.
#[derive(Debug, Default)]
pub struct Counters {
    /// Entries dropped because their key changed.
    pub keys: AtomicU64,
    /// Slots invalidated as a whole.
    pub slots: AtomicU64,
    /// Values not taken because of rule 2.
    pub refused: AtomicU64,
    /// Entries that went for lack of room.
    pub evicted: AtomicU64,
}

/// Where the stream stands in a shard's history.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    /// 0: not known.
    pub lineage: AtomicU64,
    pub cursor: AtomicU64,
    /// Time in µs plus one; 0: never.
    pub verified_at: AtomicU64,
}

/// The parts of the rules that a test leaves out, to see that they are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    Owner,
    Lineage,
    Floor,
    Expiry,
    Verified,
    Changed,
    Newer,
    Entry,
    Contested,
    Gap,
}

/// A value on its way into the cache.
#[derive(Clone, Debug)]
pub struct Value {
    /// None: the key doesn't exist.
    pub bytes: Option<Bytes>,
    /// When this was true.
    pub stamp: Position,
    /// From when on it is not; none: no such time.
    pub expires_at: Option<Duration>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct L1 {
    stripes: Box<[Mutex<Stripe>]>,
    pub(crate) shards: Box<[Shard]>,
    limits: Limits,
    entries: AtomicUsize,
    bytes: AtomicUsize,
    /// The stripe that is to give up an entry next.
    victim: AtomicUsize,
    /// What has happened.
    pub counters: Counters,
    #[cfg(test)]
    pub(crate) broken: Option<Rule>,
}

impl L1 {
    /// Empty.
    pub fn new(limits: Limits) -> Self {
        let stripes = (0..STRIPES).map(|_| Mutex::new(Stripe::new(SLOTS / STRIPES))).collect();
        let shards = (0..MAX_SHARDS).map(|_| Shard::default()).collect();
        Self {
            stripes,
            shards,
            limits,
            entries: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            victim: AtomicUsize::new(0),
            counters: Counters::default(),
            #[cfg(test)]
            broken: None,
        }
    }

    #[inline(always)]
    pub(crate) fn keeps(&self, _rule: Rule) -> bool {
        #[cfg(test)]
        return self.broken != Some(_rule);
        #[cfg(not(test))]
        true
    }

    /// Entries in memory, dead ones included that nobody has come across yet.
    pub fn entries(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    /// Bytes they take.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Rule 1.
    pub fn lookup(&self, key: &[u8], now: Duration) -> Lookup {
        let (stripe, place) = self.place(key);
        let mut stripe = stripe.lock();
        let slot = stripe.slots[place];
        let Some(entry) = stripe.find(key) else { return Lookup::Miss };
        if self.is_dead(&slot, entry, now) {
            self.let_go(&mut stripe, place, key);
            return Lookup::Miss;
        }
        if !self.is_verified(entry.position.shard, now) && self.keeps(Rule::Verified) {
            return Lookup::Unverified;
        }
        entry.used = true;
        Lookup::Hit(entry.value.clone())
    }

    fn is_dead(&self, slot: &Slot, entry: &Entry, now: Duration) -> bool {
        let Position { shard, lineage, .. } = entry.position;
        (slot.owner != Some(shard) && self.keeps(Rule::Owner))
            || (self.lineage(shard) != Some(lineage) && self.keeps(Rule::Lineage))
            || (below(entry, slot.floor) && self.keeps(Rule::Floor))
            || (entry.expires_at.is_some_and(|at| micros(now) >= at) && self.keeps(Rule::Expiry))
    }

    fn is_verified(&self, shard: u32, now: Duration) -> bool {
        self.verified_at(shard).is_some_and(|at| now.saturating_sub(at) <= self.limits.max_staleness)
    }

    /// When a quorum last vouched for a shard's stream; none: never.
    pub fn verified_at(&self, shard: u32) -> Option<Duration> {
        let at = self.shards.get(shard as usize)?.verified_at.load(Ordering::Acquire);
        at.checked_sub(1).map(Duration::from_micros)
    }

    pub(crate) fn lineage(&self, shard: u32) -> Option<u64> {
        let lineage = self.shards.get(shard as usize)?.lineage.load(Ordering::Acquire);
        (lineage != 0).then_some(lineage)
    }

    /// Rule 2, for a value that was read. Whether it was taken.
    pub fn fill(&self, key: Bytes, value: Value) -> bool {
        let (stripe, place) = self.place(&key);
        let taken = self.fill_locked(&mut stripe.lock(), place, key, value, false);
        match taken {
            true => self.make_room(),
            false => drop(self.counters.refused.fetch_add(1, Ordering::Relaxed)),
        }
        taken
    }

    /// One's own write: the key's entry makes way for `value`, and reads under way that were before it are refused.
    pub fn written(&self, key: Bytes, value: Value) {
        let (stripe, place) = self.place(&key);
        let mut stripe = stripe.lock();
        let stamp = value.stamp;
        if self.is_current(stripe.slots[place], stamp) {
            let slot = &mut stripe.slots[place];
            slot.changed = slot.changed.max(stamp.index);
        }
        // A newer value stays: it was read behind this write, or another of one's own.
        if stripe.find(&key).is_some_and(|entry| !is_newer(entry, stamp)) {
            let removed = stripe.remove(&key);
            self.account(None, removed);
        }
        let taken = self.fill_locked(&mut stripe, place, key, value, true);
        drop(stripe);
        if taken {
            self.make_room();
        }
    }

    fn fill_locked(
        &self,
        stripe: &mut Stripe,
        place: usize,
        key: Bytes,
        value: Value,
        written: bool,
    ) -> bool {
        let Value { bytes, stamp, expires_at } = value;
        let slot = stripe.slots[place];
        let refused = !self.covers(&key)
            || !self.is_current(slot, stamp)
            || (stamp.index < slot.changed && self.keeps(Rule::Changed))
            || (written && stamp.index <= slot.contested && self.keeps(Rule::Contested))
            || (stripe.find(&key).is_some_and(|entry| is_newer(entry, stamp)) && self.keeps(Rule::Newer));
        if !refused {
            let expires_at = expires_at.map(micros);
            let entry = Entry { key, value: bytes, position: stamp, written, expires_at, used: false };
            let weight = entry.weight();
            let replaced = stripe.insert(entry);
            self.account(Some(weight), replaced);
        }
        !refused
    }

    /// Whether a stamp is of the shard and the history that the slot is in.
    fn is_current(&self, slot: Slot, stamp: Position) -> bool {
        (slot.owner == Some(stamp.shard) || !self.keeps(Rule::Owner))
            && self
                .lineage(stamp.shard)
                .is_some_and(|lineage| lineage == stamp.lineage || !self.keeps(Rule::Lineage))
    }

    /// Drops a key's entry: a write of it has an unknown outcome.
    pub fn forget(&self, key: &[u8]) {
        let (stripe, place) = self.place(key);
        self.let_go(&mut stripe.lock(), place, key);
    }

    /// Removes a key's entry for another reason than a change.
    fn let_go(&self, stripe: &mut Stripe, place: usize, key: &[u8]) {
        if let Some(removed) = stripe.remove(key) {
            self.remember(&mut stripe.slots[place], removed.position);
            self.account(None, Some(removed));
        }
    }

    /// Somebody may have seen an entry of this index that is no longer here: what is older comes too late.
    fn remember(&self, slot: &mut Slot, seen: Position) {
        if self.is_current(*slot, seen) {
            slot.changed = slot.changed.max(seen.index);
        }
    }

    /// Where the stream stands, of each shard that it has told of: what to resume from.
    pub fn cursors(&self) -> Vec<Position> {
        (0..self.shards.len() as u32).filter_map(|shard| self.cursor(shard)).collect()
    }

    /// Where the stream of one shard stands; none: it has told nothing of it.
    pub fn cursor(&self, shard: u32) -> Option<Position> {
        let index = self.shards.get(shard as usize)?.cursor.load(Ordering::Acquire);
        Some(Position { shard, lineage: self.lineage(shard)?, index })
    }

    /// Whether keys like this may be kept at all: others are not told of.
    pub fn covers(&self, key: &[u8]) -> bool {
        let prefixes = &self.limits.prefixes;
        prefixes.is_empty() || prefixes.iter().any(|prefix| key.starts_with(prefix))
    }

    pub(crate) fn account(&self, added: Option<usize>, removed: Option<Entry>) {
        if let Some(weight) = added {
            self.entries.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(weight, Ordering::Relaxed);
        }
        if let Some(entry) = removed {
            self.entries.fetch_sub(1, Ordering::Relaxed);
            self.bytes.fetch_sub(entry.weight(), Ordering::Relaxed);
        }
    }

    /// Lets entries go while there are too many. Stripes take turns, so that the keys of one slot may fill the cache.
    fn make_room(&self) {
        for _ in 0..MAX_EVICTIONS {
            if self.entries() <= self.limits.max_entries && self.bytes() <= self.limits.max_bytes {
                return;
            }
            let victim = self.victim.fetch_add(1, Ordering::Relaxed) % STRIPES;
            let dead = |slot: &Slot, entry: &Entry| {
                slot.owner != Some(entry.position.shard) || below(entry, slot.floor)
            };
            let mut stripe = self.stripes[victim].lock();
            let evicted = stripe.evict(dead, |key| slot_of(key) as usize / STRIPES);
            if let Some(evicted) = evicted {
                self.remember(&mut stripe.slots[slot_of(&evicted.key) as usize / STRIPES], evicted.position);
                self.counters.evicted.fetch_add(1, Ordering::Relaxed);
                self.account(None, Some(evicted));
            }
        }
    }

    /// The n-th has the slots that leave n when divided by their number, in order.
    pub(crate) fn stripes(&self) -> impl Iterator<Item = &Mutex<Stripe>> {
        self.stripes.iter()
    }

    pub(crate) fn stripe(&self, slot: u16) -> &Mutex<Stripe> {
        &self.stripes[slot as usize % STRIPES]
    }

    /// A key's stripe, and its slot's place in it.
    pub(crate) fn place(&self, key: &[u8]) -> (&Mutex<Stripe>, usize) {
        let slot = slot_of(key);
        (self.stripe(slot), slot as usize / STRIPES)
    }
}

/// Whether an entry is of the same history and behind this.
fn is_newer(entry: &Entry, than: Position) -> bool {
    let Position { shard, lineage, index } = entry.position;
    (shard, lineage) == (than.shard, than.lineage) && index > than.index
}

/// Whether an entry may be older than what a slot was floored for.
fn below(entry: &Entry, floor: u64) -> bool {
    entry.position.index < floor || (entry.written && entry.position.index == floor)
}

pub(crate) fn micros(time: Duration) -> u64 {
    time.as_micros().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use slotcast_wire::invalidation::{Push, Reason};

    use super::*;
    use crate::told::{Gap, Start, Subscribed};

    const LINEAGE: u64 = 7;
    const SHARD: u32 = 1;

    fn at(index: u64) -> Position {
        Position { shard: SHARD, lineage: LINEAGE, index }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn value(text: &'static str, stamp: Position) -> Value {
        Value { bytes: Some(Bytes::from_static(text.as_bytes())), stamp, expires_at: None }
    }

    fn named(from: u64, to: u64, keys: &[(&str, u64)]) -> Push {
        let keys = keys.iter().map(|(key, index)| (key.as_bytes().to_vec(), *index)).collect();
        Push::Keys { to: at(to), from, keys }
    }

    fn heartbeat(index: u64, age: u64) -> Push {
        Push::Heartbeat(vec![(at(index), age)])
    }

    fn slots(to: Position, epoch: u64, slots: &[(u16, u16)], reason: Reason) -> Push {
        Push::Slots { to, epoch, slots: slots.to_vec(), reason }
    }

    /// Subscribed at 100, vouched for at 1 s, trusted for 2 s.
    fn cache() -> L1 {
        let limits =
            Limits { max_entries: 100, max_bytes: 1 << 20, max_staleness: ms(2000), prefixes: Vec::new() };
        let l1 = L1::new(limits);
        begin(&l1, Start::Fresh, at(100), 1, &[(0, 16383)]);
        l1.take(&heartbeat(100, 0), Some(ms(1000))).unwrap();
        l1
    }

    fn begin(l1: &L1, start: Start, position: Position, epoch: u64, slots: &[(u16, u16)]) {
        l1.subscribed(&Subscribed { start, position, epoch, slots: slots.to_vec() });
    }

    fn fill(l1: &L1, key: &'static str, index: u64) -> bool {
        l1.fill(Bytes::from_static(key.as_bytes()), value("v", at(index)))
    }

    fn hit(l1: &L1, key: &str) -> bool {
        matches!(l1.lookup(key.as_bytes(), ms(1000)), Lookup::Hit(_))
    }

    #[test]
    fn what_was_read_is_served_until_it_changes() {
        let l1 = cache();
        assert_eq!(l1.lookup(b"a", ms(1000)), Lookup::Miss);
        assert!(fill(&l1, "a", 100) && fill(&l1, "b", 100));
        assert_eq!(l1.lookup(b"a", ms(1000)), Lookup::Hit(Some(Bytes::from_static(b"v"))));
        l1.take(&named(100, 105, &[("a", 103)]), None).unwrap();
        assert!(!hit(&l1, "a") && hit(&l1, "b"));
        assert_eq!((l1.entries(), l1.cursors()), (1, vec![at(105)]));
    }

    #[test]
    fn a_value_behind_its_invalidation_is_not_taken() {
        let l1 = cache();
        l1.take(&named(100, 105, &[("a", 103)]), None).unwrap();
        assert!(!fill(&l1, "a", 102), "read before the change");
        assert!(fill(&l1, "a", 103), "read after it");
        assert!(!fill(&l1, "a", 99), "older than what is here");
        l1.take(&named(100, 105, &[("a", 103)]), None).unwrap();
        assert!(hit(&l1, "a"), "what comes twice drops nothing that is newer");
    }

    #[test]
    fn without_news_the_entry_is_kept_and_not_served() {
        let l1 = cache();
        fill(&l1, "a", 100);
        assert!(matches!(l1.lookup(b"a", ms(3000)), Lookup::Hit(_)));
        assert_eq!(l1.lookup(b"a", ms(3001)), Lookup::Unverified);
        l1.take(&heartbeat(100, 500), Some(ms(3000))).unwrap();
        assert!(matches!(l1.lookup(b"a", ms(4500)), Lookup::Hit(_)), "vouched for at 2.5 s");
        assert_eq!(l1.lookup(b"a", ms(4501)), Lookup::Unverified);
        l1.take(&heartbeat(100, 2000), Some(ms(3000))).unwrap();
        assert!(matches!(l1.lookup(b"a", ms(4500)), Lookup::Hit(_)), "older news take nothing back");
    }

    #[test]
    fn own_writes_are_read_at_once_and_their_echo_drops_nothing() {
        let l1 = cache();
        fill(&l1, "a", 100);
        l1.written(Bytes::from_static(b"a"), value("mine", at(104)));
        assert_eq!(l1.lookup(b"a", ms(1000)), Lookup::Hit(Some(Bytes::from_static(b"mine"))));
        l1.take(&named(100, 104, &[("a", 104)]), None).unwrap();
        assert_eq!(l1.lookup(b"a", ms(1000)), Lookup::Hit(Some(Bytes::from_static(b"mine"))));
        assert!(!fill(&l1, "a", 103), "a read that was under way");
        l1.take(&named(104, 109, &[("a", 106)]), None).unwrap();
        l1.written(Bytes::from_static(b"a"), value("late", at(105)));
        assert!(!hit(&l1, "a"), "another's write is known to be behind it");
    }

    #[test]
    fn own_writes_of_an_entry_that_changed_the_key_again_are_not_kept() {
        let l1 = cache();
        l1.written(Bytes::from_static(b"a"), value("mine", at(104)));
        l1.take(&named(100, 104, &[("a", 104), ("a", 104)]), None).unwrap();
        assert!(!hit(&l1, "a"));
        l1.written(Bytes::from_static(b"a"), value("mine", at(104)));
        assert!(!hit(&l1, "a"), "nor when the reply is late");
        assert!(fill(&l1, "a", 104), "a read at this index was behind all of it");
        l1.take(&named(100, 104, &[("a", 104), ("a", 104)]), None).unwrap();
        assert!(hit(&l1, "a"));
    }

    #[test]
    fn a_gap_is_noticed() {
        let l1 = cache();
        assert_eq!(l1.take(&named(101, 105, &[]), None), Err(Gap));
        assert_eq!(l1.take(&heartbeat(101, 0), Some(ms(5000))), Err(Gap));
        let other = Push::Keys { to: Position { lineage: 8, ..at(105) }, from: 100, keys: Vec::new() };
        assert_eq!(l1.take(&other, None), Err(Gap));
        assert_eq!((l1.cursors(), l1.verified_at(SHARD)), (vec![at(100)], Some(ms(1000))));
    }

    #[test]
    fn slots_go_as_a_whole_and_only_those() {
        let l1 = cache();
        let slot = slot_of(b"a");
        assert!(fill(&l1, "a", 100) && fill(&l1, "b", 100));
        l1.take(&slots(at(105), 1, &[(slot, slot)], Reason::TooMany), None).unwrap();
        assert!(!hit(&l1, "a") && hit(&l1, "b"));
        assert_eq!(l1.cursors(), [at(100)], "the interval is still open");
        l1.take(&slots(at(110), 1, &[(0, 16383)], Reason::Window), None).unwrap();
        assert!(!hit(&l1, "b") && !fill(&l1, "b", 109) && fill(&l1, "b", 110));
        assert_eq!(l1.cursors(), [at(110)]);
    }

    #[test]
    fn another_history_ends_all_entries_of_the_old_one_whatever_their_numbers() {
        let l1 = cache();
        fill(&l1, "a", 100);
        let to = Position { lineage: 8, ..at(50) };
        l1.take(&slots(to, 1, &[(0, 16383)], Reason::Lineage), None).unwrap();
        assert_eq!(l1.lookup(b"a", ms(1000)), Lookup::Miss);
        assert!(!fill(&l1, "a", 100), "a read of the old history");
        assert!(l1.fill(Bytes::from_static(b"a"), value("new", Position { index: 51, ..to })));
        assert_eq!(l1.lookup(b"a", ms(1000)), Lookup::Unverified, "nobody has vouched for the new one");
    }

    #[test]
    fn a_slot_belongs_to_whom_the_newest_topology_gives_it() {
        let l1 = cache();
        fill(&l1, "a", 100);
        let (slot, other) = (slot_of(b"a"), Position { shard: 2, lineage: 9, index: 5 });
        begin(&l1, Start::Fresh, other, 3, &[(slot, slot)]);
        assert!(!hit(&l1, "a") && !fill(&l1, "a", 200), "it was another shard's");
        assert!(l1.fill(Bytes::from_static(b"a"), value("there", Position { index: 6, ..other })));
        begin(&l1, Start::Resumed, at(100), 2, &[(0, 16383)]);
        assert!(!fill(&l1, "a", 300), "an older topology says nothing new");
        begin(&l1, Start::Resumed, at(100), 4, &[(0, 16383)]);
        assert!(!fill(&l1, "a", 99) && fill(&l1, "a", 100));
        begin(&l1, Start::Resumed, other, 5, &[]);
        assert!(hit(&l1, "a"));
    }

    #[test]
    fn to_resume_keeps_all_and_a_flush_nothing_of_the_shard() {
        let l1 = cache();
        fill(&l1, "a", 100);
        begin(&l1, Start::Resumed, at(100), 1, &[(0, 16383)]);
        assert!(hit(&l1, "a"));
        begin(&l1, Start::Flush, at(140), 0, &[(0, 16383)]);
        assert!(!hit(&l1, "a"), "by an older topology too");
        assert_eq!(l1.cursors(), [at(140)]);
    }

    #[test]
    fn nothing_is_kept_of_an_unknown_history_or_outside_the_prefixes_or_beyond_its_time() {
        let l1 = cache();
        begin(&l1, Start::Fresh, Position { shard: 2, lineage: 0, index: 0 }, 2, &[(0, 16383)]);
        assert!(!l1.fill(Bytes::from_static(b"a"), value("v", Position { shard: 2, lineage: 0, index: 1 })));
        let limits = Limits { prefixes: vec![Bytes::from_static(b"user:")], ..cache().limits };
        let l1 = L1::new(limits);
        begin(&l1, Start::Fresh, at(100), 1, &[(0, 16383)]);
        assert!(!fill(&l1, "order:1", 100) && fill(&l1, "user:1", 100));
        let l1 = cache();
        l1.fill(Bytes::from_static(b"a"), Value { expires_at: Some(ms(1500)), ..value("v", at(100)) });
        assert!(matches!(l1.lookup(b"a", ms(1499)), Lookup::Hit(_)));
        assert_eq!(l1.lookup(b"a", ms(1500)), Lookup::Miss);
    }

    #[test]
    fn what_is_older_than_an_entry_that_is_gone_comes_too_late() {
        let l1 = cache();
        let until = |at_ms, index| Value { expires_at: Some(ms(at_ms)), ..value("v", at(index)) };
        l1.fill(Bytes::from_static(b"a"), until(900, 105));
        assert_eq!(l1.lookup(b"a", ms(1000)), Lookup::Miss);
        l1.written(Bytes::from_static(b"a"), value("mine", at(104)));
        assert!(!hit(&l1, "a") && !fill(&l1, "a", 104), "its time has come");
        assert!(fill(&l1, "a", 106));
        l1.forget(b"a");
        assert!(!fill(&l1, "a", 105), "forgotten");
        for n in 0..200 {
            l1.fill(Bytes::from(format!("{{b}}{n}")), value("v", at(110)));
        }
        assert!(!fill(&l1, "b", 109), "some had to go");
    }

    #[test]
    fn room_is_bounded_in_entries_and_bytes() {
        let l1 = cache();
        for n in 0..1000 {
            l1.fill(Bytes::from(format!("{{tag}}{n}")), value("v", at(100)));
            assert!(l1.entries() <= 100);
        }
        for n in 0..1000 {
            let bytes = Some(Bytes::from(vec![0; 50_000]));
            l1.fill(Bytes::from(format!("key:{n}")), Value { bytes, stamp: at(100), expires_at: None });
            assert!(l1.bytes() <= 1 << 20);
        }
        assert!(l1.entries() > 10);
        (0..1000).for_each(|n| l1.forget(format!("key:{n}").as_bytes()));
        (0..1000).for_each(|n| l1.forget(format!("{{tag}}{n}").as_bytes()));
        assert_eq!((l1.entries(), l1.bytes()), (0, 0));
    }
}
