//! The slots this node leads, over all its shards: what SCAN, KEYS and DBSIZE show in a cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use slotcast_wire::args::Args;
use slotcast_wire::redirect::{ClusterDown, Redirect};
use slotcast_wire::reply::Reply;

use crate::command::spec::Command;
use crate::id::GroupId;
use crate::keyspace::Keyspace;
use crate::keyspace::locked::Needs;
use crate::keyspace::territory::Territory;
use crate::server::dispatch::{Dispatch, Step};
use crate::shard::Shard;
use crate::topology::view::View;

/// See the module's documentation.
struct Led<'a> {
    view: &'a View,
    shards: BTreeMap<GroupId, &'a Shard>,
}

impl<'a> Led<'a> {
    /// What `view` says this node leads.
    fn new(view: &'a View, shards: &'a BTreeMap<GroupId, Arc<Shard>>) -> Self {
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

impl Dispatch<'_> {
    /// A command without keys, in a cluster: over all shards that this node leads, each under its lease.
    pub(super) fn everywhere(&mut self, command: &'static Command, args: Args<'_>, needs: &Needs) -> Step {
        if command.is_write() {
            return Step::ProposeAll;
        }
        let (Some(view), shards) = (self.view.clone(), self.shards) else { return Step::Done };
        let Some(any) = shards.values().next() else {
            return self.redirect(&Redirect::ClusterDown(ClusterDown::Cluster));
        };
        for (_, shard) in shards.iter().filter(|(group, _)| view.serves(**group)) {
            if let Err(step) = self.under_lease(shard) {
                return step;
            }
        }
        let occasion = self.occasion(any);
        let mut reply = Reply::new(self.out, self.session.proto);
        any.read_over(&Led::new(&view, shards), (command, args), needs, occasion, &mut reply);
        Step::Done
    }
}
