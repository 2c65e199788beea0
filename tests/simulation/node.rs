//! One simulated node: a runtime and a clock of its own, on it the node's part of the cluster, the shards it holds,
//! and the connections of its clients. Dropping it drops every task where it stands: a crash.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use slotcast::config::Config;
use slotcast::id::GroupId;
use slotcast::metrics::Metrics;
use slotcast::node::cluster::Cluster;
use slotcast::node::cluster::options::{ClusterOptions, SeedAddress};
use slotcast::node::cluster::shards::Factory;
use slotcast::node::hosted::Hosted;
use slotcast::raft::machine::{Cut, InstallError, Local, Machine, Staged, Stager};
use slotcast::raft::state::Timing;
use slotcast::server::invalidation::Invalidation;
use slotcast::server::notifications::Notifications;
use slotcast::server::observed::Observed;
use slotcast::server::publisher::Publisher;
use slotcast::session::clients::Clients;
use slotcast::shard::Shard;
use slotcast::shard::upkeep::Upkeep;
use slotcast::tracking::rings::Rings;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::invariants::replicas::Replicas;
use crate::machines::Machines;
use crate::network::{Network, address};
use crate::server::{Fault, Message, Request, Server, serve};

/// Nodes, and shards, and copies of each.
pub const NODES: usize = 3;
/// Small, so that a node that was away for a second gets a snapshot.
const LOG_BYTES: usize = 16 << 10;
const UPKEEP: Duration = Duration::from_millis(100);
const CLIENT_PORT: u16 = 7001;

/// The node that clients are sent to with this port.
pub fn node_of(port: u16) -> usize {
    usize::from(port.wrapping_sub(CLIENT_PORT))
}

/// See the module's documentation.
pub struct Node {
    runtime: Runtime,
    begun: u64,
    start: Instant,
    reached: u64,
    pub cluster: Arc<Cluster>,
    pub server: Arc<Server>,
}

/// What starts a node.
pub struct Setup<'a> {
    pub node: usize,
    /// Lives begun before it, of all nodes.
    pub life: u64,
    pub seed: u64,
    pub now: u64,
    pub network: &'a Network,
    pub replicas: &'a Replicas,
    pub machines: &'a Machines,
    pub fault: Option<Fault>,
}

impl Node {
    /// Starts a node, new or again. An error ends its process, as it would a real one.
    pub fn start(setup: &Setup<'_>) -> io::Result<Node> {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let seed = setup.seed.wrapping_mul(1_000).wrapping_add(setup.life);
        let started = runtime.block_on(async {
            let start = Instant::now();
            let clock = setup.machines.clock(setup.node);
            let config = Arc::new(Config::from_text("simulation", "").unwrap());
            let invalidation = Arc::new(Invalidation::new(config.clone()));
            let (told, rings, metrics) =
                (invalidation.clone(), Arc::<Rings>::default(), Arc::<Metrics>::default());
            let (publisher, _) = Publisher::new(config.clone(), metrics.clone(), false);
            let notifications = Arc::new(Notifications::new(&config, Arc::new(publisher)));
            let observed = move |shard| {
                let (config, metrics) = (config.clone(), metrics.clone());
                Observed::new(config, metrics, told.clone(), notifications.clone(), rings.clone(), shard)
            };
            let hosted = Hosted::new(Arc::new(move |shard| Arc::new(observed(shard))), clock, seed);
            let options = options(setup, seed);
            let cluster = Arc::new(Cluster::start(options, factory(setup, &hosted)).await?);
            let server = Arc::new(Server {
                hosted,
                invalidation,
                clients: Clients::default(),
                view: cluster.view(),
                changed: cluster.changed(),
                rng: Mutex::new(SmallRng::seed_from_u64(seed)),
                fault: setup.fault,
                machine: setup.machines.disk(setup.node).clone(),
            });
            let (follower, opened) = (server.clone(), cluster.opened());
            tokio::spawn(async move { follower.hosted.follow(opened).await });
            tokio::spawn(upkeep(server.clone()));
            Ok((cluster, server, start))
        });
        started.map(|(cluster, server, start)| Node {
            runtime,
            begun: setup.now,
            start,
            reached: setup.now,
            cluster,
            server,
        })
    }

    /// Stops in order; when that is done its process ends.
    pub fn stop(&self) -> JoinHandle<()> {
        let cluster = self.cluster.clone();
        self.runtime.spawn(async move { cluster.stop().await })
    }

    /// CLUSTER FAILOVER of a shard, sent to this node.
    pub fn become_home(&self, shard: GroupId) {
        let cluster = self.cluster.clone();
        self.runtime.spawn(async move { cluster.become_home(shard).await });
    }

    /// BGSAVE.
    pub fn save(&self) {
        for group in self.cluster.groups() {
            self.runtime.spawn(async move { group.save_snapshot().await });
        }
    }

    /// Lets the node live until `now` (ms). If it was not let for a while (it was paused) the time is over at once.
    pub fn advance(&mut self, now: u64) {
        let behind = now.saturating_sub(self.reached + 1);
        let until = self.start + Duration::from_millis(now - self.begun);
        self.runtime.block_on(async {
            if behind > 0 {
                tokio::time::advance(Duration::from_millis(behind)).await;
            }
            sleep_until(until).await;
        });
        self.reached = now;
    }

    /// Where clients come in.
    pub fn door(&self) -> Door {
        Door { handle: self.runtime.handle().clone(), server: self.server.clone() }
    }
}

/// Where clients come in. It may be that nobody lives behind it any more.
#[derive(Clone)]
pub struct Door {
    handle: Handle,
    server: Arc<Server>,
}

impl Door {
    /// A new connection.
    pub fn connect(&self) -> (UnboundedSender<Request>, UnboundedReceiver<Message>) {
        let (requests, incoming) = unbounded_channel();
        let (outgoing, messages) = unbounded_channel();
        self.handle.spawn(serve(self.server.clone(), incoming, outgoing));
        (requests, messages)
    }
}

fn options(setup: &Setup<'_>, seed: u64) -> ClusterOptions {
    let seed_address =
        |node| SeedAddress { host: address(node).ip().to_string(), port: address(node).port() };
    let durable = setup.machines.durable(setup.node, seed);
    ClusterOptions {
        me: setup.machines.owner(setup.node),
        host: address(setup.node).ip().to_string(),
        port: CLIENT_PORT + setup.node as u16,
        listen: address(setup.node),
        announce: None,
        seeds: (0..NODES).map(seed_address).collect(),
        shards: NODES,
        copies: NODES,
        timing: Timing::default(),
        log_bytes: LOG_BYTES,
        transport: setup.network.host(setup.node),
        durable,
        seed,
    }
}

async fn upkeep(server: Arc<Server>) {
    let mut walks: BTreeMap<GroupId, Upkeep> = BTreeMap::new();
    loop {
        sleep(UPKEEP).await;
        let shards = server.hosted.shards.load_full();
        for (group, shard) in shards.iter().filter(|(group, _)| server.view.load().serves(**group)) {
            walks.entry(*group).or_default().step(shard, shard.proposer().as_ref());
        }
    }
}

/// Makes the hosted shards' machines, each with a witness.
fn factory(setup: &Setup<'_>, hosted: &Hosted) -> Factory {
    let (hosted, replicas, node) = (hosted.clone(), setup.replicas.clone(), setup.node);
    let inner = hosted.factory();
    Arc::new(move |group| {
        let machine = inner(group);
        let shard = hosted.made(group).unwrap();
        replicas.began(node, group);
        Box::new(Witnessed { machine, shard, group, node, replicas: replicas.clone() })
    })
}

/// Tells the replicas' check what is applied.
struct Witnessed {
    machine: Box<dyn Machine>,
    shard: Arc<Shard>,
    group: GroupId,
    node: usize,
    replicas: Replicas,
}

impl Machine for Witnessed {
    fn apply(&mut self, index: u64, term: u64, bytes: &Bytes, local: Option<Local>) {
        self.machine.apply(index, term, bytes, local);
        let mut hasher = DefaultHasher::new();
        (term, &**bytes).hash(&mut hasher);
        self.replicas.applied(self.node, self.group, index, hasher.finish(), &self.shard.keyspace);
    }

    fn snapshot(&mut self) -> Option<Cut> {
        self.machine.snapshot()
    }

    fn stager(&self) -> Stager {
        let (stager, replicas, node, group) =
            (self.machine.stager(), self.replicas.clone(), self.node, self.group);
        Arc::new(move || {
            Box::new(WitnessedStage { staged: stager(), replicas: replicas.clone(), node, group })
        })
    }
}

/// Tells it that a snapshot is installed.
struct WitnessedStage {
    staged: Box<dyn Staged>,
    replicas: Replicas,
    node: usize,
    group: GroupId,
}

impl Staged for WitnessedStage {
    fn take(&mut self, chunk: &Bytes) -> Result<(), InstallError> {
        self.staged.take(chunk)
    }

    fn install(self: Box<Self>) -> Result<(), InstallError> {
        self.replicas.installed(self.node, self.group);
        self.staged.install()
    }
}
