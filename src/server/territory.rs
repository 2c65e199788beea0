//! The slots this node leads, over all its shards: what SCAN, KEYS and DBSIZE show in a cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::id::GroupId;
use crate::keyspace::Keyspace;
use crate::keyspace::territory::Territory;
use crate::shard::Shard;
use crate::topology::view::View;

/// See the module's documentation.
pub struct Led<'a> {
    view: &'a View,
    shards: BTreeMap<GroupId, &'a Shard>,
}

impl<'a> Led<'a> {
    /// What `view` says this node leads.
    pub fn new(view: &'a View, shards: &'a BTreeMap<GroupId, Arc<Shard>>) -> Self {
        let led = shards.iter().filter(|(group, _)| view.serves(**group));
        Self { view, shards: led.map(|(group, shard)| (*group, &**shard)).collect() }
    }
}

impl Territory for Led<'_> {
    fn keyspace_of(&self, slot: u16) -> Option<&Keyspace> {
        let owner = self.view.topology.slots.owner(slot)?;
        self.shards.get(&owner).map(|shard| &*shard.keyspace)
    }
}
