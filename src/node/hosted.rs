//! The shards this node holds copies of: made when the cluster opens one, handed to the server as one map.
//!
//! The cluster asks for a machine first and brings the group when it runs; the shard made for the machine waits
//! here in between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::id::GroupId;
use crate::keyspace::Keyspace;
use crate::node::cluster::shards::{Factory, OpenShards};
use crate::shard::Shard;
use crate::shard::machine::ShardMachine;
use crate::shard::observer::Observer;
use crate::shard::proposer::Proposer;
use crate::time::Clock;

/// Shards by group.
pub type Shards = Arc<ArcSwap<BTreeMap<GroupId, Arc<Shard>>>>;
/// Their keyspaces.
pub type Keyspaces = Arc<ArcSwap<BTreeMap<GroupId, Arc<Keyspace>>>>;

/// Makes who hears of a shard's effects; called anew for each copy.
pub type Observers = Arc<dyn Fn(GroupId) -> Arc<dyn Observer> + Send + Sync>;

/// See the module's documentation.
#[derive(Clone)]
pub struct Hosted {
    observers: Observers,
    clock: Clock,
    /// The next shard's seed.
    seed: Arc<AtomicU64>,
    made: Arc<Mutex<BTreeMap<GroupId, Arc<Shard>>>>,
    /// The shards that run.
    pub shards: Shards,
    /// Their keyspaces.
    pub keyspaces: Keyspaces,
}

impl Hosted {
    /// None yet. `seed`: of all the shards' lots; random, except in a simulation.
    pub fn new(observers: Observers, clock: Clock, seed: u64) -> Self {
        let (seed, made) = (Arc::new(AtomicU64::new(seed)), Arc::default());
        Self { observers, clock, seed, made, shards: Arc::default(), keyspaces: Arc::default() }
    }

    /// The shard made last for a group, whether it runs already or not.
    pub fn made(&self, group: GroupId) -> Option<Arc<Shard>> {
        self.made.lock().get(&group).cloned()
    }

    /// A shard that runs without a group (single-node mode).
    pub fn open(&self, group: GroupId) {
        let shard = self.make(group);
        let lineage = shard.stamp.seed() >> 1 | 1;
        shard.history.begin(lineage);
        shard.observer.replaced(lineage, 0);
        self.publish(BTreeMap::from([(group, shard)]));
    }

    /// Makes the machines the cluster asks for.
    pub fn factory(&self) -> Factory {
        let this = self.clone();
        Arc::new(move |group| Box::new(ShardMachine::new(this.make(group))))
    }

    /// Follows the groups that run here, for ever.
    pub async fn follow(&self, mut opened: watch::Receiver<OpenShards>) {
        loop {
            let groups = opened.borrow_and_update().clone();
            let made = self.made.lock().clone();
            let running = groups.iter().filter_map(|(id, group)| {
                let shard = made.get(id)?.clone();
                let attached =
                    shard.proposer().is_some_and(|proposer| proposer.group().member() == group.member());
                if !attached {
                    if group.is_doubted() {
                        shard.history.doubt();
                    }
                    shard.attach(Proposer::new(group.clone(), shard.stamp.clone(), shard.history.clone()));
                }
                Some((*id, shard))
            });
            self.publish(running.collect());
            self.forget(&groups);
            if opened.changed().await.is_err() {
                return;
            }
        }
    }

    /// Gives up the copies that have run here and don't any more.
    fn forget(&self, groups: &OpenShards) {
        let ran = |shard: &Shard| shard.proposer().is_some();
        self.made.lock().retain(|group, shard| groups.contains_key(group) || !ran(shard));
    }

    fn make(&self, group: GroupId) -> Arc<Shard> {
        let seed = self.seed.fetch_add(1, Ordering::Relaxed);
        let shard = Arc::new(Shard::new(group, (self.observers)(group), self.clock, seed));
        self.made.lock().insert(group, shard.clone());
        shard
    }

    fn publish(&self, shards: BTreeMap<GroupId, Arc<Shard>>) {
        let keyspaces = shards.iter().map(|(group, shard)| (*group, shard.keyspace.clone())).collect();
        self.keyspaces.store(Arc::new(keyspaces));
        self.shards.store(Arc::new(shards));
    }
}
