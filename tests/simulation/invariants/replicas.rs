//! A group's copies apply the same entry at the same index, hold the same keys after it, and never go back to an earlier one.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use slotcast::id::GroupId;
use slotcast::keyspace::Keyspace;
use slotcast::keyspace::snapshot::digest;

use crate::trace::Trace;
use crate::world::World;

/// The keys are compared after each entry whose index is a multiple of this.
const EVERY: u64 = 4;

/// What the copies have applied. A cheap handle.
#[derive(Clone)]
pub struct Replicas {
    trace: Trace,
    slots: Arc<Vec<u16>>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    entries: BTreeMap<(GroupId, u64), (usize, u64)>,
    digests: BTreeMap<(GroupId, u64), (usize, u64)>,
    last: BTreeMap<(usize, GroupId), u64>,
    installed: usize,
    compared: usize,
}

impl Replicas {
    /// Nothing yet; `slots`: all that ever hold keys.
    pub fn new(trace: Trace, slots: Vec<u16>) -> Replicas {
        Replicas { trace, slots: Arc::new(slots), seen: Arc::default() }
    }

    /// A copy begins, empty.
    pub fn began(&self, node: usize, group: GroupId) {
        self.trace.note(format!("node {node} begins a copy of {group}"));
        self.seen.lock().last.remove(&(node, group));
    }

    /// A copy has applied an entry.
    pub fn applied(&self, node: usize, group: GroupId, index: u64, entry: u64, keyspace: &Keyspace) {
        // Not the entry: keys that expire together stand in it in the order of a randomly seeded hash table.
        self.trace.note(format!("node {node} applies {group} {index}"));
        let mut seen = self.seen.lock();
        if let Some(before) = seen.last.insert((node, group), index).filter(|before| *before >= index) {
            self.trace.violation(format!("node {node} applies {group} {index} after {before}"));
        }
        let (other, first) = *seen.entries.entry((group, index)).or_insert((node, entry));
        if first != entry {
            self.trace
                .violation(format!("{group} {index}: nodes {other} and {node} apply different entries"));
        }
        if index.is_multiple_of(EVERY) {
            let held = self.digest(keyspace);
            let (other, first) = *seen.digests.entry((group, index)).or_insert((node, held));
            seen.compared += usize::from(other != node);
            if first != held {
                self.trace
                    .violation(format!("{group} {index}: nodes {other} and {node} hold different keys"));
            }
        }
    }

    /// Acknowledged entries are lost: others may come to stand in their place.
    pub fn lost(&self) {
        let seen = &mut *self.seen.lock();
        (seen.entries, seen.digests) = Default::default();
    }

    /// A copy has installed a snapshot.
    pub fn installed(&self, node: usize, group: GroupId) {
        self.trace.note(format!("node {node} installs a snapshot of {group}"));
        self.seen.lock().installed += 1;
    }

    /// The keys of a copy as one number.
    pub fn digest(&self, keyspace: &Keyspace) -> u64 {
        self.slots.iter().fold(0, |sum, slot| sum.wrapping_mul(31).wrapping_add(digest(keyspace, *slot)))
    }

    /// Snapshots installed, and comparisons made.
    pub fn counts(&self) -> (usize, usize) {
        let seen = self.seen.lock();
        (seen.installed, seen.compared)
    }
}

/// At rest all copies hold the same.
pub fn check(world: &World) {
    let nodes = || world.nodes().iter().flatten();
    let Some(first) = nodes().next() else { return };
    for (group, keyspace) in &*first.server.hosted.keyspaces.load_full() {
        let held = world.replicas.digest(keyspace);
        let same = |keyspace: &_| world.replicas.digest(keyspace) == held;
        if !nodes()
            .all(|node| node.server.hosted.keyspaces.load().get(group).is_some_and(|other| same(other)))
        {
            world.trace.violation(format!("the copies of {group} differ at rest"));
        }
    }
}
