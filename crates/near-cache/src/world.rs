//! The model's cluster: shards, their logs, replicas that lag, and what each key's content has been.

use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use slotcast_wire::position::Position;

use crate::follow::Follow;
use crate::l1::{L1, Limits, Rule};
use crate::network::Network;

pub const BOUND: u64 = 1_000;
pub const TAGS: [&str; 4] = ["a", "b", "c", "d"];
pub const KEYS: usize = 8;
pub const SHARDS: usize = 3;
pub const REPLICAS: usize = 3;

const FIRST_LINEAGE: u64 = 7;

pub fn key(n: usize) -> Bytes {
    Bytes::from(format!("{{{}}}{}", TAGS[n % TAGS.len()], n / TAGS.len()))
}

/// What a log entry did.
#[derive(Clone)]
pub enum Did {
    /// To keys, one after the other.
    Changed(Vec<usize>),
    Flushed,
    /// From here on the shard has these tags, as of that epoch.
    Owns(Vec<usize>, u64),
}

/// A key's contents, from when on, and with which entry of which history they came. 0: none.
pub struct Content {
    pub since: u64,
    pub version: u64,
    pub at: (usize, u64, u64),
}

#[derive(Clone, Copy, Default)]
pub struct Replica {
    pub applied: u64,
    /// When it was known to have everything.
    pub as_of: u64,
    pub floor: u64,
    pub cut: bool,
    /// Until then it knows nothing of the history.
    pub begins: u64,
}

pub struct Shard {
    pub lineage: u64,
    /// Entry n has index `base + n + 1`.
    pub base: u64,
    pub log: Vec<Did>,
    pub replicas: [Replica; REPLICAS],
    pub leader: usize,
    pub tags: Vec<usize>,
}

impl Shard {
    pub fn head(&self) -> u64 {
        self.base + self.log.len() as u64
    }

    pub fn append(&mut self, did: Did, now: u64) -> u64 {
        self.log.push(did);
        let head = self.head();
        let leader = &mut self.replicas[self.leader];
        (leader.applied, leader.as_of) = (head, now);
        head
    }
}

/// A reply on its way: which key, what, when true, own write or read.
pub struct Flying {
    pub key: usize,
    pub version: u64,
    pub stamp: Position,
    pub expires_at: Option<u64>,
    pub written: bool,
}

pub struct World {
    pub random: SmallRng,
    pub now: u64,
    pub epoch: u64,
    pub versions: u64,
    pub shards: Vec<Shard>,
    pub contents: Vec<Vec<Content>>,
    /// Expired keys whose removal isn't in the log yet.
    pub lapsed: Vec<(usize, u64)>,
    pub flying: Vec<Flying>,
    pub network: Network,
    pub follow: Follow,
    pub l1: L1,
    /// The place in the key's contents of the newest hit.
    pub hits: Vec<usize>,
    pub served: u64,
}

impl World {
    pub fn new(seed: u64, broken: Option<Rule>) -> World {
        let limits = Limits {
            max_entries: 1000,
            max_bytes: usize::MAX,
            max_staleness: Duration::from_millis(BOUND),
            prefixes: Vec::new(),
        };
        let mut l1 = L1::new(limits);
        l1.broken = broken;
        let shard = |n: usize| {
            let replicas = [Replica { applied: 100, ..Replica::default() }; REPLICAS];
            let tags = (0..TAGS.len()).filter(|tag| tag % SHARDS == n).collect();
            Shard { lineage: FIRST_LINEAGE, base: 100, log: Vec::new(), replicas, leader: n, tags }
        };
        let contents = |_| vec![Content { since: 0, version: 0, at: (usize::MAX, 0, 0) }];
        World {
            random: SmallRng::seed_from_u64(seed),
            now: 10_000,
            epoch: 1,
            versions: 0,
            shards: (0..SHARDS).map(shard).collect(),
            contents: (0..KEYS).map(contents).collect(),
            lapsed: Vec::new(),
            flying: Vec::new(),
            network: Network::new(),
            follow: Follow::new(Duration::from_millis(BOUND / 2), seed),
            l1,
            hits: vec![0; KEYS],
            served: 0,
        }
    }

    pub fn upto(&mut self, n: usize) -> usize {
        self.random.random_range(0..n)
    }

    pub fn shard_of(&self, key: usize) -> usize {
        self.shards.iter().position(|shard| shard.tags.contains(&(key % TAGS.len()))).unwrap()
    }

    pub fn put(&mut self, key: usize, since: u64, version: u64, at: (usize, u64, u64)) {
        self.contents[key].push(Content { since, version, at });
    }

    /// One log entry with a write or several; each may be one's own, may have a time to live, may remove.
    pub fn write(&mut self) {
        let first = self.upto(KEYS);
        let shard = self.shard_of(first);
        let index = self.shards[shard].head() + 1;
        let lineage = self.shards[shard].lineage;
        let mut keys = vec![first];
        for _ in 0..[0, 0, 0, 1, 2][self.upto(5)] {
            let at = self.upto(self.shards[shard].tags.len());
            let tag = self.shards[shard].tags[at];
            keys.push(tag + TAGS.len() * self.upto(KEYS / TAGS.len()));
        }
        for key in &keys {
            self.versions += 1;
            let version = if self.upto(6) == 0 { 0 } else { self.versions };
            let deadline = (version > 0 && self.upto(4) == 0).then(|| self.now + 1 + self.upto(400) as u64);
            self.lapsed.retain(|(lapsed, _)| lapsed != key);
            self.put(*key, self.now, version, (shard, lineage, index));
            if let Some(deadline) = deadline {
                self.lapsed.push((*key, deadline));
            }
            if self.upto(3) == 0 {
                let stamp = Position { shard: shard as u32, lineage, index };
                self.flying.push(Flying { key: *key, version, stamp, expires_at: deadline, written: true });
            }
        }
        let now = self.now;
        self.shards[shard].append(Did::Changed(keys), now);
    }

    /// Keys whose time has come are gone for every reader; the log says so later, or much later.
    pub fn expire(&mut self) {
        for (key, deadline) in self.lapsed.clone() {
            let last = self.contents[key].last().unwrap();
            if deadline <= self.now && last.since < deadline && last.version != 0 {
                let at = last.at;
                self.put(key, deadline, 0, at);
            }
            if deadline <= self.now && self.upto(60) == 0 {
                self.lapsed.retain(|lapsed| *lapsed != (key, deadline));
                let (shard, now) = (self.shard_of(key), self.now);
                self.shards[shard].append(Did::Changed(vec![key]), now);
            }
        }
    }

    /// At the leader, or at a replica that may lag; the reply flies.
    pub fn read(&mut self) {
        let key = self.upto(KEYS);
        let number = self.shard_of(key);
        let replica = if self.upto(3) == 0 { self.upto(REPLICAS) } else { self.shards[number].leader };
        let shard = &self.shards[number];
        let Replica { applied, .. } = shard.replicas[replica];
        let seen = |content: &&Content| {
            let (owner, lineage, index) = content.at;
            (owner, lineage) != (number, shard.lineage) || index <= applied
        };
        let content = self.contents[key].iter().rev().find(seen).unwrap();
        let stamp = Position { shard: number as u32, lineage: shard.lineage, index: applied };
        let version = content.version;
        let current = content.since == self.contents[key].last().unwrap().since;
        let deadline = self.lapsed.iter().find(|(lapsed, _)| *lapsed == key).map(|(_, at)| *at);
        let expires_at = deadline.filter(|_| version > 0 && current);
        // A key that moved here is unknown to a replica that has not heard of it: such a one doesn't serve.
        let moved = |did: &Did| matches!(did, Did::Owns(..));
        let unaware = shard.log.iter().skip((applied - shard.base) as usize).any(moved);
        if !unaware {
            self.flying.push(Flying { key, version, stamp, expires_at, written: false });
        }
    }

    pub fn replicate(&mut self) {
        for number in 0..SHARDS {
            let replica = self.upto(REPLICAS);
            let few = 1 + self.upto(3) as u64;
            let shard = &mut self.shards[number];
            let (head, now) = (shard.head(), self.now);
            let copy = &mut shard.replicas[replica];
            if !copy.cut {
                copy.applied = (copy.applied + few).min(head);
                if copy.applied == head {
                    copy.as_of = now;
                }
            }
        }
    }

    pub fn fail_over(&mut self) {
        let (number, to) = (self.upto(SHARDS), self.upto(REPLICAS));
        let cut = self.upto(2) == 0;
        let shard = &mut self.shards[number];
        let (head, old) = (shard.head(), shard.leader);
        shard.replicas[to] = Replica { applied: head, as_of: self.now, cut: false, ..shard.replicas[to] };
        shard.leader = to;
        shard.replicas[old].cut = cut && old != to;
    }

    /// All the slots of a tag go to the other shard: an entry in each log.
    pub fn migrate(&mut self) {
        let from = self.upto(SHARDS);
        if self.shards[from].tags.len() < 2 {
            return;
        }
        let to = (from + 1) % SHARDS;
        let at = self.upto(self.shards[from].tags.len());
        let tag = self.shards[from].tags.remove(at);
        self.shards[to].tags.push(tag);
        self.epoch += 1;
        for number in [from, to] {
            let (did, now) = (Did::Owns(self.shards[number].tags.clone(), self.epoch), self.now);
            let index = self.shards[number].append(did, now);
            self.shards[number].replicas.iter_mut().for_each(|copy| copy.applied = index);
        }
    }

    /// A shard's history is replaced by an older one, whose numbers are lower.
    pub fn restore(&mut self) {
        let (number, now) = (self.upto(SHARDS), self.now);
        self.versions += 1;
        let lineage = FIRST_LINEAGE + self.versions; // never one that there was
        for key in (0..KEYS).filter(|key| self.shard_of(*key) == number).collect::<Vec<_>>() {
            let at = self.upto(self.contents[key].len());
            let version = self.contents[key][at].version;
            self.put(key, now, version, (number, lineage, 0));
            self.lapsed.retain(|(lapsed, _)| *lapsed != key);
            self.hits[key] = 0;
        }
        self.flying.retain(|flying| flying.stamp.shard != number as u32 || !flying.written);
        let (tags, epoch) = (self.shards[number].tags.clone(), self.epoch);
        let shard = &mut self.shards[number];
        let base = shard.base + shard.log.len() as u64 / 2;
        (shard.lineage, shard.base, shard.log) = (lineage, base, vec![Did::Owns(tags, epoch)]);
        shard.replicas =
            [Replica { applied: base + 1, as_of: now, floor: base + 1, ..Replica::default() }; REPLICAS];
    }

    pub fn flush(&mut self) {
        let (number, now) = (self.upto(SHARDS), self.now);
        let index = self.shards[number].append(Did::Flushed, now);
        let lineage = self.shards[number].lineage;
        for key in (0..KEYS).filter(|key| self.shard_of(*key) == number).collect::<Vec<_>>() {
            self.lapsed.retain(|(lapsed, _)| *lapsed != key);
            self.put(key, now, 0, (number, lineage, index));
        }
    }
}
