//! Whether a read may be answered here: under the leader's lease, after a quorum has confirmed it, or by a copy that
//! is new enough.
//!
//! A lease is checked before the reads of a turn, to save them, and again after, because only then it says that they
//! were current (Raft thesis §6.4.1). It doesn't know what is read.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::server::dispatch::{Dispatch, Step};
use crate::shard::Shard;
use crate::shard::proposer::Proposer;

impl<'a> Dispatch<'a> {
    /// Whether all that was read under leases was current: to be asked after the reads, before their replies leave.
    /// If a lease still holds then, nobody else could have changed what was read.
    pub fn reads_are_current(&self) -> bool {
        self.leased.iter().all(|shard| holds_lease(shard))
    }

    /// Whether a copy that another node leads is new enough to be read.
    pub(super) fn is_fresh(&self, shard: &Shard) -> bool {
        let live = self.server.context.config.live();
        let limit = match live.replica_max_staleness {
            // Any copy may be read, but a cache must not be filled from one that is cut off: nobody could tell it.
            Duration::ZERO if self.session.tracking.on => live.cluster_node_timeout,
            limit => limit,
        };
        let within = |proposer: Arc<Proposer>| proposer.group().is_within(limit, Instant::now());
        limit.is_zero() || shard.proposer().is_some_and(within)
    }

    /// A shard that may be served now: under its lease, or after the leadership was confirmed.
    pub(super) fn under_lease(&mut self, shard: &'a Arc<Shard>) -> Result<&'a Arc<Shard>, Step> {
        if self.session.linearizable && self.confirmed != Some(shard.id) {
            return Err(Step::Confirm(shard.clone()));
        }
        if self.confirmed == Some(shard.id) || self.leased.iter().any(|leased| leased.id == shard.id) {
            return Ok(shard);
        }
        if !holds_lease(shard) {
            return Err(Step::Confirm(shard.clone()));
        }
        self.leased.push(shard);
        Ok(shard)
    }
}

/// Whether what is read from the shard up to now is current.
fn holds_lease(shard: &Shard) -> bool {
    shard.proposer().is_some_and(|proposer| proposer.lease().is_valid(Instant::now()))
}
