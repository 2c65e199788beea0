//! What goes wrong, and when, out of the seed: nodes are killed and come back, nodes are paused, links are cut.
//!
//! Where a killed node's copies are gone or not to be trusted, two nodes lost at once may lose acknowledged writes. Such
//! a node is therefore lost only while all copies of all groups vote. Others may die at any time, one or all.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::leaders::unsettled;
use crate::machines::Durability;
use crate::node::NODES;
use crate::world::World;

/// Between two faults (ms).
const GAP: std::ops::Range<u64> = 50..900;

/// Undoes a fault.
#[derive(Clone, Copy, Debug)]
enum Remedy {
    Restart(usize),
    Mend(usize, usize),
    SpeedUp,
}

/// See the module's documentation.
pub struct Faults {
    rng: SmallRng,
    next: u64,
    open: Vec<(u64, Remedy)>,
    power_lost: bool,
    pub count: usize,
}

impl Faults {
    /// Nothing has gone wrong yet.
    pub fn new(seed: u64) -> Faults {
        Faults {
            rng: SmallRng::seed_from_u64(seed ^ 0xfa17),
            next: 0,
            open: Vec::new(),
            power_lost: false,
            count: 0,
        }
    }

    /// Lets something go wrong, if it is time.
    pub fn step(&mut self, world: &mut World) {
        let due = |until: &u64| *until <= world.now;
        let over: Vec<Remedy> =
            self.open.extract_if(.., |(until, _)| due(until)).map(|(_, remedy)| remedy).collect();
        over.into_iter().for_each(|remedy| remedy.apply(world));
        if self.next <= world.now {
            self.next = world.now + self.rng.random_range(GAP);
            self.happen(world);
        }
    }

    /// Undoes everything.
    pub fn heal(&mut self, world: &mut World) {
        self.open.drain(..).for_each(|(_, remedy)| remedy.apply(world));
        world.resume_all();
    }

    fn happen(&mut self, world: &mut World) {
        let node = self.rng.random_range(0..NODES);
        let other = (node + self.rng.random_range(1..NODES)) % NODES;
        let until = world.now + self.rng.random_range(50..2500);
        self.count += 1;
        match self.rng.random_range(0..100) {
            0..30 => self.lose(world, node, until),
            30..50 => world.pause(node, until),
            50..65 => {
                for other in (0..NODES).filter(|other| *other != node) {
                    self.cut(world, node, other, until);
                    self.cut(world, other, node, until);
                }
            }
            65..75 => {
                self.cut(world, node, other, until);
                self.cut(world, other, node, until);
            }
            75..85 => self.cut(world, node, other, until),
            85..92 => world.reset(node, other),
            _ => {
                world.slow_down(self.rng.random_range(5..60));
                self.open.push((until, Remedy::SpeedUp));
            }
        }
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
        // Two machines that lose power soon after one another are more than `durability quorum` promises to survive.
        let twice = forgets && with_machine && durability == Durability::Quorum && self.power_lost;
        if twice || forgets && unsettled(world.nodes()).is_some() {
            return;
        }
        self.power_lost |= with_machine;
        for node in (0..NODES).filter(|other| *other == node || all && !forgets) {
            if world.nodes()[node].is_none() {
                continue;
            }
            match with_machine && durability != Durability::Memory {
                true => world.cut_power(node),
                false => world.kill(node, silent),
            }
            self.open.push((until, Remedy::Restart(node)));
        }
    }

    fn cut(&mut self, world: &mut World, from: usize, to: usize, until: u64) {
        world.cut(from, to);
        self.open.push((until, Remedy::Mend(from, to)));
    }
}

impl Remedy {
    fn apply(self, world: &mut World) {
        match self {
            Remedy::Restart(node) => world.start(node),
            Remedy::Mend(from, to) => world.mend(from, to),
            Remedy::SpeedUp => world.slow_down(1),
        }
    }
}
