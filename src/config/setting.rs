//! The typed settings themselves, and the small types some of them need. No defaults here: the table has them.

use crate::config::notify::NotifyEvents;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

/// What is fixed when a node starts. One field a directive, of the same name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the table documents each field
pub struct Startup {
    pub bind: Vec<Bind>,
    /// 0: the system picks one.
    pub port: u16,
    pub tcp_backlog: u32,
    pub protected_mode: bool,
    /// Threads that own connections; 0: one a core. Ask [`Startup::threads`].
    pub io_threads: usize,
    pub dir: String,
    pub durability: Durability,
    pub cluster_enabled: bool,
    pub cluster_seeds: Vec<Address>,
    /// 0: as many as seeds. Ask [`Startup::shards`].
    pub cluster_shards: usize,
    /// Copies of each shard, the leader's included. Ask [`Startup::copies`].
    pub cluster_copies: usize,
    /// 0: `port` + 10000. Ask [`Startup::bus_port`].
    pub cluster_port: u16,
    /// Empty: the first bound address. Ask [`Startup::announce_host`].
    pub cluster_announce_ip: String,
    pub cluster_heartbeat_interval: Duration,
    /// Least silence of a leader before an election; each node draws between this and twice this.
    pub cluster_election_timeout: Duration,
}

/// What CONFIG SET may change while the node runs. One field a directive, of the same name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the table documents each field
pub struct Live {
    /// Empty: no password asked.
    pub requirepass: String,
    pub maxclients: usize,
    /// Idle clients are closed after this; zero: never.
    pub timeout: Duration,
    /// TCP keep-alive interval; zero: off.
    pub tcp_keepalive: Duration,
    pub loglevel: LogLevel,
    /// Bytes; 0: no limit.
    pub maxmemory: u64,
    pub maxmemory_policy: EvictionPolicy,
    pub maxmemory_samples: usize,
    /// Bytes.
    pub proto_max_bulk_len: u64,
    /// Bytes.
    pub client_query_buffer_limit: u64,
    pub client_output_buffer_limit: OutputLimits,
    /// Keys.
    pub tracking_table_max_keys: usize,
    /// Bytes a shard.
    pub invalidation_window_bytes: u64,
    pub invalidation_window_seconds: Duration,
    pub notify_keyspace_events: NotifyEvents,
    pub notify_keyspace_scope: NotifyScope,
    /// Rounds of upkeep a second. Ask [`Live::upkeep_interval`].
    pub hz: u32,
    pub replica_max_staleness: Duration,
    pub cluster_park_timeout: Duration,
    pub cluster_node_timeout: Duration,
    pub cluster_require_full_coverage: bool,
    /// How long a node that is told to stop waits for copies that lag.
    pub shutdown_timeout: Duration,
}

/// How far the bus listens above `port` unless `cluster-port` says otherwise (the cluster specification's offset).
pub const BUS_PORT_OFFSET: u16 = 10_000;

impl Startup {
    /// Threads that own connections, at least one.
    pub fn threads(&self) -> usize {
        match self.io_threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            wanted => wanted,
        }
    }

    /// Shards a new cluster is made with, at least one.
    pub fn shards(&self) -> usize {
        if self.cluster_shards == 0 { self.cluster_seeds.len().max(1) } else { self.cluster_shards }
    }

    /// Copies a shard has in a cluster of the seeds: never more than there are nodes.
    pub fn copies(&self) -> usize {
        self.cluster_copies.min(self.cluster_seeds.len().max(1))
    }

    /// The port other nodes connect to.
    pub fn bus_port(&self) -> u16 {
        if self.cluster_port == 0 { self.port.saturating_add(BUS_PORT_OFFSET) } else { self.cluster_port }
    }

    /// The host clients and nodes are told to connect to.
    pub fn announce_host(&self) -> String {
        if !self.cluster_announce_ip.is_empty() {
            return self.cluster_announce_ip.clone();
        }
        let own = self.bind.iter().map(|bind| bind.address).find(|address| !address.is_unspecified());
        own.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)).to_string()
    }
}

impl Live {
    /// Time between two rounds of upkeep (expiry, eviction, idle clients).
    pub fn upkeep_interval(&self) -> Duration {
        Duration::from_secs(1) / self.hz.max(1)
    }
}

/// An address to listen on. Written `127.0.0.1`, `*` (all IPv4), `::*` (all IPv6); `-` in front: skip it if the
/// machine does not have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // said above
pub struct Bind {
    pub address: IpAddr,
    pub optional: bool,
}

impl FromStr for Bind {
    type Err = ();
    fn from_str(text: &str) -> Result<Bind, ()> {
        let (optional, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let address = match text {
            "*" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            "::*" => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => text.parse().map_err(|_| ())?,
        };
        Ok(Bind { address, optional })
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.optional { "-" } else { "" })?;
        match self.address {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => f.write_str("*"),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => f.write_str("::*"),
            address => address.fmt(f),
        }
    }
}

/// `host:port` of a node's client port; the host is a name or an address (`[::1]:7001` for IPv6).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // said above
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl FromStr for Address {
    type Err = ();
    fn from_str(text: &str) -> Result<Address, ()> {
        let (host, port) = text.rsplit_once(':').ok_or(())?;
        let port = port.parse().map_err(|_| ())?;
        let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host = inner.unwrap_or(host);
        if host.is_empty() || port == 0 || (inner.is_none() && host.contains(':')) {
            return Err(());
        }
        Ok(Address { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// When an outbox is too full: at once above `hard`, or above `soft` for `soft_time` on end. Bytes; 0: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // said above
pub struct OutputLimit {
    pub hard: u64,
    pub soft: u64,
    pub soft_time: Duration,
}

/// The limits by class of client, as Redis classes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // said above
pub struct OutputLimits {
    pub normal: OutputLimit,
    pub replica: OutputLimit,
    pub pubsub: OutputLimit,
}

/// A setting that takes one of a few words.
pub trait Choice: Copy + PartialEq + 'static {
    /// Every word and what it means, in the order error messages list them.
    const ALL: &'static [(&'static str, Self)];

    /// The word for this value.
    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }
}

/// What goes when memory is short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EvictionPolicy {
    /// Nothing: writes that need memory are refused.
    #[default]
    NoEviction,
    /// The key used longest ago, of a sample.
    AllKeysLru,
    /// The key that expires soonest, of a sample of those that expire.
    VolatileTtl,
}

impl Choice for EvictionPolicy {
    const ALL: &'static [(&'static str, Self)] = &[
        ("noeviction", Self::NoEviction),
        ("allkeys-lru", Self::AllKeysLru),
        ("volatile-ttl", Self::VolatileTtl),
    ];
}

/// What an acknowledged write has outlasted by the time it is acknowledged (docs/durability.md).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// It is on a majority of the copies, written to their logs; the disks follow within a second.
    #[default]
    Quorum,
    /// It is on the disks of a majority of the copies.
    QuorumFsync,
    /// It is in the memory of a majority of the copies; no files.
    Memory,
}

impl Choice for Durability {
    const ALL: &'static [(&'static str, Self)] =
        &[("quorum", Self::Quorum), ("quorum-fsync", Self::QuorumFsync), ("memory", Self::Memory)];
}

/// Whose events a node announces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NotifyScope {
    /// Those of the shards it leads, as a Redis does: who wants all asks every node.
    #[default]
    Node,
    /// Those of all shards: who wants all asks any node.
    Cluster,
}

impl Choice for NotifyScope {
    const ALL: &'static [(&'static str, Self)] = &[("node", Self::Node), ("cluster", Self::Cluster)];
}

/// How much the log tells, in Redis's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // Redis's words
pub enum LogLevel {
    Debug,
    Verbose,
    #[default]
    Notice,
    Warning,
    Nothing,
}

impl Choice for LogLevel {
    const ALL: &'static [(&'static str, Self)] = &[
        ("debug", Self::Debug),
        ("verbose", Self::Verbose),
        ("notice", Self::Notice),
        ("warning", Self::Warning),
        ("nothing", Self::Nothing),
    ];
}
