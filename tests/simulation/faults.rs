//! What goes wrong, and when, out of the seed.
//!
//! Nodes are killed and come back, alone or all at once, with their machines or without, or stop in order; they die at
//! the n-th thing they do to their disk, while they run or while they start. They are paused; links are cut, in one
//! direction or both, and slow; disks fail, run full, forget, are lost; clocks jump. Beside that the operator asks for
//! failovers and snapshots.
//!
//! Where a node's copies are gone or not to be trusted, two nodes lost at once may lose acknowledged writes, and nobody
//! has promised otherwise. Such a node is therefore lost only while all copies of all groups vote, and no other is
//! about to be lost. Others may die at any time, one or all.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use slotcast::id::GroupId;
use slotcast::wal::simulated::{Crash, Operation};

use crate::invariants::health::unsettled;
use crate::machines::Durability;
use crate::network::LATENCY;
use crate::node::NODES;
use crate::world::World;

/// Between two faults (ms).
const GAP: std::ops::Range<u64> = 50..900;
/// Clocks jump in one of so many seeds ...
const CLOCKS: u64 = 4;
/// ... and are wrong by so much (ms) at most.
const SKEW: u64 = 150;
/// A node that could not start tries again after so long (ms).
const AGAIN: u64 = 300;

/// Undoes a fault.
#[derive(Clone, Copy, Debug)]
enum Remedy {
    /// `forgets`: its copies may be lost.
    Restart {
        node: usize,
        forgets: bool,
    },
    Mend(usize, usize),
    SpeedUp(usize, usize),
    MakeRoom(usize),
}

/// See the module's documentation.
pub struct Faults {
    rng: SmallRng,
    next: u64,
    open: Vec<(u64, Remedy)>,
    /// By how much clocks may be wrong (ms).
    pub skew: u64,
    pub count: usize,
}

impl Faults {
    /// Nothing has gone wrong yet.
    pub fn new(seed: u64) -> Faults {
        Faults {
            rng: SmallRng::seed_from_u64(seed ^ 0xfa17),
            next: 0,
            open: Vec::new(),
            skew: if seed.is_multiple_of(CLOCKS) { SKEW } else { 0 },
            count: 0,
        }
    }

    /// Lets something go wrong, if it is time.
    pub fn step(&mut self, world: &mut World) {
        let due = |until: &u64| *until <= world.now;
        let over: Vec<Remedy> =
            self.open.extract_if(.., |(until, _)| due(until)).map(|(_, remedy)| remedy).collect();
        over.into_iter().for_each(|remedy| self.undo(world, remedy));
        if self.next <= world.now {
            self.next = world.now + self.rng.random_range(GAP);
            self.happen(world);
        }
    }

    /// Undoes everything.
    pub fn heal(&mut self, world: &mut World) {
        (0..NODES).for_each(|node| world.fill_disk(node, None));
        (0..NODES).filter(|_| self.skew > 0).for_each(|node| world.set_clock(node, 0));
        for (_, remedy) in std::mem::take(&mut self.open) {
            match remedy {
                Remedy::Restart { node, .. } => drop(restart(world, node)),
                remedy => self.undo(world, remedy),
            }
        }
        world.resume_all();
    }

    fn undo(&mut self, world: &mut World, remedy: Remedy) {
        match remedy {
            Remedy::Restart { node, forgets } => self.restart(world, node, forgets),
            Remedy::Mend(from, to) => {
                world.trace.note(format!("mended: {from} to {to}"));
                world.network.mend(from, to);
            }
            Remedy::SpeedUp(from, to) => world.network.slow_down(from, to, LATENCY),
            Remedy::MakeRoom(node) => world.fill_disk(node, None),
        }
    }

    /// It comes back, and at times dies once more on the way.
    fn restart(&mut self, world: &mut World, node: usize, forgets: bool) {
        if world.nodes()[node].is_some() {
            world.kill(node, false);
        }
        if world.durability() != Durability::Memory && self.rng.random_ratio(1, 4) {
            let crash = self.draw_crash();
            world.crash(node, crash, false);
            // It may live past its start, and die later.
            self.open.push((world.now + AGAIN, Remedy::Restart { node, forgets }));
            world.start(node);
        } else if !world.start(node) {
            self.open.push((world.now + AGAIN, Remedy::Restart { node, forgets }));
        }
    }

    fn happen(&mut self, world: &mut World) {
        let node = self.rng.random_range(0..NODES);
        let other = (node + self.rng.random_range(1..NODES)) % NODES;
        let others: Vec<usize> = (0..NODES).filter(|other| *other != node).collect();
        let until = world.now + self.rng.random_range(50..2500);
        self.count += 1;
        match self.rng.random_range(0..100) {
            0..20 => self.lose(world, node, until),
            20..32 => world.pause(node, until),
            32..42 => {
                self.cut(world, others.iter().flat_map(|other| [(node, *other), (*other, node)]), until)
            }
            42..47 => self.cut(world, [(node, other), (other, node)], until),
            47..51 => self.cut(world, [(node, other)], until),
            51..54 => self.cut(world, others.iter().map(|other| (node, *other)), until),
            54..57 => self.cut(world, others.iter().map(|other| (*other, node)), until),
            57..62 => {
                world.trace.note(format!("connections between {node} and {other} break"));
                world.network.reset(node, other);
            }
            62..69 => self.slow_down(world, node, until),
            69..85 if world.durability() != Durability::Memory => self.break_disk(world, node, until),
            69..85 => self.lose(world, node, until),
            85..92 => world.become_home(node, GroupId(self.rng.random_range(1..=NODES as u32))),
            92..96 => self.stop(world, node, until),
            96..98 => world.save(node),
            _ => {
                let most = self.skew as i64;
                let ahead = self.rng.random_range(-most..=most);
                world.set_clock(node, ahead);
            }
        }
    }

    /// Whether a node's copies may be lost now.
    fn may_forget(&self, world: &World) -> bool {
        let awaited = |remedy: &Remedy| matches!(remedy, Remedy::Restart { forgets: true, .. });
        !self.open.iter().any(|(_, remedy)| awaited(remedy)) && unsettled(world.nodes()).is_none()
    }

    /// A node dies, alone or with all others, with its machine or without.
    fn lose(&mut self, world: &mut World, node: usize, until: u64) {
        let (with_machine, all) = (self.rng.random_ratio(1, 3), self.rng.random_ratio(1, 4));
        let (durability, silent) = (world.durability(), self.rng.random());
        let forgets = match durability {
            Durability::Memory => true,
            Durability::Quorum => with_machine,
            Durability::QuorumFsync => false,
        };
        if forgets && !self.may_forget(world) {
            return;
        }
        for node in (0..NODES).filter(|other| *other == node || all && !forgets) {
            if world.nodes()[node].is_none() {
                continue;
            }
            match with_machine && durability != Durability::Memory {
                true => world.cut_power(node),
                false => world.kill(node, silent),
            }
            self.open.push((until, Remedy::Restart { node, forgets }));
        }
    }

    fn stop(&mut self, world: &mut World, node: usize, until: u64) {
        let forgets = world.durability() == Durability::Memory;
        if world.nodes()[node].is_some() && (!forgets || self.may_forget(world)) {
            world.stop(node);
            self.open.push((until, Remedy::Restart { node, forgets }));
        }
    }

    fn break_disk(&mut self, world: &mut World, node: usize, until: u64) {
        if world.nodes()[node].is_none() {
            return;
        }
        let kind = self.rng.random_range(0..100);
        if (0..15).contains(&kind) {
            let room = self.rng.random_range(0..8 << 10);
            world.fill_disk(node, Some(room));
            return self.open.push((until, Remedy::MakeRoom(node)));
        }
        let with_machine = self.rng.random();
        let forgets = kind >= 60 || with_machine && world.durability() == Durability::Quorum;
        if forgets && !self.may_forget(world) {
            return;
        }
        match kind {
            15..60 => {
                let crash = self.draw_crash();
                world.crash(node, crash, with_machine);
            }
            60..75 => {
                let (after, half) = (self.rng.random_range(1..300), self.rng.random());
                world.fail_disk(node, after, half);
            }
            75..88 => world.damage(node),
            _ => world.wipe(node),
        }
        self.open.push((until, Remedy::Restart { node, forgets }));
    }

    /// Writes are many, the others few.
    fn draw_crash(&mut self) -> Crash {
        let (of, most) = match self.rng.random_range(0..3) {
            0 => (None, 400),
            1 => (Some(Operation::Names), 20),
            _ => (Some(Operation::Sync), 60),
        };
        Crash { left: self.rng.random_range(1..most), of, half: self.rng.random() }
    }

    fn slow_down(&mut self, world: &mut World, node: usize, until: u64) {
        let (latency, all) = (self.rng.random_range(5..60), self.rng.random_ratio(1, 3));
        world.trace.note(format!("bytes of node {node} take up to {latency} ms (of all nodes: {all})"));
        for (from, to) in (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to))) {
            if all || from == node {
                world.network.slow_down(from, to, latency);
                self.open.push((until, Remedy::SpeedUp(from, to)));
            }
        }
    }

    fn cut(&mut self, world: &mut World, links: impl IntoIterator<Item = (usize, usize)>, until: u64) {
        for (from, to) in links {
            world.trace.note(format!("cut: {from} to {to}"));
            world.network.cut(from, to);
            self.open.push((until, Remedy::Mend(from, to)));
        }
    }
}

/// Starts a node, though it may be running with a disk that is about to fail.
fn restart(world: &mut World, node: usize) -> bool {
    if world.nodes()[node].is_some() {
        world.kill(node, false);
    }
    world.start(node)
}
