//! One subscriber's view of the invalidation logs: what it asked for, how far it has been told, and the frames that tell
//! it the rest.
//!
//! It is pulled when the subscriber's socket takes more. So a slow one costs no memory: what has changed meanwhile is
//! put together, a key named once, and from so many keys on whole slots are named instead. It doesn't know sockets.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use slotcast_wire::invalidation::{Reason, write_heartbeat, write_keys, write_slots};
use slotcast_wire::position::Position;

use crate::id::GroupId;
use crate::tracking::frames::{Encoded, Frames};
use crate::tracking::ring::{Cursor, Next, Ring};
use crate::tracking::segment::Touched;
use crate::tracking::slots::Slots;

/// Keys named in one frame, unless the subscriber says how many it holds: beyond it their slots are named.
pub const MAX_KEYS: usize = 10_000;
/// Bytes of them, likewise.
const MAX_KEY_BYTES: usize = 4 << 20;

/// What a subscriber wants to hear of.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// Keys that begin with one of these; none: all.
    pub prefixes: Vec<Box<[u8]>>,
    /// Keys of these slots.
    pub slots: Slots,
    /// Beyond so many changed keys their slots are named instead.
    pub max_keys: usize,
}

/// Where a subscription of a shard begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Where it was asked to.
    Resumed,
    /// Now: no position was given.
    Fresh,
    /// Now: the position given cannot be resumed from, so the slots are to be dropped.
    Flush,
    /// Where it was asked to, which this copy has not reached yet.
    Behind,
}

/// Which slots a shard has, and since which version of the topology.
pub trait Territory {
    /// See above.
    fn slots(&self, shard: GroupId) -> (Slots, u64);
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Feed {
    wishes: Wishes,
    /// It wants to hear of every key, and is told what all others are who do.
    is_for_all: bool,
    shards: BTreeMap<GroupId, Told>,
}

/// How far a shard's changes have been looked at, and how far the subscriber was told.
#[derive(Debug)]
struct Told {
    cursor: Cursor,
    told: u64,
    acknowledged: u64,
}

/// What is known of a shard's subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How far the subscriber was told.
    pub told: Position,
    /// How far it says that it has come.
    pub acknowledged: u64,
}

impl Start {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Start::Resumed => "resumed",
            Start::Fresh => "fresh",
            Start::Flush => "flush",
            Start::Behind => "behind",
        }
    }
}

impl Feed {
    /// Of no shard yet.
    pub fn new(wishes: Wishes) -> Self {
        let is_for_all = wishes.prefixes.is_empty() && wishes.slots.is_all();
        Self { wishes, is_for_all, shards: BTreeMap::new() }
    }

    /// Adds a shard: from a lineage and index, or from now on. Returns where it begins.
    pub fn follow(&mut self, shard: GroupId, ring: &Ring, from: Option<(u64, u64)>) -> (Start, Position) {
        let extent = ring.extent();
        let (start, lineage, index) = match from {
            None => (Start::Fresh, extent.lineage, extent.head),
            Some((lineage, index)) if lineage == extent.lineage && index >= extent.floor => {
                let start = if index > extent.head { Start::Behind } else { Start::Resumed };
                (start, lineage, index)
            }
            Some(_) => (Start::Flush, extent.lineage, extent.head),
        };
        let told = Told { cursor: Cursor::at(lineage, index), told: index, acknowledged: index };
        #[cfg(feature = "broken")]
        let told = match crate::broken::breaks(crate::broken::Rule::ResumedFromNow) {
            true => Told { cursor: Cursor::at(lineage, index.max(extent.head)), ..told },
            false => told,
        };
        self.shards.insert(shard, told);
        (start, Position { shard: shard.0, lineage, index })
    }

    /// Adds a shard that isn't here, or whose history isn't known yet: it begins where it was asked to when it comes, or
    /// with a flush.
    pub fn expect(&mut self, shard: GroupId, from: Option<(u64, u64)>) {
        let (lineage, index) = from.unwrap_or_default();
        let told = Told { cursor: Cursor::at(lineage, index), told: index, acknowledged: index };
        self.shards.entry(shard).or_insert(told);
    }

    /// What it wants to hear of.
    pub fn wishes(&self) -> &Wishes {
        &self.wishes
    }

    /// The subscriber says that it has come so far.
    pub fn acknowledge(&mut self, position: Position) {
        if let Some(told) = self.shards.get_mut(&GroupId(position.shard))
            && told.cursor.lineage == position.lineage
        {
            told.acknowledged = told.acknowledged.max(position.index);
        }
    }

    /// How each shard's subscription stands.
    pub fn standings(&self) -> impl Iterator<Item = (GroupId, Standing)> {
        self.shards.iter().map(|(shard, told)| {
            let Told { cursor, told, acknowledged } = told;
            let told = Position { shard: shard.0, lineage: cursor.lineage, index: *told };
            (*shard, Standing { told, acknowledged: *acknowledged })
        })
    }

    /// Appends what is new.
    pub fn pull(
        &mut self,
        rings: &BTreeMap<GroupId, Arc<Ring>>,
        territory: &dyn Territory,
        out: &mut Vec<u8>,
    ) {
        for (shard, told) in &mut self.shards {
            let Some(ring) = rings.get(shard).filter(|ring| ring.has_history()) else { continue };
            let is_told = ring.is_all_seen(&told.cursor)
                || self.is_for_all && told.go_along(ring, self.wishes.max_keys, out);
            if !is_told {
                let shared = self.is_for_all.then_some(&ring.frames);
                told.pull((*shard, ring), &self.wishes, territory, shared, out);
            }
        }
    }

    /// Appends a heartbeat: of each shard that `ages` knows, how many ms ago a quorum vouched for what the subscriber
    /// has been told by now. Ask for the ages before [`Feed::pull`], which is to come before this.
    pub fn heartbeat(
        &mut self,
        rings: &BTreeMap<GroupId, Arc<Ring>>,
        ages: &BTreeMap<GroupId, u64>,
        out: &mut Vec<u8>,
    ) {
        let mut positions = Vec::new();
        for (shard, told) in &mut self.shards {
            let (Some(ring), Some(age)) = (rings.get(shard), ages.get(shard)) else { continue };
            let (extent, cursor) = (ring.extent(), &told.cursor);
            // Whoever is ahead of this copy, or of another history, has nothing to learn from it.
            if cursor.lineage == 0 || cursor.lineage != extent.lineage || cursor.index > extent.head {
                continue;
            }
            if told.told < cursor.index {
                told.write(*shard, &Keys::default(), out);
            }
            let to = Position { shard: shard.0, lineage: told.cursor.lineage, index: told.told };
            positions.push((to, *age));
        }
        write_heartbeat(out, &positions);
    }
}

/// Each with its last change.
type Keys = IndexMap<Box<[u8]>, Last, foldhash::fast::RandomState>;

/// A key's last change.
#[derive(Clone, Copy, Debug)]
struct Last {
    index: u64,
    /// The same entry had changed it before: whoever wrote it there cannot know whether it was the last to do so.
    again: bool,
}

/// What a pull has gathered of a shard: keys, and slots to be treated as changed.
struct Gathered<'w> {
    wishes: &'w Wishes,
    keys: Keys,
    bytes: usize,
    slots: Option<Slots>,
    flushed: bool,
}

impl Gathered<'_> {
    fn add(&mut self, index: u64, touched: Touched<'_>) {
        match touched {
            Touched::All => {
                self.flushed = true;
                (self.slots, self.bytes) = (None, 0);
                self.keys.clear();
            }
            Touched::Slot(slot) => self.add_slot(slot),
            Touched::Key(slot, key) => self.add_key(index, slot, key),
        }
    }

    fn add_slot(&mut self, slot: u16) {
        if self.wishes.slots.contains(slot) {
            self.slots.get_or_insert_default().insert(slot);
        }
    }

    fn add_key(&mut self, index: u64, slot: u16, key: &[u8]) {
        let wishes = self.wishes;
        let wanted =
            wishes.prefixes.is_empty() || wishes.prefixes.iter().any(|prefix| key.starts_with(prefix));
        if !wanted || !wishes.slots.contains(slot) {
            return;
        }
        if let Some(at) = self.keys.get_mut(key) {
            *at = Last { index, again: at.index == index };
            return;
        }
        if self.slots.as_ref().is_some_and(|slots| slots.contains(slot)) {
            return;
        }
        if self.keys.len() >= wishes.max_keys || self.bytes + key.len() > MAX_KEY_BYTES {
            for key in std::mem::take(&mut self.keys).into_keys() {
                self.add_slot(slotcast_wire::slot::slot_of(&key));
            }
            self.bytes = 0;
            return self.add_slot(slot);
        }
        self.bytes += key.len();
        self.keys.insert(key.into(), Last { index, again: false });
    }
}

impl Told {
    fn pull(
        &mut self,
        (shard, ring): (GroupId, &Ring),
        wishes: &Wishes,
        territory: &dyn Territory,
        shared: Option<&Frames<Cursor>>,
        out: &mut Vec<u8>,
    ) {
        let mut gathered = Gathered { wishes, keys: Keys::default(), bytes: 0, slots: None, flushed: false };
        let end = ring.extent().head;
        // Never to stop within an entry: a key that it changed twice is to be named twice in one frame.
        while self.cursor.index < end || self.cursor.is_midway() {
            match ring.next(&self.cursor) {
                Next::Nothing => break,
                Next::Forgotten => return self.restart(shard, ring, Reason::Window, wishes, territory, out),
                Next::OtherLineage => {
                    return self.restart(shard, ring, Reason::Lineage, wishes, territory, out);
                }
                Next::Stretch(stretch) => {
                    stretch.walk(&mut self.cursor, |index, touched| gathered.add(index, touched));
                }
            }
        }
        if ring.extent().lineage != self.cursor.lineage {
            return self.restart(shard, ring, Reason::Lineage, wishes, territory, out);
        }
        let to = Position { shard: shard.0, lineage: self.cursor.lineage, index: self.cursor.index };
        if gathered.flushed {
            let (all, epoch) = territory.slots(shard);
            // Later changes are in it too: the slots are as of the end of the interval.
            write_slots(out, to, epoch, &all.and(&wishes.slots).ranges(), Reason::Flushed);
            self.told = to.index;
            return;
        }
        if let Some(slots) = &gathered.slots {
            // The interval is closed last: if the connection breaks in between, all of it is told again.
            write_slots(out, to, territory.slots(shard).1, &slots.ranges(), Reason::TooMany);
            self.write(shard, &gathered.keys, out);
        } else if !gathered.keys.is_empty() {
            let (from, mark) = (self.told, out.len());
            self.write(shard, &gathered.keys, out);
            if let Some(frames) = shared {
                let bytes = out.get(mark..).unwrap_or_default().to_vec();
                let (keys, after) = (gathered.keys.len(), self.cursor.clone());
                let (lineage, to) = (after.lineage, after.index);
                frames.leave(Encoded { lineage, from, to, keys, bytes, after });
            }
        }
    }

    /// Appends what others who stood here were told; whether that was all. The cursor may have been ahead of what was
    /// told, over entries that changed nothing: the frames go on from what was told.
    fn go_along(&mut self, ring: &Ring, max_keys: usize, out: &mut Vec<u8>) -> bool {
        let copied = ring.frames.copy(self.cursor.lineage, self.told, max_keys, out);
        copied.is_some_and(|(to, after)| {
            (self.told, self.cursor) = (to, after);
            ring.is_all_seen(&self.cursor)
        })
    }

    fn write(&mut self, shard: GroupId, keys: &Keys, out: &mut Vec<u8>) {
        let to = Position { shard: shard.0, lineage: self.cursor.lineage, index: self.cursor.index };
        let mut named: Vec<(&[u8], u64)> = Vec::with_capacity(keys.len());
        for (key, Last { index, again }) in keys {
            named.extend(std::iter::repeat_n((&**key, *index), 1 + usize::from(*again)));
        }
        write_keys(out, to, self.told, &named);
        self.told = to.index;
    }

    /// The changes in between are lost: all slots are to be dropped, and it goes on from here.
    fn restart(
        &mut self,
        shard: GroupId,
        ring: &Ring,
        reason: Reason,
        wishes: &Wishes,
        territory: &dyn Territory,
        out: &mut Vec<u8>,
    ) {
        let extent = ring.extent();
        self.cursor = Cursor::at(extent.lineage, extent.head);
        self.told = extent.head;
        let to = Position { shard: shard.0, lineage: extent.lineage, index: extent.head };
        let (all, epoch) = territory.slots(shard);
        write_slots(out, to, epoch, &all.and(&wishes.slots).ranges(), reason);
    }
}

#[cfg(test)]
mod tests {
    use slotcast_wire::frame::FrameDecoder;
    use slotcast_wire::invalidation::{Push, read_push};
    use slotcast_wire::slot::slot_of;

    use super::*;

    const SHARD: GroupId = GroupId(1);

    struct Everything;

    impl Territory for Everything {
        fn slots(&self, _: GroupId) -> (Slots, u64) {
            (Slots::all(), 3)
        }
    }

    struct Scene {
        rings: BTreeMap<GroupId, Arc<Ring>>,
        feed: Feed,
        index: u64,
    }

    impl Scene {
        fn new(prefixes: &[&str], max_keys: usize) -> Scene {
            let ring = Ring::new(200_000);
            ring.restart(9, 100);
            let prefixes = prefixes.iter().map(|prefix| prefix.as_bytes().into()).collect();
            let mut feed = Feed::new(Wishes { prefixes, slots: Slots::all(), max_keys });
            assert_eq!(feed.follow(SHARD, &ring, None).0, Start::Fresh);
            Scene { rings: BTreeMap::from([(SHARD, Arc::new(ring))]), feed, index: 100 }
        }

        fn change(&mut self, keys: &[&str]) {
            self.index += 1;
            let touched = keys.iter().map(|key| Touched::Key(slot_of(key.as_bytes()), key.as_bytes()));
            self.rings[&SHARD].note(self.index, touched);
            self.rings[&SHARD].publish(self.index);
        }

        fn told(&mut self) -> Vec<Push> {
            let mut out = Vec::new();
            self.feed.pull(&self.rings, &Everything, &mut out);
            pushes(&out)
        }

        fn heartbeat(&mut self) -> Vec<Push> {
            let mut out = Vec::new();
            self.feed.heartbeat(&self.rings, &BTreeMap::from([(SHARD, 7)]), &mut out);
            pushes(&out)
        }
    }

    fn pushes(mut out: &[u8]) -> Vec<Push> {
        let mut pushes = Vec::new();
        while !out.is_empty() {
            let (taken, frame) = FrameDecoder::default().decode(out).unwrap();
            pushes.push(read_push(&frame.unwrap()).unwrap());
            out = &out[taken..];
        }
        pushes
    }

    fn at(index: u64) -> Position {
        Position { shard: 1, lineage: 9, index }
    }

    fn keys(from: u64, to: u64, keys: &[(&str, u64)]) -> Push {
        let keys = keys.iter().map(|(key, index)| (key.as_bytes().to_vec(), *index)).collect();
        Push::Keys { to: at(to), from, keys }
    }

    #[test]
    fn a_key_is_named_once_with_its_last_change() {
        let mut scene = Scene::new(&[], 100);
        scene.change(&["a", "b"]);
        scene.change(&["a"]);
        assert_eq!(scene.told(), [keys(100, 102, &[("a", 102), ("b", 101)])]);
        assert_eq!(scene.told(), []);
        scene.change(&["c"]);
        assert_eq!(scene.told(), [keys(102, 103, &[("c", 103)])]);
    }

    #[test]
    fn a_key_that_one_entry_changed_again_is_named_twice() {
        let mut scene = Scene::new(&[], 100);
        scene.change(&["a", "b", "a", "a"]);
        assert_eq!(scene.told(), [keys(100, 101, &[("a", 101), ("a", 101), ("b", 101)])]);
        scene.change(&["a", "a"]);
        scene.change(&["a"]);
        assert_eq!(scene.told(), [keys(101, 103, &[("a", 103)])], "the last change was alone");
    }

    #[test]
    fn filters_look_like_no_gap() {
        let mut scene = Scene::new(&["user:"], 100);
        scene.change(&["user:1"]);
        assert_eq!(scene.told(), [keys(100, 101, &[("user:1", 101)])]);
        scene.change(&["order:1"]);
        assert_eq!(scene.told(), []);
        assert_eq!(scene.heartbeat(), [keys(101, 102, &[]), Push::Heartbeat(vec![(at(102), 7)])]);
        scene.change(&["user:2"]);
        assert_eq!(scene.told(), [keys(102, 103, &[("user:2", 103)])]);
    }

    #[test]
    fn a_copy_that_comes_later_goes_on_where_it_was_asked_to_or_begins_with_a_flush() {
        for (from, told) in [
            (Some((9, 101)), keys(101, 102, &[("b", 102)])),
            (
                None,
                Push::Slots { to: at(102), epoch: 3, slots: Slots::all().ranges(), reason: Reason::Lineage },
            ),
        ] {
            let mut scene = Scene::new(&[], 100);
            scene.feed.shards.clear();
            scene.feed.expect(SHARD, from);
            let ring = std::mem::replace(&mut scene.rings, BTreeMap::from([(SHARD, Arc::new(Ring::new(1)))]));
            assert_eq!((scene.told(), scene.heartbeat()), (vec![], vec![Push::Heartbeat(vec![])]));
            scene.rings = ring;
            scene.change(&["a"]);
            scene.change(&["b"]);
            assert_eq!(scene.told(), [told]);
            scene.change(&["c"]);
            assert_eq!(scene.told(), [keys(102, 103, &[("c", 103)])]);
        }
    }

    #[test]
    fn too_many_keys_are_their_slots() {
        let mut scene = Scene::new(&[], 3);
        for key in ["a", "b", "a", "c"] {
            scene.change(&[key]);
        }
        assert_eq!(scene.told().len(), 1, "three keys");
        for key in ["a", "b", "c", "d", "a"] {
            scene.change(&[key]);
        }
        let slots: Slots = ["a", "b", "c", "d"].iter().map(|key| slot_of(key.as_bytes())).collect();
        let slots = Push::Slots { to: at(109), epoch: 3, slots: slots.ranges(), reason: Reason::TooMany };
        assert_eq!(scene.told(), [slots, keys(104, 109, &[])], "the interval is closed last");
    }

    #[test]
    fn flushed_forgotten_and_another_history_are_slots_and_it_goes_on_from_there() {
        let mut scene = Scene::new(&[], 100);
        let all = |to, reason| Push::Slots { to, epoch: 3, slots: vec![(0, 16383)], reason };
        scene.change(&["a"]);
        scene.index += 1;
        scene.rings[&SHARD].note(scene.index, [Touched::All].into_iter());
        scene.change(&["b"]);
        assert_eq!(scene.told(), [all(at(103), Reason::Flushed)]);
        for n in 0..20_000 {
            scene.change(&[&format!("key:{n}")]);
        }
        assert_eq!(scene.told(), [all(at(20_103), Reason::Window)]);
        scene.rings[&SHARD].restart(10, 50);
        assert_eq!(scene.heartbeat(), [Push::Heartbeat(vec![])], "nobody vouches for what was");
        assert_eq!(scene.told(), [all(Position { shard: 1, lineage: 10, index: 50 }, Reason::Lineage)]);
    }

    #[test]
    fn it_begins_where_it_was_asked_to_if_that_can_be() {
        let mut scene = Scene::new(&[], 100);
        scene.change(&["a"]);
        scene.change(&["b"]);
        let ring = scene.rings[&SHARD].clone();
        let mut start = |from| {
            let (start, position) = scene.feed.follow(SHARD, &ring, Some(from));
            (start, position.index)
        };
        assert_eq!(start((9, 99)), (Start::Flush, 102));
        assert_eq!(start((8, 101)), (Start::Flush, 102));
        assert_eq!(start((9, 103)), (Start::Behind, 103));
        assert_eq!(start((9, 101)), (Start::Resumed, 101));
        assert_eq!(scene.told(), [keys(101, 102, &[("b", 102)])]);
    }
}
