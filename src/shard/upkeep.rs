//! Removing keys past their deadline: those that reads came across, and those that a walk finds.
//!
//! For every command they are absent already; this gives their memory back and, since a removal is a write with a
//! place in the log, tells the caches. Only the leader (or the single node) does it. A step has a budget, so its
//! cost is bounded; who calls it, and how often, is the node's concern.

use std::sync::Arc;

use crate::keyspace::effect::Change;
use crate::keyspace::expiry::lapsed;
use crate::shard::Shard;
use crate::shard::proposal;
use crate::shard::proposer::Proposer;
use crate::shard::unit::Occasion;

/// Records the walk looks at in a step.
pub const WALK_BUDGET: usize = 20_000;
/// Keys removed in a step, at most; the walk goes on from there in the next.
pub const MAX_REMOVED: usize = 1_000;

/// Where a shard's walk stands.
#[derive(Debug, Default)]
pub struct Upkeep {
    cursor: u16,
}

impl Upkeep {
    /// One step; returns how many keys it removed, or asked the log to remove.
    pub fn step(&mut self, shard: &Shard, proposer: Option<&Arc<Proposer>>) -> usize {
        let now = shard.stamp.now();
        if proposer.is_some_and(|proposer| proposer.group().has_lost()) {
            shard.history.doubt();
        }
        if let Some(proposer) = proposer
            && let Some(after) = shard.history.should_end(now)
        {
            proposer.begin_history(after);
        }
        let mut keys = shard.take_lapsed();
        keys.truncate(MAX_REMOVED);
        let room = MAX_REMOVED - keys.len();
        if room > 0 {
            keys.extend(lapsed(&shard.keyspace, now, &mut self.cursor, WALK_BUDGET, room));
        }
        if keys.is_empty() {
            return 0;
        }
        match proposer {
            Some(proposer) => {
                let mut units = Vec::new();
                proposal::put_expire(&keys, &mut units);
                proposer.submit_upkeep(units, 1);
                keys.len()
            }
            None => {
                let keys: Vec<&[u8]> = keys.iter().map(|key| &**key).collect();
                let occasion = Occasion {
                    now,
                    seed: 0,
                    author: None,
                    tracking: false,
                    stamped: false,
                    index: None,
                    here: true,
                };
                shard.remove(&keys, Change::Expired, occasion)
            }
        }
    }
}
