//! What session commands may look at: the node around the session. Shared by all its connections.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use crate::config::Config;
use crate::config::setting::Durability;
use crate::id::{GroupId, NodeId};
use crate::keyspace::Keyspace;
use crate::metrics::Metrics;
use crate::pubsub::registry::Registry;
use crate::session::clients::Clients;
use crate::session::saves::Saves;
use crate::time::{Clock, Millis};
use crate::topology::view::View;
use crate::tracking::rings::Rings;
use crate::tracking::table::Table;

/// The node around a session.
pub struct Context {
    /// This node.
    pub me: NodeId,
    /// Where time comes from.
    pub clock: Clock,
    /// When the node started.
    pub started: Millis,
    /// Drawn at start (INFO's run_id).
    pub run_id: NodeId,
    /// The configuration, with what CONFIG SET changes.
    pub config: Arc<Config>,
    /// The connections.
    pub clients: Clients,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Who subscribes to what.
    pub subscribers: Arc<Registry>,
    /// The keys that caching clients may hold.
    pub tracked: Arc<Table>,
    /// Saving at clients' request.
    pub saves: Saves,
    /// The keyspaces of the shards with a copy here; in single-node mode one, of shard 1.
    pub keyspaces: Arc<ArcSwap<BTreeMap<GroupId, Arc<Keyspace>>>>,
    /// The invalidation logs of the same shards.
    pub rings: Arc<Rings>,
    /// Takes the shards that this node is to become the home of; `None` in single-node mode.
    pub homes: Option<mpsc::Sender<GroupId>>,
    /// The cluster as this node sees it; `None` in single-node mode.
    pub cluster: Option<Arc<ArcSwap<View>>>,
}

impl Context {
    /// The view a request goes by.
    pub fn view(&self) -> Option<Arc<View>> {
        self.cluster.as_ref().map(|cluster| cluster.load_full())
    }

    /// `cluster` or `standalone`, as HELLO and INFO name it.
    pub fn mode(&self) -> &'static str {
        if self.cluster.is_some() { "cluster" } else { "standalone" }
    }

    /// Bytes of all keyspaces together.
    pub fn used_memory(&self) -> u64 {
        self.keyspaces.load().values().map(|keyspace| keyspace.usage().bytes.max(0) as u64).sum()
    }

    /// Bytes that each copy here may take under `maxmemory`; none: no limit. The copies share the node's limit evenly,
    /// because only its own leader lets a shard's keys go: a shard whose share others had taken could neither write nor
    /// make room.
    pub fn memory_share(&self) -> Option<u64> {
        let limit = self.config.live().maxmemory;
        (limit > 0).then(|| limit / self.keyspaces.load().len().max(1) as u64)
    }

    /// Why this node keeps no keys on disk; `None`: it does.
    pub fn keeps_nothing(&self) -> Option<&'static str> {
        match (&self.cluster, self.config.startup.durability) {
            (None, _) => Some("a single node keeps no keys on disk"),
            (_, Durability::Memory) => Some("durability is memory, this node keeps no keys on disk"),
            _ => None,
        }
    }

    /// Whether the node serves this shard as its leader (always, in single-node mode).
    pub fn leads(&self, shard: GroupId) -> bool {
        self.cluster.as_ref().is_none_or(|cluster| cluster.load().serves(shard))
    }
}
