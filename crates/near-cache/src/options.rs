//! What a near cache can be told when it is made.

use std::time::Duration;

use bytes::Bytes;

use crate::l1::Limits;

/// Where the cluster is, how much to keep, how long to trust it. All but the seeds have defaults.
///
/// ```
/// use std::time::Duration;
/// use slotcast_near_cache::options::Options;
///
/// let options = Options { max_staleness: Duration::from_millis(500), ..Options::new(["10.0.0.1:7001"]) };
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    /// Some nodes, `host:port`; the cluster names the others.
    pub seeds: Vec<String>,
    /// Addresses as the cluster names them, and as they are reached from here (port forwarding, NAT); others stay.
    pub addresses: Vec<(String, String)>,
    /// Without news from a quorum for so long, reads go to the cluster; entries are kept. 2 s.
    pub max_staleness: Duration,
    /// Entries kept; beyond it those not used lately go. 100,000.
    pub max_entries: usize,
    /// Bytes kept, likewise. 256 MiB.
    pub max_bytes: usize,
    /// Only keys that begin with one of these are kept and told of; none: all. At most 64 of 1,024 bytes.
    pub prefixes: Vec<Bytes>,
    /// How often the stream is vouched for; well below `max_staleness`. 250 ms.
    pub heartbeat: Duration,
    /// How long one request is tried, through redirects, failovers and lost connections. 5 s.
    pub timeout: Duration,
}

impl Options {
    /// The defaults.
    pub fn new<S: Into<String>>(seeds: impl IntoIterator<Item = S>) -> Self {
        Self {
            seeds: seeds.into_iter().map(Into::into).collect(),
            addresses: Vec::new(),
            max_staleness: Duration::from_secs(2),
            max_entries: 100_000,
            max_bytes: 256 << 20,
            prefixes: Vec::new(),
            heartbeat: Duration::from_millis(250),
            timeout: Duration::from_secs(5),
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            max_entries: self.max_entries,
            max_bytes: self.max_bytes,
            max_staleness: self.max_staleness,
            prefixes: self.prefixes.clone(),
        }
    }

    /// Where a node is reached.
    pub(crate) fn reached(&self, address: &str) -> String {
        let known = self.addresses.iter().find(|(named, _)| named == address);
        known.map_or(address, |(_, reached)| reached).to_owned()
    }
}
