//! Whether this node can vouch for what caches have been told here.
//!
//! Every copy of a shard tells the caches that were filled from it, or that listen here, of every change it applies. A
//! copy that changes no longer reach cannot: a leader without a quorum, a follower without a leader or far behind it.
//! After the bound that also holds for reads of copies (`replica-max-staleness`) it tells them to drop everything, and
//! goes on doing so until it is up to date again; so nothing a cache holds is older than that for long. The same goes
//! for a copy that the node gives up, and for slots that another shard serves from now on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use slotcast_wire::slot::SLOTS;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::config::setting::Live;
use crate::id::GroupId;
use crate::server::Server;
use crate::shard::Shard;
use crate::topology::Topology;

/// The bound is at least so many looks long: between two of them nothing is known.
const LOOKS: u32 = 4;

/// One copy's standing.
#[derive(Debug)]
struct Copy {
    /// It was as new as the leader's then.
    as_of: Instant,
    /// When caches were last told to drop everything; none: it is vouched for.
    told: Option<Instant>,
}

/// What follows from a look at a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is vouched for, or caches have been told so lately.
    Nothing,
    /// Caches have to drop everything, for the first time (true) or again.
    Drop(bool),
    /// It is vouched for again.
    Again,
}

impl Copy {
    fn look(&mut self, as_of: Option<Instant>, now: Instant, bound: Duration) -> Verdict {
        self.as_of = as_of.map_or(self.as_of, |as_of| as_of.max(self.as_of));
        if now.saturating_duration_since(self.as_of) <= bound {
            return if self.told.take().is_some() { Verdict::Again } else { Verdict::Nothing };
        }
        match self.told {
            Some(told) if now.saturating_duration_since(told) <= bound => Verdict::Nothing,
            told => {
                self.told = Some(now);
                Verdict::Drop(told.is_none())
            }
        }
    }
}

/// See the module's documentation.
#[derive(Default)]
pub struct Vouching {
    copies: BTreeMap<GroupId, Copy>,
    topology: Option<Arc<Topology>>,
}

impl Vouching {
    /// Looks at all copies; to be called a few times a second. In single-node mode there is nothing to doubt.
    pub fn look(&mut self, server: &Server) {
        let Some(view) = server.context.view() else { return };
        let (now, bound) = (Instant::now(), bound(&server.context.config.live()));
        let shards = server.shards.load_full();
        self.copies.retain(|group, _| {
            let is_here = shards.contains_key(group);
            if !is_here {
                info!(
                    "{group}: no copy here any more; caches that track keys of it are told to drop everything"
                );
                server.invalidation.forget_shard(*group);
            }
            is_here
        });
        for (group, shard) in shards.iter() {
            let copy = self.copies.entry(*group).or_insert(Copy { as_of: now, told: None });
            let verdict = copy.look(as_of(shard, now), now, bound);
            match verdict {
                Verdict::Drop(true) => warn!(
                    "{group}: for {bound:?} nothing is known of its changes; caches that track keys here are told to drop everything"
                ),
                Verdict::Again => info!("{group}: changes are known again"),
                Verdict::Drop(false) | Verdict::Nothing => {}
            }
            if matches!(verdict, Verdict::Drop(_)) {
                server.invalidation.forget_shard(*group);
            }
        }
        self.follow_slots(&view.topology, |moved| server.invalidation.forget_slots(moved));
    }

    fn follow_slots(&mut self, topology: &Arc<Topology>, forget: impl FnOnce(&dyn Fn(u16) -> bool)) {
        let before = self.topology.replace(topology.clone());
        let Some(before) = before.filter(|before| !Arc::ptr_eq(before, topology)) else { return };
        let has_moved = |slot| match (before.slots.owner(slot), topology.slots.owner(slot)) {
            (Some(owner), now) => now != Some(owner),
            (None, _) => false,
        };
        if (0..SLOTS as u16).any(has_moved) {
            forget(&has_moved);
        }
    }
}

/// How long changes may be unknown.
fn bound(live: &Live) -> Duration {
    let bound = match live.replica_max_staleness {
        Duration::ZERO => live.cluster_node_timeout,
        bound => bound,
    };
    bound.max(live.upkeep_interval() * LOOKS)
}

/// When a copy was as new as its leader's; none: never as far as it knows.
fn as_of(shard: &Shard, now: Instant) -> Option<Instant> {
    let proposer = shard.proposer()?;
    if proposer.lease().is_valid(now) { Some(now) } else { proposer.group().as_of() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::slot_map::SlotMap;

    #[test]
    fn caches_are_told_when_the_bound_is_over_and_again_while_it_lasts() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut copy = Copy { as_of: start, told: None };
        let mut look =
            |as_of: Option<u64>, now| copy.look(as_of.map(at), at(now), Duration::from_millis(100));
        assert_eq!(look(Some(90), 100), Verdict::Nothing);
        assert_eq!(look(Some(50), 190), Verdict::Nothing, "what was known stays known");
        assert_eq!(look(None, 191), Verdict::Drop(true));
        assert_eq!(look(None, 291), Verdict::Nothing);
        assert_eq!(look(Some(120), 292), Verdict::Drop(false), "who has begun to listen meanwhile");
        assert_eq!(look(Some(290), 300), Verdict::Again);
        assert_eq!(look(Some(300), 310), Verdict::Nothing);
        assert_eq!(look(None, 500), Verdict::Drop(true));
    }

    #[test]
    fn keys_of_slots_that_another_shard_serves_are_forgotten() {
        let shards = [GroupId(1), GroupId(2)];
        let mut topology = Topology { slots: SlotMap::even(&shards), ..Topology::default() };
        let mut vouching = Vouching::default();
        let mut moved = |topology: &Topology| {
            let mut moved = Vec::new();
            vouching.follow_slots(&Arc::new(topology.clone()), |is_moved| {
                moved = (0..SLOTS as u16).filter(|slot| is_moved(*slot)).collect();
            });
            moved
        };
        assert_eq!(moved(&topology), [0; 0], "the first one moves nothing");
        topology.slots.assign(7, GroupId(2));
        topology.slots.assign(9, GroupId(2));
        assert_eq!(moved(&topology), [7, 9]);
        assert_eq!(moved(&topology), [0; 0]);
    }
}
