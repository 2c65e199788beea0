//! What to do when memory is short.
//!
//! The decision is the leader's (or the single node's): only it knows which keys were used. Victims are removed by a
//! write like any other, so every copy lets the same keys go, and whoever caches them hears of it.

use crate::keyspace::eviction::{Policy, victim};
use crate::shard::Shard;

/// Victims chosen before one write; the next write chooses more if that was not enough.
pub const MAX_VICTIMS: usize = 64;

/// A shard's limit and what is taken of it.
#[derive(Clone, Copy, Debug)]
pub struct Pressure {
    /// Bytes that may be used (this shard's share of `maxmemory`), never 0.
    pub limit: u64,
    /// Bytes it uses.
    pub used: u64,
    /// What may go.
    pub policy: Policy,
    /// Records drawn for each victim.
    pub samples: usize,
}

/// Memory is short and the policy lets nothing go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl Shard {
    /// Chooses keys to evict so that the use falls below the limit, as far as [`MAX_VICTIMS`] go.
    pub fn victims(&self, pressure: Pressure) -> Result<Vec<Box<[u8]>>, OutOfMemory> {
        let mut excess = pressure.used.saturating_sub(pressure.limit) as i64;
        let mut victims: Vec<Box<[u8]>> = Vec::new();
        let mut random = || self.random();
        let usage = self.keyspace.usage();
        let average = usage.bytes / usage.keys.max(1);
        while excess > 0 && victims.len() < MAX_VICTIMS {
            let chosen =
                victim(&self.keyspace, pressure.policy, pressure.samples, self.stamp.now(), &mut random);
            let Some(key) = chosen else { break };
            // The same key may be drawn twice; then memory is nearly empty of candidates and this is enough.
            if victims.contains(&key) {
                break;
            }
            victims.push(key);
            excess -= average.max(1);
        }
        if victims.is_empty() { Err(OutOfMemory) } else { Ok(victims) }
    }

    /// A random number that nothing replicated depends on.
    fn random(&self) -> u64 {
        let mut z = self.stamp.seed();
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
