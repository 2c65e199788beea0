//! The rules of [`crate::l1`] against a model of a cluster that does its worst, out of a seed.
//!
//! Three shards, three replicas of each that lag, lead by turns and are cut off, on five nodes none of which has all;
//! values that arrive late and in any order; streams that are lost, doubled, behind, fallen out of the window; nodes that
//! go and come back, copies that move to other nodes and know nothing at first; slots that change hands; a history that is
//! replaced by an older one; keys that expire by themselves; several writes in one log entry. Time is a number. Every hit
//! must have been the key's content no longer ago than the bound, must not be older than the hit before it, and when all
//! has been delivered it must be the content, and all shards must be followed. With any part of the rules left out it isn't.

use std::time::Duration;

use bytes::Bytes;

use crate::l1::{Lookup, Rule, Value};
use crate::world::{BOUND, Flying, KEYS, REPLICAS, SHARDS, World, key};

const STEPS: usize = 700;
/// CI plays these; `SEEDS=5000 cargo test -p slotcast-near-cache model` plays more.
const SEEDS: u64 = 200;
/// All shards must be followed again so soon after all is well.
const RECOVERY: u64 = 10_000;

impl World {
    fn land(&mut self) {
        if self.flying.is_empty() {
            return;
        }
        // Some replies are quick, so that others come late.
        let at = if self.upto(3) == 0 { self.flying.len() - 1 } else { self.upto(self.flying.len()) };
        let Flying { key: number, version, stamp, expires_at, written } = self.flying.swap_remove(at);
        let bytes = (version > 0).then(|| Bytes::from(version.to_string()));
        let value = Value { bytes, stamp, expires_at: expires_at.map(Duration::from_millis) };
        match written {
            true => self.l1.written(key(number), value),
            false => drop(self.l1.fill(key(number), value)),
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
            170..270 => self.land(),
            270..300 => self.replicate(),
            300..340 => self.pull_all(),
            340..368 => (0..3).for_each(|_| self.deliver()),
            368..380 => self.run_errands(),
            380..382 => self.break_link(),
            382 => self.go_or_come_back(),
            383 => self.move_copy(),
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
        self.decide();
        if self.upto(4) == 0 {
            self.errand();
        }
        self.serve(BOUND)
    }

    /// When all is delivered, all shards are followed and all that is served is the content.
    fn settle(&mut self) -> Result<(), String> {
        while !self.flying.is_empty() {
            self.land();
        }
        let since = self.now;
        while !(self.follow.is_calm() && self.vouched_since(since)) {
            if self.now > since + RECOVERY {
                return Err(format!("not followed: {:?}", self.follow));
            }
            self.now += 20;
            self.catch_up();
            self.decide();
            self.run_errands();
            self.pull_all();
            self.deliver_all();
        }
        self.serve(0)
    }

    /// All nodes are there, and all copies have everything.
    fn catch_up(&mut self) {
        self.expire();
        self.network.come_back();
        for shard in &mut self.shards {
            let (head, now) = (shard.head(), self.now);
            shard.replicas.iter_mut().for_each(|copy| (copy.applied, copy.as_of) = (head, now));
        }
    }

    fn vouched_since(&self, since: u64) -> bool {
        let since = Duration::from_millis(since);
        (0..SHARDS as u32).all(|shard| self.l1.verified_at(shard).is_some_and(|at| at > since))
    }
}

fn play(seed: u64, broken: Option<Rule>) -> Result<u64, String> {
    let mut world = World::new(seed, broken);
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
