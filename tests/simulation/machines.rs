//! The machines that the nodes run on: each has a disk, a clock, and is booted now and then.
//!
//! Which durability a run has is a matter of its seed. The logs' files are tiny, so that all that happens to them in a
//! week happens in a second: they are begun, prepared, removed when snapshots cover them.

use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use slotcast::id::NodeId;
use slotcast::node::cluster::options::Durable;
use slotcast::time::Clock;
use slotcast::wal::recovery::WalOptions;
use slotcast::wal::simulated::SimulatedDisk;
use slotcast::wal::trust::{Boot, Sync};
use slotcast::wal::writer::Sizes;

use crate::node::NODES;

const SIZES: Sizes = Sizes { first: 2 << 10, longest: 16 << 10 };
/// Wall time (Unix, ms) when a simulation begins.
const EPOCH: u64 = 1_700_000_000_000;

/// Whether a start reads a file of this name.
fn is_read(name: &str) -> bool {
    name.ends_with(".wal") || name.ends_with(".snap")
}

/// What outlasts a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    Memory,
    Quorum,
    QuorumFsync,
}

/// See the module's documentation.
pub struct Machines {
    pub durability: Durability,
    machines: [Machine; NODES],
}

struct Machine {
    disk: SimulatedDisk,
    boot: u128,
    /// Nodes there were on it: one whose directory is lost is another node.
    owner: u8,
    clock: &'static AtomicU64,
    /// By how much (ms) it is wrong.
    ahead: i64,
    /// By how much the node's own is, which does not go back within one life.
    told: i64,
    rng: StdRng,
}

impl Machines {
    /// Three machines with empty disks.
    pub fn new(seed: u64) -> Machines {
        let durability = match seed % 3 {
            0 => Durability::Memory,
            1 => Durability::Quorum,
            _ => Durability::QuorumFsync,
        };
        let machine = |node: usize| Machine {
            disk: SimulatedDisk::default(),
            boot: 1,
            owner: 0,
            // A run is a process: that is not much.
            clock: Box::leak(Box::new(AtomicU64::new(EPOCH))),
            ahead: 0,
            told: 0,
            rng: StdRng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(node as u64)),
        };
        Machines { durability, machines: std::array::from_fn(machine) }
    }

    /// What a node that is started on its machine is told to keep, and where.
    pub fn durable(&self, node: usize, draw: u64) -> Option<Durable> {
        let sync = match self.durability {
            Durability::Memory => return None,
            Durability::Quorum => Sync::Background,
            Durability::QuorumFsync => Sync::Always,
        };
        let machine = &self.machines[node];
        let boot = Some(Boot(machine.boot));
        let wal = WalOptions { disk: machine.disk.mount("wal"), sync, boot, draw, sizes: SIZES };
        Some(Durable { wal, snapshots: machine.disk.mount("snapshots") })
    }

    /// The id of the node that lives there.
    pub fn owner(&self, node: usize) -> NodeId {
        NodeId::from_bytes([self.machines[node].owner * 16 + node as u8 + 1; 20])
    }

    /// A machine's disk.
    pub fn disk(&self, node: usize) -> &SimulatedDisk {
        &self.machines[node].disk
    }

    /// A machine's clock.
    pub fn clock(&self, node: usize) -> Clock {
        Clock::Told(self.machines[node].clock)
    }

    /// It is `now` (ms).
    pub fn advance(&self, now: u64) {
        for machine in &self.machines {
            machine.clock.store((EPOCH + now).saturating_add_signed(machine.told), Ordering::Relaxed);
        }
    }

    /// From now on a machine's clock is wrong by so much (ms).
    pub fn set_clock(&mut self, node: usize, ahead: i64) {
        self.machines[node].ahead = ahead;
        self.machines[node].told = ahead.max(self.machines[node].told);
    }

    /// The node's process has died; the kernel has what it wrote.
    pub fn process_died(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        machine.disk.kill();
        machine.told = machine.ahead;
    }

    /// The machine has died, and what was not synced with it, or half of that.
    pub fn lost_power(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        machine.boot += 1;
        machine.disk.lose_power(&mut machine.rng);
    }

    /// The node's directory is lost, its id with it.
    pub fn wipe(&mut self, node: usize) {
        self.machines[node].disk.wipe();
        self.machines[node].owner += 1;
    }

    /// A bit of what the node wrote is wrong from now on, somewhere before the end; what file that is in.
    pub fn damage(&mut self, node: usize) -> Option<String> {
        let machine = &mut self.machines[node];
        let written: Vec<(String, usize)> =
            machine.disk.written().into_iter().filter(|(name, bytes)| *bytes > 0 && is_read(name)).collect();
        // The end of a log may look torn, and a torn end is cut off; that this was damage nobody could tell.
        let last = written.iter().rposition(|(name, _)| name.ends_with(".wal"));
        let whole = |(at, _): &(usize, &(String, usize))| Some(*at) != last;
        let sound: Vec<&(String, usize)> =
            written.iter().enumerate().filter(whole).map(|(_, file)| file).collect();
        let (name, bytes) = sound.get(machine.rng.random_range(0..sound.len().max(1)))?;
        machine.disk.damage(name, machine.rng.random_range(0..*bytes));
        Some(name.clone())
    }
}
