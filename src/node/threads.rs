//! The threads: those that own connections, and the one that runs the node's part of the cluster.

use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rand::RngCore;
use tokio::runtime::Builder;
use tokio::sync::mpsc::{self, Receiver, Sender, channel};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tracing::debug;

use crate::bus::transport::Tcp;
use crate::config::Config;
use crate::id::{GroupId, NodeId};
use crate::node::cluster::Cluster;
use crate::node::cluster::identity::{lock, node_id};
use crate::node::cluster::options::ClusterOptions;
use crate::node::hosted::Hosted;
use crate::node::relay::Carrier;
use crate::server::Server;
use crate::server::listener::{HANDOVER, serve};
use crate::topology::view::View;

/// After handing its leaderships over a stopping node goes on redirecting for so long, so that clients leave it by
/// MOVED, with an answer to everything they have asked. Shorter than a leadership takes to come home.
const LINGER: Duration = Duration::from_millis(300);

/// Shards that wait for their home to be changed (CLUSTER FAILOVER); a client that asks for more is refused.
const HOMES: usize = 64;

/// Running threads, each with a queue of connections to take over. They end with the process.
pub struct IoThreads {
    senders: Vec<Sender<TcpStream>>,
}

impl IoThreads {
    /// Starts `count` threads.
    pub fn start(count: usize, server: &Arc<Server>) -> io::Result<Self> {
        let mut senders = Vec::new();
        for n in 0..count {
            let (sender, accepted) = channel(HANDOVER);
            let server = server.clone();
            let runtime = Builder::new_current_thread().enable_all().build()?;
            std::thread::Builder::new().name(format!("io-{n}")).spawn(move || {
                runtime.block_on(own(accepted, server));
            })?;
            senders.push(sender);
        }
        Ok(Self { senders })
    }

    /// Where to hand connections over.
    pub fn senders(&self) -> Vec<Sender<TcpStream>> {
        self.senders.clone()
    }
}

async fn own(mut accepted: Receiver<TcpStream>, server: Arc<Server>) {
    let rings = server.context.rings.clone();
    tokio::spawn(async move { rings.wake_here().await });
    while let Some(stream) = accepted.recv().await {
        if let Err(error) = serve(stream, &server) {
            debug!(%error, "a connection was gone before it was served");
        }
    }
}

/// The thread that runs Raft groups and the bus.
pub struct ClusterThread {
    /// This node.
    pub me: NodeId,
    /// What to route by.
    pub view: Arc<ArcSwap<View>>,
    /// Changes with it.
    pub changed: watch::Receiver<u64>,
    /// Takes the shards that this node is to become the home of.
    pub homes: mpsc::Sender<GroupId>,
    stop: mpsc::Sender<oneshot::Sender<()>>,
}

impl ClusterThread {
    /// Starts the thread and, on it, the node's part of the cluster and its messages' carrier.
    pub async fn start(config: &Arc<Config>, hosted: &Hosted, carrier: Carrier) -> Result<Self, String> {
        let (stop, stopping) = mpsc::channel(1);
        let (homes, wishes) = mpsc::channel(HOMES);
        let (started, running) = oneshot::channel();
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
        let (config, hosted) = (config.clone(), hosted.clone());
        let wanted = Wanted { started, wishes, stopping };
        let body = move || runtime.block_on(live(config, hosted, carrier, wanted));
        let thread = std::thread::Builder::new().name("cluster".into()).spawn(body);
        thread.map_err(|error| format!("cannot start a thread: {error}"))?;
        let (me, view, changed) = running.await.map_err(|_| "the cluster's thread has ended")??;
        Ok(Self { me, view, changed, homes, stop })
    }

    /// Hands leaderships over and leaves in order.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.stop.send(done).await.is_ok() {
            let _ = stopped.await;
        }
    }
}

type Running = (NodeId, Arc<ArcSwap<View>>, watch::Receiver<u64>);

/// What the rest of the node wants of the thread: to hear that it runs, homes for shards, an end.
struct Wanted {
    started: oneshot::Sender<Result<Running, String>>,
    wishes: mpsc::Receiver<GroupId>,
    stopping: mpsc::Receiver<oneshot::Sender<()>>,
}

async fn live(config: Arc<Config>, hosted: Hosted, carrier: Carrier, wanted: Wanted) {
    let Wanted { started, mut wishes, mut stopping } = wanted;
    // Held until the thread ends.
    let held = lock(Path::new(&config.startup.dir));
    let entered = match &held {
        Ok(_) => enter(&config, &hosted).await,
        Err(error) => Err(format!("{}: {error}", config.startup.dir)),
    };
    let cluster = match entered {
        Ok((me, cluster)) => {
            let _ = started.send(Ok((me, cluster.view(), cluster.changed())));
            cluster
        }
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    carrier.start(&cluster);
    let go_home = async {
        while let Some(shard) = wishes.recv().await {
            cluster.become_home(shard).await;
        }
    };
    let stop = tokio::select! {
        _ = futures::future::join(hosted.follow(cluster.opened()), go_home) => stopping.recv().await,
        stop = stopping.recv() => stop,
    };
    let until = Instant::now() + config.live().shutdown_timeout;
    cluster.wait_until_spared(until).await;
    cluster.hand_over().await;
    tokio::time::sleep(LINGER).await;
    // The new leaders have found out by now whether the others follow them.
    cluster.wait_until_spared(until).await;
    cluster.stop().await;
    if let Some(done) = stop {
        let _ = done.send(());
    }
}

async fn enter(config: &Config, hosted: &Hosted) -> Result<(NodeId, Cluster), String> {
    let mut rng = rand::rng();
    let startup = &config.startup;
    let me =
        node_id(Path::new(&startup.dir), &mut rng).map_err(|error| format!("{}: {error}", startup.dir))?;
    let options = ClusterOptions::read(startup, me, Arc::new(Tcp), rng.next_u64())
        .await
        .map_err(|error| format!("cannot resolve this node's address, or use {}: {error}", startup.dir))?;
    let listen = options.listen;
    let cluster = Cluster::start(options, hosted.factory()).await.map_err(|error| {
        format!("cannot listen for other nodes on {listen}, or read {}: {error}", startup.dir)
    })?;
    Ok((me, cluster))
}
