//! The machines that the nodes run on: each has a disk and is booted now and then.
//!
//! Which durability a run has is a matter of its seed. The logs' files are tiny, so that all that happens to them in a
//! week happens in a second: they are begun, prepared, removed when snapshots cover them.

use rand::SeedableRng;
use rand::rngs::StdRng;
use slotcast::node::cluster::options::Durable;
use slotcast::wal::recovery::WalOptions;
use slotcast::wal::simulated::SimulatedDisk;
use slotcast::wal::trust::{Boot, Sync};
use slotcast::wal::writer::Sizes;

use crate::node::NODES;

const SIZES: Sizes = Sizes { first: 2 << 10, longest: 16 << 10 };

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
    seed: u64,
    disks: [SimulatedDisk; NODES],
    boots: [u128; NODES],
}

impl Machines {
    /// Three machines with empty disks.
    pub fn new(seed: u64) -> Machines {
        let durability = match seed % 3 {
            0 => Durability::Memory,
            1 => Durability::Quorum,
            _ => Durability::QuorumFsync,
        };
        Machines { durability, seed, disks: Default::default(), boots: [1; NODES] }
    }

    /// What a node that is started on its machine is told to keep, and where.
    pub fn durable(&self, node: usize, draw: u64) -> Option<Durable> {
        let sync = match self.durability {
            Durability::Memory => return None,
            Durability::Quorum => Sync::Background,
            Durability::QuorumFsync => Sync::Always,
        };
        let wal = WalOptions {
            disk: self.disks[node].mount("wal"),
            sync,
            boot: Some(Boot(self.boots[node])),
            draw,
            sizes: SIZES,
        };
        Some(Durable { wal, snapshots: self.disks[node].mount("snapshots") })
    }

    /// The node's process has died; the kernel has what it wrote.
    pub fn process_died(&self, node: usize) {
        self.disks[node].kill();
    }

    /// The machine has died, and what was not synced with it, or half of that.
    pub fn lost_power(&mut self, node: usize) {
        self.boots[node] += 1;
        let seed = self.seed.wrapping_mul(31).wrapping_add(self.boots[node] as u64);
        self.disks[node].lose_power(&mut StdRng::seed_from_u64(seed));
    }
}
