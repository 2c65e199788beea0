//! A node's life in its cluster: enters it, holds its copies of shards, tells the rest of the node what to route by.
//!
//! All of it runs on one thread, the one that calls [`Cluster::start`]. What the shards' groups replicate into is
//! the caller's: a factory makes a machine for each copy this node comes to hold. Deliberately unknown here: keys,
//! requests, clients' connections.

mod founders;
pub mod identity;
mod leaving;
mod observer;
pub mod options;
mod outlook;
mod reunion;
pub mod shards;
mod storage;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::bus::Bus;
use crate::id::GroupId;
use crate::meta::entry::{Founding, Resolve, enter};
use crate::meta::message::Phase;
use crate::meta::proposer::propose;
use crate::meta::service;
use crate::meta::standing::{LOG_BYTES, Site, Standing};
use crate::node::cluster::outlook::Outlook;
use crate::node::cluster::reunion::reunite;
use crate::node::cluster::shards::{Factory, OpenShards, Shards};
use crate::node::cluster::storage::Former;
use crate::raft::group::Group;
use crate::raft::groups::Groups;
use crate::topology::Topology;
use crate::topology::change::Change;
use crate::topology::view::View;

use crate::node::cluster::options::{ClusterOptions, SeedAddress};

/// Handing over all leaderships takes a few milliseconds; a voter that does not take one by then never will.
const HAND_OVER: Duration = Duration::from_secs(1);

/// A node's part in its cluster. Dropping it ends its tasks, as a crash would; [`Cluster::stop`] does it in order.
pub struct Cluster {
    standing: Arc<Standing>,
    groups: Groups,
    outlook: Arc<Outlook>,
    opened: watch::Receiver<OpenShards>,
    tasks: Mutex<JoinSet<()>>,
}

impl Cluster {
    /// Starts the bus and enters the cluster, which may take for ever (the log says what it waits for); the view is
    /// empty until then.
    pub async fn start(options: ClusterOptions, factory: Factory) -> io::Result<Cluster> {
        let bus = Bus::start(options.me, options.listen, options.transport.clone()).await?;
        let announced = match options.announce {
            Some(address) => SocketAddr::new(address, bus.local_addr().port()),
            None => bus.local_addr(),
        };
        let site = Site {
            me: options.me,
            host: options.host.clone(),
            port: options.port,
            bus: announced,
            timing: options.timing,
            log_bytes: options.log_bytes.min(LOG_BYTES),
            snapshots: options.durable.as_ref().map(|durable| durable.snapshots.clone()),
        };
        let (groups, former) = storage::open_groups(&site, &bus, options.durable.as_ref())?;
        let (publisher, topology) = watch::channel(Arc::default());
        let rng = StdRng::seed_from_u64(options.seed);
        let (over, doubted) = (matches!(former, Former::Remains), matches!(former, Former::Doubted(_)));
        let memory = match former {
            Former::Life(memory) | Former::Doubted(memory) => Some(memory),
            Former::Nothing | Former::Remains => None,
        };
        let standing = Arc::new(Standing::new(site, bus.clone(), groups.clone(), publisher, rng, memory));
        if over {
            standing.forget().await;
        }
        service::serve(&standing);
        let outlook = Arc::new(Outlook::new(bus, topology));
        let (open, opened) = watch::channel(OpenShards::default());
        let shards = Shards {
            standing: standing.clone(),
            groups: groups.clone(),
            outlook: outlook.clone(),
            factory,
            log_bytes: options.log_bytes,
            opened: open,
            open: BTreeMap::new(),
            peers: BTreeSet::new(),
        };
        let mut tasks = JoinSet::new();
        let follower = outlook.clone();
        tasks.spawn(async move { follower.follow().await });
        if doubted {
            tasks.spawn(reunite(standing.clone(), groups.clone()));
        }
        if let Some(wal) = groups.wal() {
            tasks.spawn(upkeep::watch_disk(wal.condition(), groups.clone(), standing.clone()));
        }
        tasks.spawn(live(standing.clone(), founding(&options, announced), shards));
        Ok(Cluster { standing, groups, outlook, opened, tasks: Mutex::new(tasks) })
    }

    /// What to route by. Load it anew for each request.
    pub fn view(&self) -> Arc<ArcSwap<View>> {
        self.outlook.view()
    }

    /// A counter that changes after each new view.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.outlook.changes()
    }

    /// This node's members of the shards' groups: to propose to, and to check leases of.
    pub fn opened(&self) -> watch::Receiver<OpenShards> {
        self.opened.clone()
    }

    /// This node's end of the bus.
    pub fn bus(&self) -> &Bus {
        &self.standing.bus
    }

    /// The metadata group's state.
    pub fn topology(&self) -> watch::Receiver<Arc<Topology>> {
        self.standing.topology()
    }

    /// All Raft members on this node, the metadata group's among them.
    pub fn groups(&self) -> Vec<Group> {
        self.groups.all()
    }

    /// How far this node has come.
    pub fn phase(&self) -> Phase {
        self.standing.hello().phase
    }

    /// What it waits for before it belongs to a cluster, in words for the operator; `None`: nothing any more.
    pub fn waits(&self) -> watch::Receiver<Option<String>> {
        self.standing.waits()
    }

    /// Where other nodes reach this one.
    pub fn bus_addr(&self) -> SocketAddr {
        self.standing.site.bus
    }

    /// Makes this node the home of a shard; its leadership follows when this node is fit for it.
    pub async fn become_home(&self, shard: GroupId) {
        match propose(&self.standing, &Change::Home { shard, id: self.standing.site.me }).await {
            Ok(()) => tracing::info!("{shard}: this node is its home from now on, as CLUSTER FAILOVER asked"),
            Err(why) => tracing::warn!("{shard}: this node does not become its home: {why}"),
        }
    }

    /// Hands all leaderships to other nodes, in a second at most. Requests are still served and redirected; the
    /// node can then be stopped without a failover.
    pub async fn hand_over(&self) {
        leaving::hand_over(&self.groups.all(), &self.standing, HAND_OVER).await;
    }

    /// Waits, until a moment at most, until the other nodes' copies have all that is needed to go on without this node.
    pub async fn wait_until_spared(&self, until: Instant) {
        leaving::wait_until_spared(&self.groups.all(), &self.standing, until).await;
    }

    /// Leaves in order: hands leaderships over, stops all members, closes the bus.
    pub async fn stop(&self) {
        self.hand_over().await;
        self.tasks.lock().abort_all();
        let members = self.groups.all();
        futures::future::join_all(members.iter().map(Group::shutdown)).await;
        self.standing.bus.shutdown();
        if let Some(Err(error)) = self.groups.wal().map(|wal| wal.stop()) {
            tracing::error!("not all this node has written is on the disk: {error}");
        }
    }
}

/// Life after life: into the cluster, then with it until it goes on without this one.
async fn live(standing: Arc<Standing>, founding: Founding, mut shards: Shards) {
    loop {
        let cluster = enter(&standing, &founding).await;
        tracing::info!("this node ({}) belongs to cluster {cluster}", standing.site.me.short());
        let life = standing.life().borrow().clone();
        let why = shards.follow(&life).await;
        tracing::error!("this node begins anew, empty: {why}");
        standing.give_up(life.incarnation).await;
    }
}

fn founding(options: &ClusterOptions, announced: SocketAddr) -> Founding {
    let seeds = options.seeds.clone();
    let names = seeds.iter().map(SeedAddress::to_string).collect();
    let resolve: Resolve = Arc::new(move |at| {
        let seed = seeds.get(at).cloned();
        Box::pin(async move {
            let seed = seed.ok_or(io::ErrorKind::NotFound)?;
            seed.resolve(announced.is_ipv4()).await
        })
    });
    Founding { seeds: names, resolve, shards: options.shards, copies: options.copies }
}
