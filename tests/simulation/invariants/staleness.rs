//! No near cache serves for longer than its bound what a newer acknowledged write has overtaken, and none serves what
//! never was. Keys' values by log index are taken from whichever copy applies an entry first.
//!
//! A write counts as acknowledged when the node that proposed it, or a later entry, has applied it: then replies go out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use slotcast::id::GroupId;
use slotcast::keyspace::Keyspace;
use slotcast::keyspace::effect::Nobody;
use slotcast::keyspace::locked::{Locked, Needs};
use slotcast::topology::slot_map::SlotMap;
use slotcast_near_cache::l1::{L1, Lookup};
use slotcast_wire::position::Position;
use slotcast_wire::slot::slot_of;

use crate::node::NODES;
use crate::trace::Trace;

/// While nothing goes wrong, what was overtaken is served for so long (ms) at most.
const CALM: u64 = 100;
/// Ages are told in whole milliseconds, and rounded on the way.
const SLACK: u64 = 3;
/// A value is on its way to a cache for so long (ms) at most.
const UNDER_WAY: u64 = 1_000;
/// Own writes remembered of a key, of which one is in the cache.
const CANDIDATES: usize = 4;

/// See the module's documentation. A cheap handle.
#[derive(Clone)]
pub struct Staleness {
    trace: Trace,
    /// By shard.
    keys: Arc<BTreeMap<GroupId, Vec<Vec<u8>>>>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    changes: BTreeMap<Vec<u8>, Vec<Change>>,
    applied: BTreeMap<GroupId, u64>,
    /// Indexes, and when all up to there was acknowledged.
    acknowledged: BTreeMap<GroupId, Vec<(u64, u64)>>,
    caches: Vec<Cache>,
    weather: Weather,
    /// Values that are taken in before (ms) may be of a history that is lost.
    unknown_until: u64,
    counts: Counts,
}

/// How things go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weather {
    /// Nothing goes wrong, or has just before.
    Calm,
    /// Nothing goes wrong any more.
    Mended,
    #[default]
    Storm,
}

/// What came of it all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Cached entries that a newer write has overtaken, in the caches or on their way there.
    pub overtaken: usize,
    /// Times an entry was served.
    pub served: usize,
    /// Times it was overtaken already, by an acknowledged write.
    pub stale: usize,
    /// The longest that was so (ms).
    pub longest: u64,
    /// Entries thrown away although nothing had changed.
    pub needless: usize,
}

/// What an entry has made of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    index: u64,
    value: Option<Bytes>,
    deadline: Option<u64>,
}

struct Cache {
    l1: Arc<L1>,
    bound: u64,
    /// What it may hold of a key: one of these.
    held: BTreeMap<Vec<u8>, Vec<Held>>,
}

/// A value that a cache has taken in.
#[derive(Clone, Debug)]
pub struct Held {
    pub value: Option<Bytes>,
    pub position: Position,
    /// Its own write.
    pub written: bool,
    /// From when on it is not served (ms).
    pub expires_at: Option<u64>,
}

impl Staleness {
    /// Nothing has happened to these keys yet.
    pub fn new(trace: Trace, keys: impl Iterator<Item = String>) -> Staleness {
        let shards: Vec<GroupId> = (1..=NODES as u32).map(GroupId).collect();
        let slots = SlotMap::even(&shards);
        let mut by_shard: BTreeMap<GroupId, Vec<Vec<u8>>> = BTreeMap::new();
        for key in keys {
            let owner = slots.owner(slot_of(key.as_bytes())).unwrap();
            by_shard.entry(owner).or_default().push(key.into_bytes());
        }
        Staleness { trace, keys: Arc::new(by_shard), seen: Arc::default() }
    }

    /// A cache begins, empty; its number.
    pub fn watch(&self, l1: Arc<L1>, bound: Duration) -> usize {
        let caches = &mut self.seen.lock().caches;
        caches.push(Cache { l1, bound: bound.as_millis() as u64, held: BTreeMap::new() });
        caches.len() - 1
    }

    /// From now on things go like this.
    pub fn set_weather(&self, weather: Weather) {
        self.seen.lock().weather = weather;
    }

    /// Whether something may go wrong.
    pub fn is_stormy(&self) -> bool {
        self.seen.lock().weather == Weather::Storm
    }

    /// What came of it all.
    pub fn counts(&self) -> Counts {
        self.seen.lock().counts
    }

    /// Acknowledged writes are lost: what is known of indexes is not so any more, nor what is under way with one.
    pub fn lost(&self) {
        let seen = &mut *self.seen.lock();
        (seen.changes, seen.applied, seen.acknowledged) = Default::default();
        seen.caches.iter_mut().for_each(|cache| cache.held.clear());
        seen.unknown_until = self.trace.now() + UNDER_WAY;
    }

    /// A copy has applied an entry; `acknowledges`: it had proposed it.
    pub fn applied(&self, group: GroupId, index: u64, keyspace: &Keyspace, acknowledges: bool) {
        let now = self.trace.now();
        let seen = &mut *self.seen.lock();
        if acknowledges {
            let acknowledged = seen.acknowledged.entry(group).or_default();
            if acknowledged.last().is_none_or(|(last, _)| *last < index) {
                acknowledged.push((index, now));
            }
        }
        let before = seen.applied.entry(group).or_default();
        if index <= *before {
            return;
        }
        *before = index;
        for key in self.keys.get(&group).into_iter().flatten() {
            let locked = Locked::new(keyspace, &Needs::Slot(slot_of(key)), 0, 0, &Nobody);
            let value = locked.string(key).unwrap().map(Bytes::copy_from_slice);
            let deadline = locked.peek(key).and_then(|record| record.expires_at());
            let change = Change { index, value, deadline };
            let changes = seen.changes.entry(key.clone()).or_default();
            let same = match changes.last() {
                Some(last) => (&last.value, last.deadline) == (&change.value, change.deadline),
                None => change.value.is_none(),
            };
            if !same {
                changes.push(change);
                let now = Duration::from_millis(now);
                let holds = |cache: &&Cache| cache.l1.lookup(key, now) != Lookup::Miss;
                seen.counts.overtaken += seen.caches.iter().filter(holds).count();
            }
        }
    }

    /// A cache has taken a value in.
    pub fn filled(&self, cache: usize, key: &[u8], held: Held) {
        let (now, seen) = (self.trace.now(), &mut *self.seen.lock());
        if now < seen.unknown_until {
            seen.caches[cache].held.remove(key);
            return;
        }
        seen.counts.overtaken += usize::from(seen.overtaken(key, &held).is_some());
        let candidates = seen.caches[cache].held.entry(key.to_vec()).or_default();
        match held.written {
            true if candidates.len() >= CANDIDATES => drop(candidates.remove(0)),
            true => {}
            false => candidates.clear(),
        }
        candidates.push(held);
    }

    /// A cache has been asked for a key.
    pub fn looked_up(&self, cache: usize, key: &[u8], found: &Lookup) {
        let now = self.trace.now();
        let seen = &mut *self.seen.lock();
        match found {
            Lookup::Hit(value) => {
                if let Err(what) = seen.served(cache, key, value, now) {
                    let key = String::from_utf8_lossy(key);
                    self.trace.violation(format!("near cache {cache} serves {key} = {value:?}: {what}"));
                }
            }
            Lookup::Unverified => {}
            Lookup::Miss => {
                let held = seen.caches[cache].held.remove(key).and_then(|mut candidates| candidates.pop());
                let needless = held.is_some_and(|held| {
                    held.expires_at.is_none_or(|at| now < at) && seen.overtaken(key, &held).is_none()
                });
                seen.counts.needless += usize::from(needless);
            }
        }
    }
}

impl Seen {
    /// The entry that has overtaken a value, if one has.
    fn overtaken(&self, key: &[u8], held: &Held) -> Option<u64> {
        let changes = self.changes.get(key)?;
        let later = changes.partition_point(|change| change.index <= held.position.index);
        if held.written
            && let Some(change) = changes[..later].last()
            && (change.index, &change.value) != (held.position.index, &held.value)
        {
            return Some(change.index.max(held.position.index)); // By another write in the same entry.
        }
        changes.get(later).map(|change| change.index)
    }

    /// When a shard's writes up to an index were acknowledged.
    fn acknowledged(&self, shard: u32, index: u64) -> Option<u64> {
        let all = self.acknowledged.get(&GroupId(shard))?;
        let at = all.partition_point(|(acknowledged, _)| *acknowledged < index);
        all.get(at).map(|(_, at)| *at)
    }

    fn served(&mut self, cache: usize, key: &[u8], value: &Option<Bytes>, now: u64) -> Result<(), String> {
        self.counts.served += 1;
        let Cache { bound, held, .. } = &self.caches[cache];
        let candidates = held.get(key).map(Vec::as_slice).unwrap_or_default();
        let Some(held) = candidates.iter().rev().find(|held| held.value == *value) else {
            // It is of a time of which nothing is known any more.
            return Ok(());
        };
        let (index, shard) = (held.position.index, held.position.shard);
        if !held.written && !self.was(key, held) {
            return Err(format!("it was not so at {}", held.position));
        }
        let Some(by) = self.overtaken(key, held) else { return Ok(()) };
        let Some(at) = self.acknowledged(shard, by) else { return Ok(()) };
        let stale = now - at;
        self.counts.stale += usize::from(stale > 0);
        self.counts.longest = self.counts.longest.max(stale);
        let limit = if self.weather == Weather::Calm { CALM } else { *bound };
        match stale > limit + SLACK {
            true => Err(format!(
                "it is of entry {index}, and entry {by}, acknowledged {stale} ms ago, has overtaken it ({:?})",
                self.weather
            )),
            false => Ok(()),
        }
    }

    /// Whether a key held this as of the position.
    fn was(&self, key: &[u8], held: &Held) -> bool {
        let Some(changes) = self.changes.get(key) else { return held.value.is_none() };
        let at = changes.partition_point(|change| change.index <= held.position.index);
        match changes[..at].last() {
            None => held.value.is_none(),
            Some(change) => change.value == held.value || (held.value.is_none() && change.deadline.is_some()),
        }
    }
}
