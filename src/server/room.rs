//! Making room: what a write meets when memory is short (`maxmemory`).

use std::sync::Arc;

use crate::command::error::CommandError;
use crate::config::setting::EvictionPolicy;
use crate::keyspace::effect::Change;
use crate::keyspace::eviction::Policy;
use crate::server::dispatch::Dispatch;
use crate::shard::Shard;
use crate::shard::memory::Pressure;
use crate::shard::proposal;
use crate::shard::unit::Occasion;

/// A little more room is made than is needed, at most so many bytes and this part of the limit: the next writes of a
/// pipeline then fit into one log entry instead of waiting for an eviction each.
const HEADROOM: u64 = 64 << 10;
/// See [`HEADROOM`].
const HEADROOM_PART: u64 = 128;

/// A shard takes more than its share.
pub(super) struct Short {
    used: u64,
    limit: u64,
}

impl Dispatch<'_> {
    /// Whether a shard that is about to grow by `planned` bytes stays within its share.
    pub(super) fn room_for(&self, shard: &Shard, planned: usize) -> Result<(), Short> {
        let Some(limit) = self.server.context.memory_share() else { return Ok(()) };
        let used = shard.keyspace.usage().bytes.max(0) as u64;
        if used + planned as u64 <= limit { Ok(()) } else { Err(Short { used, limit }) }
    }

    /// Lets keys go if memory is short, before a write.
    pub(super) fn make_room(&mut self, shard: &Arc<Shard>) -> Result<(), CommandError> {
        let Err(Short { used, limit }) = self.room_for(shard, 0) else { return Ok(()) };
        let live = self.server.context.config.live();
        let (policy, samples) = (policy(live.maxmemory_policy), live.maxmemory_samples);
        let used = used + (limit / HEADROOM_PART).min(HEADROOM);
        let victims = shard
            .victims(Pressure { limit, used, policy, samples })
            .map_err(|_| CommandError::OUT_OF_MEMORY)?;
        match shard.proposer() {
            Some(proposer) => {
                let mut units = Vec::new();
                proposal::put_evict(&victims, &mut units);
                proposer.submit_upkeep(units, 1);
            }
            None => {
                let victims: Vec<&[u8]> = victims.iter().map(|key| &**key).collect();
                let occasion = Occasion { author: None, tracking: false, ..self.occasion(shard) };
                shard.remove(&victims, Change::Evicted, occasion);
            }
        }
        Ok(())
    }
}

fn policy(configured: EvictionPolicy) -> Policy {
    match configured {
        EvictionPolicy::NoEviction => Policy::NoEviction,
        EvictionPolicy::AllKeysLru => Policy::AllkeysLru,
        EvictionPolicy::VolatileTtl => Policy::VolatileTtl,
    }
}
