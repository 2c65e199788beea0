//! What a node is told about its cluster.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use crate::bus::transport::Transport;
use crate::config::setting::{BUS_PORT_OFFSET, Durability, Startup};
use crate::id::NodeId;
use crate::raft::state::Timing;
use crate::wal::disk::{Directory, Disk};
use crate::wal::recovery::{WalOptions, remove};
use crate::wal::trust::{Boot, Sync};
use crate::wal::writer::Sizes;

/// Bytes of log a shard keeps for copies that lag: a few seconds of writes; one that lags more gets a snapshot.
const LOG_BYTES: usize = 64 << 20;

/// What [`crate::node::cluster::Cluster`] is started with.
#[derive(Clone)]
pub struct ClusterOptions {
    /// This node ([`crate::node::cluster::identity::node_id`]).
    pub me: NodeId,
    /// Host that clients are told to reach it at.
    pub host: String,
    /// Port that clients reach it at.
    pub port: u16,
    /// Where the bus listens.
    pub listen: SocketAddr,
    /// The address other nodes are told, if it is another than that of `listen`; the port is `listen`'s.
    pub announce: Option<IpAddr>,
    /// Bus addresses of all nodes a new cluster is made of, the same on all of them.
    pub seeds: Vec<SeedAddress>,
    /// Shards of a new cluster.
    pub shards: usize,
    /// Copies of each.
    pub copies: usize,
    /// How fast groups fail over.
    pub timing: Timing,
    /// Bytes of log each shard keeps for copies that lag.
    pub log_bytes: usize,
    /// The network.
    pub transport: Arc<dyn Transport>,
    /// What outlasts the process, and where; `None`: nothing does, and a restarted node begins anew.
    pub durable: Option<Durable>,
    /// Seed of all this node's lots (incarnations, cluster ids): random, except in a simulation.
    pub seed: u64,
}

/// How a node keeps its logs.
#[derive(Clone)]
pub struct Durable {
    /// The write-ahead log.
    pub wal: WalOptions,
    /// Where snapshots are kept.
    pub snapshots: Arc<dyn Disk>,
}

impl Durable {
    /// What the configuration says: nothing with `durability memory`, and then a log that is there from before is
    /// removed, since the node goes on without it.
    pub fn open(startup: &Startup, draw: u64) -> io::Result<Option<Durable>> {
        let dir = PathBuf::from(&startup.dir);
        let disk = Arc::new(Directory::open(&dir.join("wal"))?);
        let sync = match startup.durability {
            Durability::Quorum => Sync::Background,
            Durability::QuorumFsync => Sync::Always,
            Durability::Memory => {
                tracing::warn!(
                    "durability memory: nothing is kept on disk, a node that stops has lost what it held"
                );
                remove(&*disk)?;
                return Ok(None);
            }
        };
        let snapshots = Arc::new(Directory::open(&dir.join("snapshots"))?);
        let wal = WalOptions { disk, sync, boot: Boot::present(), draw, sizes: Sizes::default() };
        Ok(Some(Durable { wal, snapshots }))
    }
}

/// A seed's host (name or address) and bus port.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // said above
pub struct SeedAddress {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for SeedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl SeedAddress {
    /// Its address at this moment, one of this node's own kind (`v4`) if there is one.
    pub async fn resolve(&self, v4: bool) -> io::Result<SocketAddr> {
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return Ok(SocketAddr::new(address, self.port));
        }
        let found: Vec<SocketAddr> =
            tokio::net::lookup_host((self.host.as_str(), self.port)).await?.collect();
        let own_kind = found.iter().find(|address| address.is_ipv4() == v4);
        own_kind.or(found.first()).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl ClusterOptions {
    /// What the configuration says. Seeds are given by client port: where `cluster-port` is set it is every node's
    /// bus port, otherwise each one's is its client port + 10000.
    pub async fn read(
        startup: &Startup,
        me: NodeId,
        transport: Arc<dyn Transport>,
        seed: u64,
    ) -> io::Result<ClusterOptions> {
        let bus_port = |port: u16| match startup.cluster_port {
            0 => port.saturating_add(BUS_PORT_OFFSET),
            port => port,
        };
        let host = startup.announce_host();
        let announced = SeedAddress { host: host.clone(), port: startup.bus_port() };
        let first_bind = startup.bind.first().map(|bind| bind.address);
        let listen = first_bind.unwrap_or(IpAddr::from([127, 0, 0, 1]));
        let election_min = startup.cluster_election_timeout;
        let timing = Timing {
            heartbeat: startup.cluster_heartbeat_interval,
            election_min,
            election_max: election_min * 2,
        };
        let address = |seed: &crate::config::setting::Address| SeedAddress {
            host: seed.host.clone(),
            port: bus_port(seed.port),
        };
        Ok(ClusterOptions {
            me,
            port: startup.port,
            listen: SocketAddr::new(listen, startup.bus_port()),
            announce: Some(announced.resolve(listen.is_ipv4()).await?.ip()),
            host,
            seeds: startup.cluster_seeds.iter().map(address).collect(),
            shards: startup.shards(),
            copies: startup.copies(),
            timing,
            log_bytes: LOG_BYTES,
            transport,
            durable: Durable::open(startup, seed)?,
            seed,
        })
    }
}
