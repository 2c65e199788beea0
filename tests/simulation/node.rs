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
use slotcast::node::hosted::{Hosted, Observers};
use slotcast::raft::machine::{Cut, InstallError, Local, Machine, Staged, Stager};
use slotcast::raft::state::Timing;
use slotcast::server::invalidation::Invalidation;
use slotcast::server::notifications::Notifications;
use slotcast::server::observed::Observed;
use slotcast::server::publisher::Publisher;
use slotcast::session::clients::Clients;
use slotcast::session::context::Context;
use slotcast::session::saves::Saves;
use slotcast::shard::Shard;
use slotcast::shard::upkeep::Upkeep;
use slotcast::tracking::rings::Rings;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::feeding::{Followed, Stream};
use crate::invariants::replicas::Replicas;
use crate::invariants::staleness::Staleness;
use crate::machines::Machines;
use crate::messages::{Message, Request};
use crate::network::{Network, address};
use crate::server::{Fault, Server, serve};

/// Nodes, and shards, and copies of each.
pub const NODES: usize = 3;
/// Small, so that a node that was away for a second gets a snapshot.
const LOG_BYTES: usize = 16 << 10;
const UPKEEP: Duration = Duration::from_millis(100);
const CLIENT_PORT: u16 = 7001;
/// A window so short that a cache which was away for long has missed something.
const CONFIG: &str = "cluster-enabled yes\ncluster-seeds a:1 b:2 c:3\ninvalidation-window-seconds 2";

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
    pub staleness: &'a Staleness,
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
            let rooms = Rooms::new();
            let hosted = Hosted::new(rooms.observers(), clock, seed);
            let options = options(setup, seed);
            let cluster = Arc::new(Cluster::start(options, factory(setup, &hosted)).await?);
            let server = Arc::new(Server {
                whole: Arc::new(rooms.server(setup, &hosted, &cluster)),
                hosted,
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

/// What is there before the cluster is: as in `slotcast::node`.
struct Rooms {
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    invalidation: Arc<Invalidation>,
    publisher: Arc<Publisher>,
    rings: Arc<Rings>,
}

impl Rooms {
    fn new() -> Rooms {
        let config = Arc::new(Config::from_text("simulation", CONFIG).unwrap());
        let (metrics, rings) = (Arc::<Metrics>::default(), Arc::default());
        let invalidation = Arc::new(Invalidation::new(config.clone()));
        let (publisher, _) = Publisher::new(config.clone(), metrics.clone(), false);
        Rooms { config, metrics, invalidation, publisher: Arc::new(publisher), rings }
    }

    fn observers(&self) -> Observers {
        let notifications = Arc::new(Notifications::new(&self.config, self.publisher.clone()));
        let (config, metrics) = (self.config.clone(), self.metrics.clone());
        let (told, rings) = (self.invalidation.clone(), self.rings.clone());
        let observed = move |shard| {
            let (config, metrics) = (config.clone(), metrics.clone());
            Observed::new(config, metrics, told.clone(), notifications.clone(), rings.clone(), shard)
        };
        Arc::new(move |shard| Arc::new(observed(shard)))
    }

    fn server(self, setup: &Setup<'_>, hosted: &Hosted, cluster: &Cluster) -> slotcast::server::Server {
        let me = setup.machines.owner(setup.node);
        let context = Context {
            me,
            clock: setup.machines.clock(setup.node),
            started: 0,
            run_id: me,
            config: self.config,
            clients: Clients::default(),
            metrics: self.metrics,
            subscribers: self.publisher.subscribers().clone(),
            tracked: self.invalidation.table().clone(),
            saves: Saves::new(0),
            keyspaces: hosted.keyspaces.clone(),
            rings: self.rings,
            homes: None,
            cluster: Some(cluster.view()),
        };
        slotcast::server::Server {
            context: Arc::new(context),
            shards: hosted.shards.clone(),
            invalidation: self.invalidation,
            publisher: self.publisher,
            routes: Some(cluster.changed()),
            shutdown: Notify::new(),
        }
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

    /// A new connection that is to follow the invalidation logs.
    pub fn follow(&self) -> Stream {
        let (requests, incoming) = unbounded_channel();
        let (outgoing, frames) = unbounded_channel();
        let Server { whole, machine, fault, .. } = &*self.server;
        let (server, machine) = (whole.clone(), machine.clone());
        let followed = Followed { server, machine, fault: *fault, requests: incoming, frames: outgoing };
        self.handle.spawn(followed.serve());
        Stream { requests, frames }
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
    let begun = Instant::now();
    loop {
        sleep(UPKEEP).await;
        let shards = server.hosted.shards.load_full();
        for (group, shard) in shards.iter().filter(|(group, _)| server.view.load().serves(**group)) {
            walks.entry(*group).or_default().step(shard, shard.proposer().as_ref());
        }
        let live = server.whole.context.config.live();
        let age = live.invalidation_window_seconds.as_millis() as u64;
        let limit = live.invalidation_window_bytes as usize;
        server.whole.context.rings.retire(begun.elapsed().as_millis() as u64, age, limit);
    }
}

/// Makes the hosted shards' machines, each with a witness.
fn factory(setup: &Setup<'_>, hosted: &Hosted) -> Factory {
    let (hosted, replicas, node) = (hosted.clone(), setup.replicas.clone(), setup.node);
    let staleness = setup.staleness.clone();
    let inner = hosted.factory();
    Arc::new(move |group| {
        let machine = inner(group);
        let shard = hosted.made(group).unwrap();
        replicas.began(node, group);
        let (replicas, staleness) = (replicas.clone(), staleness.clone());
        Box::new(Witnessed { machine, shard, group, node, replicas, staleness })
    })
}

/// Tells the checks what is applied.
struct Witnessed {
    machine: Box<dyn Machine>,
    shard: Arc<Shard>,
    group: GroupId,
    node: usize,
    replicas: Replicas,
    staleness: Staleness,
}

impl Machine for Witnessed {
    fn apply(&mut self, index: u64, term: u64, bytes: &Bytes, local: Option<Local>) {
        let acknowledges = local.is_some();
        self.machine.apply(index, term, bytes, local);
        self.staleness.applied(self.group, index, &self.shard.keyspace, acknowledges);
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
