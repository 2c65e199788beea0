//! The model's nodes and the streams between them and the cache: what a node writes, what arrives of it and when.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use slotcast_wire::invalidation::{Push, Reason};
use slotcast_wire::position::Position;
use slotcast_wire::slot::slot_of;

use crate::follow::{Act, Node, Offer};
use crate::told::{Start, Subscribed};
use crate::world::{Did, REPLICAS, Replica, SHARDS, Shard, TAGS, World, key};

pub const NODES: usize = 5;

/// What a node has written and the cache has not read.
#[derive(Clone)]
enum Written {
    Push(Push, u64),
    Begun(Vec<(u32, Option<Subscribed>)>),
}

/// A connection that a node tells changes on.
#[derive(Default)]
struct Link {
    /// By shard: up to which index of which history it has been told.
    told: BTreeMap<usize, (u64, u64)>,
    wire: VecDeque<Written>,
}

/// Something the cache has asked for that is on its way.
enum Errand {
    Locate,
    Ask(usize),
    Subscribe(usize, Vec<Position>),
}

pub struct Network {
    up: [bool; NODES],
    links: Vec<Option<Link>>,
    errands: Vec<Errand>,
    /// By shard, the node of each replica.
    homes: Vec<[usize; REPLICAS]>,
}

impl Network {
    pub fn new() -> Network {
        let homes = (0..SHARDS).map(|shard| std::array::from_fn(|replica| (shard * 2 + replica) % NODES));
        let links = (0..NODES).map(|_| None).collect();
        Network { up: [true; NODES], links, errands: Vec::new(), homes: homes.collect() }
    }

    pub fn come_back(&mut self) {
        self.up = [true; NODES];
    }

    fn replica_at(&self, shard: usize, node: usize) -> Option<usize> {
        self.homes[shard].iter().position(|home| *home == node)
    }
}

fn name_of(node: usize) -> Node {
    Node::from(node.to_string())
}

fn node_of(name: &Node) -> usize {
    name.parse().unwrap()
}

impl World {
    fn time(&self) -> Duration {
        Duration::from_millis(self.now)
    }

    /// The copy of a shard at a node, if it knows the shard's history.
    fn copy_at(&self, shard: usize, node: usize) -> Option<Replica> {
        let copy = self.shards[shard].replicas[self.network.replica_at(shard, node)?];
        (copy.begins <= self.now).then_some(copy)
    }

    pub fn decide(&mut self) {
        for act in self.follow.decide(&self.l1, self.time()) {
            let errand = match act {
                Act::Locate => Errand::Locate,
                Act::Ask(node) => Errand::Ask(node_of(&node)),
                Act::Subscribe(node, shards) => {
                    let cursors = shards.iter().filter_map(|shard| self.l1.cursor(*shard)).collect();
                    Errand::Subscribe(node_of(&node), cursors)
                }
                Act::Leave(node) => {
                    self.network.links[node_of(&node)] = None;
                    continue;
                }
            };
            self.network.errands.push(errand);
        }
    }

    /// One of the things asked for gets there.
    pub fn errand(&mut self) {
        if self.network.errands.is_empty() {
            return;
        }
        let at = self.upto(self.network.errands.len());
        match self.network.errands.remove(at) {
            Errand::Locate => self.follow.located((0..NODES).map(name_of).collect(), self.time()),
            Errand::Ask(node) => {
                let offer = |shard: usize| {
                    let copy = self.shards[shard].replicas[self.network.replica_at(shard, node)?];
                    let begun = copy.begins <= self.now;
                    let lineage = if begun { self.shards[shard].lineage } else { 0 };
                    Some((shard as u32, Offer { lineage, floor: copy.floor }))
                };
                let offers = self.network.up[node].then(|| (0..SHARDS).filter_map(offer).collect());
                self.follow.offered(&name_of(node), offers, self.time());
            }
            Errand::Subscribe(node, from) => self.subscribe(node, &from),
        }
    }

    pub fn run_errands(&mut self) {
        while !self.network.errands.is_empty() {
            self.errand();
        }
    }

    fn subscribe(&mut self, node: usize, from: &[Position]) {
        if !self.network.up[node] {
            self.network.links[node] = None;
            return self.follow.lost(&name_of(node), self.time());
        }
        let (mut told, mut begun) = (BTreeMap::new(), Vec::new());
        for number in 0..SHARDS {
            let lineage = self.shards[number].lineage;
            let Some(copy) = self.copy_at(number, node) else {
                begun.push((number as u32, None));
                continue;
            };
            let (start, index) = match from.iter().find(|from| from.shard == number as u32) {
                None => (Start::Fresh, copy.applied),
                Some(from) if from.lineage == lineage && from.index >= copy.floor => {
                    (Start::Resumed, from.index)
                }
                Some(_) => (Start::Flush, copy.applied),
            };
            // Ownership as of the position: what came behind it is in the stream.
            let (slots, epoch) = self.owned(number, index);
            let position = Position { shard: number as u32, lineage, index };
            begun.push((number as u32, Some(Subscribed { start, position, epoch, slots })));
            told.insert(number, (index, lineage));
        }
        // What was written before is still on its way.
        let link = self.network.links[node].get_or_insert_default();
        link.told = told;
        link.wire.push_back(Written::Begun(begun));
    }

    pub fn break_link(&mut self) {
        let node = self.upto(NODES);
        if self.network.links[node].take().is_some() {
            self.follow.lost(&name_of(node), self.time());
        }
    }

    /// A node is gone, or is back; or it only says nothing, which takes a while to be noticed.
    pub fn go_or_come_back(&mut self) {
        let node = self.upto(NODES);
        self.network.up[node] = !self.network.up[node] || self.upto(3) == 0;
        if self.network.up[node] || self.upto(2) == 0 {
            return;
        }
        if self.network.links[node].take().is_some() {
            self.follow.lost(&name_of(node), self.time());
        }
    }

    /// A copy is made at another node, which remembers nothing from before; the old one is gone.
    pub fn move_copy(&mut self) {
        let (shard, replica, to) = (self.upto(SHARDS), self.upto(REPLICAS), self.upto(NODES));
        if self.network.homes[shard].contains(&to) {
            return;
        }
        self.network.homes[shard][replica] = to;
        let begins = self.now + self.upto(300) as u64;
        let copy = &mut self.shards[shard].replicas[replica];
        (copy.floor, copy.begins) = (copy.applied, begins);
    }

    pub fn pull_all(&mut self) {
        for node in (0..NODES).filter(|node| self.network.up[*node]).collect::<Vec<_>>() {
            let Some(mut link) = self.network.links[node].take() else { continue };
            self.pull(node, &mut link);
            self.network.links[node] = Some(link);
        }
    }

    /// The server's side of a stream: what a node's copies have applied since, and sometimes who vouches for it.
    fn pull(&mut self, node: usize, link: &mut Link) {
        let asked_at = self.now - self.upto(40) as u64;
        for (number, known) in &mut link.told {
            let Some(copy) = self.copy_at(*number, node) else { continue };
            let mut pushes = Vec::new();
            self.tell(*number, copy, known, &mut pushes);
            link.wire.extend(pushes.into_iter().map(|push| Written::Push(push, asked_at)));
        }
    }

    fn tell(&mut self, number: usize, copy: Replica, known: &mut (u64, u64), pushes: &mut Vec<Push>) {
        let Shard { lineage, base, .. } = self.shards[number];
        let at = |index| Position { shard: number as u32, lineage, index };
        let mut told = known.0;
        if known.1 != lineage || told < copy.floor {
            let reason = if known.1 == lineage { Reason::Window } else { Reason::Lineage };
            pushes.push(self.slots(number, at(copy.applied), reason));
            told = copy.applied;
        }
        let mut keys: Vec<(Vec<u8>, u64)> = Vec::new();
        let mut from = told;
        while told < copy.applied {
            told += 1;
            match self.shards[number].log[(told - base - 1) as usize].clone() {
                Did::Changed(changed) => name(&mut keys, &changed, told),
                did => {
                    pushes.push(Push::Keys { to: at(told - 1), from, keys: std::mem::take(&mut keys) });
                    let reason = if matches!(did, Did::Flushed) { Reason::Flushed } else { Reason::Window };
                    pushes.push(self.slots(number, at(told), reason));
                    from = told;
                }
            }
        }
        if from < told {
            if self.upto(8) == 0 {
                let slots = keys.drain(..).map(|(key, _)| (slot_of(&key), slot_of(&key))).collect();
                pushes.push(Push::Slots { to: at(told), epoch: self.epoch, slots, reason: Reason::TooMany });
            }
            pushes.push(Push::Keys { to: at(told), from, keys });
        }
        *known = (told, lineage);
        if self.upto(3) == 0 && told == copy.applied {
            pushes.push(Push::Heartbeat(vec![(at(told), self.now - copy.as_of)]));
        }
    }

    fn slots(&self, shard: usize, to: Position, reason: Reason) -> Push {
        let (slots, epoch) = self.owned(shard, to.index);
        Push::Slots { to, epoch, slots, reason }
    }

    /// The slots that the shard had as of this index.
    fn owned(&self, shard: usize, index: u64) -> (Vec<(u16, u16)>, u64) {
        let Shard { log, base, .. } = &self.shards[shard];
        let upto = log.iter().take((index - base) as usize).rev();
        let first = (0..TAGS.len()).filter(|tag| tag % SHARDS == shard).collect();
        let owns = |did: &Did| match did {
            Did::Owns(tags, epoch) => Some((tags.clone(), *epoch)),
            _ => None,
        };
        let (tags, epoch) = upto.filter_map(owns).next().unwrap_or((first, 1));
        (tags.iter().map(|tag| (slot_of(&key(*tag)), slot_of(&key(*tag)))).collect(), epoch)
    }

    /// The client's side: what comes next on any of the streams, twice or not at all at times.
    pub fn deliver(&mut self) {
        let on_wire =
            |node: &usize| self.network.links[*node].as_ref().is_some_and(|link| !link.wire.is_empty());
        let waiting: Vec<usize> = (0..NODES).filter(on_wire).collect();
        if waiting.is_empty() {
            return;
        }
        let node = waiting[self.upto(waiting.len())];
        let Some(link) = &mut self.network.links[node] else { return };
        match link.wire.pop_front() {
            None => {}
            Some(Written::Begun(begun)) => {
                self.follow.answered(&self.l1, &name_of(node), &begun, self.time());
            }
            Some(Written::Push(push, asked_at)) => self.deliver_push(node, push, asked_at),
        }
    }

    fn deliver_push(&mut self, node: usize, push: Push, asked_at: u64) {
        let slots = matches!(push, Push::Slots { .. });
        // A connection loses nothing in between; a server that leaves out an interval is found out all the same.
        if self.upto(50) == 0 && !slots {
            return;
        }
        if self.upto(20) == 0 && !slots {
            let later = self.upto(20);
            let wire = &mut self.network.links[node].as_mut().unwrap().wire;
            wire.insert(later.min(wire.len()), Written::Push(push.clone(), asked_at));
        }
        let asked_at = Duration::from_millis(asked_at);
        self.follow.take(&self.l1, &name_of(node), &push, asked_at, self.time());
    }

    pub fn deliver_all(&mut self) {
        let on_wire = |link: &Option<Link>| link.as_ref().is_some_and(|link| !link.wire.is_empty());
        while self.network.links.iter().any(on_wire) {
            self.deliver();
        }
    }
}

/// The keys an entry changed: each once, with its last change; twice if the entry changed it more than once.
fn name(keys: &mut Vec<(Vec<u8>, u64)>, changed: &[usize], index: u64) {
    for number in changed {
        let name = key(*number).to_vec();
        let again = keys.iter().any(|named| *named == (name.clone(), index));
        if !again {
            keys.retain(|(named, _)| *named != name);
        }
        match keys.iter().rposition(|(named, _)| *named == name) {
            Some(at) if keys.iter().filter(|(named, _)| *named == name).count() == 1 => {
                keys.insert(at, (name, index));
            }
            Some(_) => {}
            None => keys.push((name, index)),
        }
    }
}
