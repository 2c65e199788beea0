//! One node: what the process is made of, started in order and stopped in order.
//!
//! Threads: one per `io-threads`, each with a current-thread runtime that owns the connections given to it; the
//! calling thread accepts and keeps the house; in a cluster one more runs the Raft groups and the bus, so that a
//! slow command of a client cannot hold up a heartbeat.

pub mod cluster;
pub mod hosted;
pub mod housekeeping;
pub mod relay;
pub mod saving;
pub mod threads;
pub mod vouching;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::config::Config;
use crate::id::NodeId;
use crate::metrics::Metrics;
use crate::node::hosted::{Hosted, Observers};
use crate::node::relay::Carrier;
use crate::node::threads::{ClusterThread, IoThreads};
use crate::server::invalidation::Invalidation;
use crate::server::notifications::Notifications;
use crate::server::observed::Observed;
use crate::server::publisher::{Publisher, Traffic};
use crate::server::{SINGLE, Server, listener};
use crate::session::clients::Clients;
use crate::session::context::Context;
use crate::session::saves::Saves;
use crate::time::Clock;
use crate::tracking::rings::Rings;

/// Runs a node until a signal or SHUTDOWN. An error is a failure to start, in words for the operator.
pub fn run(config: Config) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(Node::start(Arc::new(config)))
}

struct Node {
    server: Arc<Server>,
    cluster: Option<ClusterThread>,
}

/// The signals that stop a node. Watched before it can be reached: who reaches it may stop it.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn watch() -> Result<Signals, String> {
        let watch = |kind| signal(kind).map_err(|error| format!("cannot watch for signals: {error}"));
        Ok(Signals { terminate: watch(SignalKind::terminate())?, interrupt: watch(SignalKind::interrupt())? })
    }
}

impl Node {
    async fn start(config: Arc<Config>) -> Result<(), String> {
        let signals = Signals::watch()?;
        let listeners = listen(&config).map_err(|error| format!("cannot listen: {error}"))?;
        let metrics = Arc::new(Metrics::default());
        let clustered = config.startup.cluster_enabled;
        let (publisher, traffic) = Publisher::new(config.clone(), metrics.clone(), clustered);
        let publisher = Arc::new(publisher);
        let rooms = Rooms {
            invalidation: Arc::new(Invalidation::new(config.clone())),
            notifications: Arc::new(Notifications::new(&config, publisher.clone())),
            rings: Arc::default(),
            metrics,
            publisher,
        };
        let hosted = Hosted::new(rooms.observers(&config), Clock::System, rand::random());
        let cluster = match traffic {
            Some(Traffic { outgoing, incoming, inlet }) => {
                let carrier = Carrier { outgoing, inlet, metrics: rooms.metrics.clone() };
                let cluster = ClusterThread::start(&config, &hosted, carrier).await?;
                rooms.notifications.follow(cluster.view.clone());
                tokio::spawn(relay::deliver(incoming, rooms.publisher.clone()));
                Some(cluster)
            }
            None => {
                hosted.open(SINGLE);
                None
            }
        };
        let server = Arc::new(server(config.clone(), rooms, &hosted, cluster.as_ref()));
        let threads = IoThreads::start(config.startup.threads(), &server)
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        for listener in listeners {
            tokio::spawn(listener::accept(listener, server.clone(), threads.senders()));
        }
        info!(port = config.startup.port, "ready to accept connections");
        tokio::spawn(housekeeping::keep(server.clone()));
        tokio::spawn(saving::save_when_asked(server.clone()));
        let node = Node { server, cluster };
        node.until_stopped(signals).await;
        if let Some(cluster) = &node.cluster {
            cluster.stop().await;
        }
        info!("bye");
        Ok(())
    }

    async fn until_stopped(&self, mut signals: Signals) {
        tokio::select! {
            _ = signals.terminate.recv() => info!("SIGTERM: stopping"),
            _ = signals.interrupt.recv() => info!("SIGINT: stopping"),
            () = self.server.shutdown.notified() => info!("SHUTDOWN: stopping"),
        }
    }
}

/// Binds every address; an optional one that the machine does not have is left out.
fn listen(config: &Config) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for bind in &config.startup.bind {
        let addr = SocketAddr::new(bind.address, config.startup.port);
        match listener::listen(addr, config.startup.tcp_backlog) {
            Ok(listener) => listeners.push(TcpListener::from_std(listener)?),
            Err(error) if bind.optional => warn!(%addr, %error, "not listening there"),
            Err(error) => return Err(io::Error::new(error.kind(), format!("{addr}: {error}"))),
        }
    }
    Ok(listeners)
}

/// What is there before the connections are.
struct Rooms {
    metrics: Arc<Metrics>,
    invalidation: Arc<Invalidation>,
    publisher: Arc<Publisher>,
    notifications: Arc<Notifications>,
    rings: Arc<Rings>,
}

impl Rooms {
    /// Who hears what each copy of a shard tells.
    fn observers(&self, config: &Arc<Config>) -> Observers {
        let (config, metrics, rings) = (config.clone(), self.metrics.clone(), self.rings.clone());
        let (invalidation, notifications) = (self.invalidation.clone(), self.notifications.clone());
        let observed = move |shard| {
            let (config, metrics, rings) = (config.clone(), metrics.clone(), rings.clone());
            Observed::new(config, metrics, invalidation.clone(), notifications.clone(), rings, shard)
        };
        Arc::new(move |shard| Arc::new(observed(shard)))
    }
}

/// What the connections share.
fn server(config: Arc<Config>, rooms: Rooms, hosted: &Hosted, cluster: Option<&ClusterThread>) -> Server {
    let clock = Clock::System;
    let context = Context {
        me: cluster.map_or_else(|| NodeId::random(&mut rand::rng()), |cluster| cluster.me),
        clock,
        started: clock.now(),
        run_id: NodeId::random(&mut rand::rng()),
        config,
        clients: Clients::default(),
        metrics: rooms.metrics,
        subscribers: rooms.publisher.subscribers().clone(),
        tracked: rooms.invalidation.table().clone(),
        saves: Saves::new(clock.now()),
        keyspaces: hosted.keyspaces.clone(),
        rings: rooms.rings,
        homes: cluster.map(|cluster| cluster.homes.clone()),
        cluster: cluster.map(|cluster| cluster.view.clone()),
    };
    Server {
        context: Arc::new(context),
        shards: hosted.shards.clone(),
        invalidation: rooms.invalidation,
        publisher: rooms.publisher,
        routes: cluster.map(|cluster| cluster.changed.clone()),
        shutdown: Notify::new(),
    }
}
