//! The rules of [`crate::l1`] against a model of a cluster that does its worst, out of a seed.
//!
//! Two shards, three replicas of each that lag, lead by turns and are cut off; values that arrive late and in any order;
//! a stream that is lost, doubled, behind, moved to another replica, fallen out of the window; slots that change hands;
//! a history that is replaced by an older one; keys that expire by themselves; several writes in one log entry. Time is a
//! number. Every hit must have been the key's content no longer ago than the bound, must not be older than the hit
//! before it, and when all has been delivered it must be the content. With any part of the rules left out it isn't.

use std::time::Duration;

use bytes::Bytes;
use slotcast_wire::invalidation::{Push, Reason};
use slotcast_wire::position::Position;
use slotcast_wire::slot::slot_of;

use crate::l1::{Lookup, Rule, Value};
use crate::told::{Start, Subscribed};
use crate::world::{BOUND, Did, Flying, KEYS, REPLICAS, SHARDS, Shard, TAGS, World, key};

const STEPS: usize = 700;
/// CI plays these; `SEEDS=5000 cargo test -p slotcast-near-cache model` plays more.
const SEEDS: u64 = 200;

impl World {
    fn land(&mut self) {
        if self.flying.is_empty() {
            return;
        }
        let at = self.upto(self.flying.len());
        let Flying { key: number, version, stamp, expires_at, written } = self.flying.swap_remove(at);
        let bytes = (version > 0).then(|| Bytes::from(version.to_string()));
        let value = Value { bytes, stamp, expires_at: expires_at.map(Duration::from_millis) };
        match written {
            true => self.l1.written(key(number), value),
            false => drop(self.l1.fill(key(number), value)),
        }
    }

    /// The server's side of the stream: what a replica has applied since, and sometimes who vouches for it.
    fn pull(&mut self) {
        let asked_at = self.now - self.upto(40) as u64;
        for number in 0..SHARDS {
            let Shard { lineage, base, replicas, .. } = &self.shards[number];
            let (lineage, base, copy) = (*lineage, *base, replicas[self.replica]);
            let at = |index| Position { shard: number as u32, lineage, index };
            let (mut told, known) = self.told[number];
            if known != lineage || told < copy.floor {
                let reason = if known == lineage { Reason::Window } else { Reason::Lineage };
                self.push_slots(number, at(copy.applied), reason, asked_at);
                told = copy.applied;
            }
            let mut keys: Vec<(Vec<u8>, u64)> = Vec::new();
            let mut from = told;
            while told < copy.applied {
                told += 1;
                match self.shards[number].log[(told - base - 1) as usize].clone() {
                    Did::Changed(changed) => name(&mut keys, &changed, told),
                    did => {
                        let keys = std::mem::take(&mut keys);
                        self.wire.push_back((Push::Keys { to: at(told - 1), from, keys }, asked_at));
                        let reason =
                            if matches!(did, Did::Flushed) { Reason::Flushed } else { Reason::Window };
                        self.push_slots(number, at(told), reason, asked_at);
                        from = told;
                    }
                }
            }
            if from < told {
                if self.upto(8) == 0 {
                    let slots = keys.drain(..).map(|(key, _)| (slot_of(&key), slot_of(&key))).collect();
                    let push =
                        Push::Slots { to: at(told), epoch: self.epoch, slots, reason: Reason::TooMany };
                    self.wire.push_back((push, asked_at));
                }
                self.wire.push_back((Push::Keys { to: at(told), from, keys }, asked_at));
            }
            self.told[number] = (told, lineage);
            if self.upto(3) == 0 && told == copy.applied {
                self.wire.push_back((Push::Heartbeat(vec![(at(told), self.now - copy.as_of)]), asked_at));
            }
        }
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

    fn push_slots(&mut self, shard: usize, to: Position, reason: Reason, asked_at: u64) {
        let (slots, epoch) = self.owned(shard, to.index);
        self.wire.push_back((Push::Slots { to, epoch, slots, reason }, asked_at));
    }

    /// The client's side: what comes next, twice or not at all at times.
    fn deliver(&mut self) {
        let Some((push, asked_at)) = self.wire.pop_front() else { return };
        let slots = matches!(push, Push::Slots { .. });
        // A connection loses nothing in between; a server that leaves out an interval is found out all the same.
        if self.upto(50) == 0 && !slots {
            return;
        }
        if self.upto(20) == 0 && !slots {
            let at = self.upto(self.wire.len() + 1).min(self.wire.len());
            self.wire.insert(at, (push.clone(), asked_at));
        }
        if self.l1.take(&push, Some(Duration::from_millis(asked_at))).is_err() {
            self.connect();
        }
    }

    fn connect(&mut self) {
        self.wire.clear();
        self.replica = self.upto(REPLICAS);
        let cursors = self.l1.cursors();
        for number in 0..SHARDS {
            let Shard { lineage, replicas, .. } = &self.shards[number];
            let (lineage, copy) = (*lineage, replicas[self.replica]);
            let from = cursors.iter().find(|cursor| cursor.shard == number as u32);
            let (start, index) = match from {
                None => (Start::Fresh, copy.applied),
                Some(from) if from.lineage == lineage && from.index >= copy.floor => {
                    (Start::Resumed, from.index)
                }
                Some(_) => (Start::Flush, copy.applied),
            };
            // Ownership as of the position: what came behind it is in the stream.
            let (slots, epoch) = self.owned(number, index);
            let position = Position { shard: number as u32, lineage, index };
            self.l1.subscribed(&Subscribed { start, position, epoch, slots });
            self.told[number] = (index, lineage);
        }
    }

    fn serve(&mut self, bound: u64) -> Result<(), String> {
        for number in 0..KEYS {
            let Lookup::Hit(value) = self.l1.lookup(&key(number), Duration::from_millis(self.now)) else {
                continue;
            };
            let version = value.map_or(0, |value| String::from_utf8_lossy(&value).parse().unwrap());
            let contents = &self.contents[number];
            let until = |at: usize| contents.get(at + 1).map_or(u64::MAX, |next| next.since);
            let matching = || (0..contents.len()).filter(|at| contents[*at].version == version);
            let Some(last) = matching().next_back() else {
                return Err(format!("key {number} never was {version}"));
            };
            if until(last).saturating_add(bound) < self.now {
                let since = self.now - until(last);
                return Err(format!("key {number} was overtaken {since} ms ago"));
            }
            // "None" may have been its content several times.
            let hit = self.hits[number];
            let Some(at) = matching().find(|at| *at >= hit || until(*at) >= contents[hit].since) else {
                return Err(format!("key {number} went back in time"));
            };
            self.hits[number] = at.max(hit);
            self.served += 1;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        self.now += self.upto(30) as u64;
        self.expire();
        match self.upto(400) {
            0..50 => self.write(),
            50..170 => self.read(),
            170..250 => self.land(),
            250..300 => self.replicate(),
            300..340 => self.pull(),
            340..380 => self.deliver(),
            380..384 => self.connect(),
            384..388 => self.fail_over(),
            388..390 => self.migrate(),
            390 => self.restore(),
            391 => self.flush(),
            392..394 => {
                let (shard, replica) = (self.upto(SHARDS), self.upto(REPLICAS));
                let copy = &mut self.shards[shard].replicas[replica];
                copy.floor = copy.applied;
            }
            394..396 => self.now += 300,
            _ => (0..4).for_each(|_| self.deliver()),
        }
        self.serve(BOUND)
    }

    /// When all is delivered, all that is served is the content.
    fn settle(&mut self) -> Result<(), String> {
        self.expire();
        for shard in &mut self.shards {
            let head = shard.head();
            shard.replicas.iter_mut().for_each(|copy| (copy.applied, copy.as_of) = (head, self.now));
        }
        while !self.flying.is_empty() {
            self.land();
        }
        for _ in 0..20 {
            self.pull();
            while !self.wire.is_empty() {
                self.deliver();
            }
        }
        self.serve(0)
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

fn play(seed: u64, broken: Option<Rule>) -> Result<u64, String> {
    let mut world = World::new(seed, broken);
    world.connect();
    for _ in 0..STEPS {
        world.step()?;
    }
    world.settle()?;
    Ok(world.served)
}

#[test]
fn no_entry_is_served_beyond_the_bound_and_none_stays_wrong() {
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS);
    let mut served = 0;
    for seed in 0..seeds {
        served += play(seed, None).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    }
    assert!(served > 150 * seeds, "{served} hits: the model hardly serves");
}

#[test]
fn with_any_part_of_the_rules_left_out_something_goes_wrong() {
    use Rule::*;
    for rule in [Owner, Lineage, Floor, Expiry, Verified, Changed, Newer, Entry, Contested, Gap] {
        let noticed = (0..300).find(|seed| play(*seed, Some(rule)).is_err());
        assert!(noticed.is_some(), "nothing goes wrong without {rule:?}");
    }
}
