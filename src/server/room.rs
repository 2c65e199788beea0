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

impl Dispatch<'_> {
    /// Lets keys go if memory is short, before a write.
    pub(super) fn make_room(&mut self, shard: &Arc<Shard>) -> Result<(), CommandError> {
        let live = self.server.context.config.live();
        if live.maxmemory == 0 {
            return Ok(());
        }
        let used = self.server.context.used_memory();
        if used <= live.maxmemory {
            return Ok(());
        }
        let (limit, policy, samples) =
            (live.maxmemory, policy(live.maxmemory_policy), live.maxmemory_samples);
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

    /// The same before a request is queued, whichever shard it will be for.
    pub(super) fn make_room_somewhere(&mut self) -> Result<(), CommandError> {
        let shard = self.single.or_else(|| self.shards.values().next());
        shard.map_or(Ok(()), |shard| self.make_room(shard))
    }
}

fn policy(configured: EvictionPolicy) -> Policy {
    match configured {
        EvictionPolicy::NoEviction => Policy::NoEviction,
        EvictionPolicy::AllKeysLru => Policy::AllkeysLru,
        EvictionPolicy::VolatileTtl => Policy::VolatileTtl,
    }
}
