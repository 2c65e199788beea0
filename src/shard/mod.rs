//! A shard on this node: its keyspace, and how requests reach it.
//!
//! Reads run at once, on the thread that asks, under their slot's lock. Writes either run at once too (single-node
//! mode) or become a [`proposal`] that the group's log orders and [`machine`] applies, here and on every other
//! copy, replying where the request came from. [`proposer`] gathers the writes of all connections into few entries;
//! [`upkeep`] removes what has expired; [`memory`] decides what must go when memory is short.
//!
//! A shard doesn't know connections, sessions, routing or tracking. Whoever wants to hear of effects gives it an
//! [`observer::Observer`].

pub mod history;
pub mod machine;
pub mod memory;
pub mod observer;
pub mod piece;
pub mod proposal;
pub mod proposer;
pub mod stamp;
pub mod unit;
pub mod upkeep;

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::id::GroupId;
use crate::keyspace::Keyspace;
use crate::keyspace::effect::Nobody;
use crate::keyspace::locked::{Locked, Needs};
use crate::shard::history::History;
use crate::shard::observer::Observer;
use crate::shard::proposer::Proposer;
use crate::shard::stamp::Stamp;
use crate::time::{Clock, Millis};

/// Keys found past their deadline by reads that wait for their removal; further ones are left to upkeep's walk.
const MAX_LAPSED: usize = 4096;

/// A shard's copy on this node.
pub struct Shard {
    /// Its group.
    pub id: GroupId,
    /// Its keys.
    pub keyspace: Arc<Keyspace>,
    /// Who hears of effects.
    pub observer: Arc<dyn Observer>,
    /// Where it stands.
    pub history: Arc<History>,
    /// Its time and its seeds.
    pub stamp: Arc<Stamp>,
    /// How writes go through the group's log; none in single-node mode, and none yet while the group is starting.
    proposer: RwLock<Option<Arc<Proposer>>>,
    lapsed: Mutex<Vec<Box<[u8]>>>,
}

impl Shard {
    /// A shard with an empty keyspace. `seed` starts its random choices.
    pub fn new(id: GroupId, observer: Arc<dyn Observer>, clock: Clock, seed: u64) -> Self {
        Self {
            id,
            keyspace: Arc::new(Keyspace::new()),
            observer,
            history: Arc::default(),
            stamp: Arc::new(Stamp::new(clock, seed)),
            proposer: RwLock::new(None),
            lapsed: Mutex::default(),
        }
    }

    /// The way through the log, if there is one.
    pub fn proposer(&self) -> Option<Arc<Proposer>> {
        self.proposer.read().clone()
    }

    /// Attaches the way through the log.
    pub fn attach(&self, proposer: Arc<Proposer>) {
        *self.proposer.write() = Some(proposer);
    }

    /// Locks slots for a read at `now`.
    pub fn lock(&self, needs: &Needs, now: Millis) -> Locked<'_> {
        Locked::new(&self.keyspace, needs, now, self.stamp.seed(), &Nobody)
    }

    /// Takes note of keys that a read found past their deadline, for upkeep to remove.
    pub fn note_lapsed(&self, locked: &mut Locked<'_>) {
        let found = locked.take_lapsed();
        if !found.is_empty() {
            let mut lapsed = self.lapsed.lock();
            let room = MAX_LAPSED.saturating_sub(lapsed.len());
            lapsed.extend(found.into_iter().take(room));
        }
    }

    fn take_lapsed(&self) -> Vec<Box<[u8]>> {
        std::mem::take(&mut self.lapsed.lock())
    }
}
