//! The directives, one row each. From here come the parser of the file, the flags, the help, CONFIG GET and SET, and
//! the test that `cluster.conf` explains them all. Adding a directive: a field in `setting.rs`, a row here, a
//! paragraph in `cluster.conf`.
//!
//! A name that redis.conf has means what it means there. Which struct a row points into says whether CONFIG SET may
//! change it: the compiler keeps that promise.

use crate::config::field::Field;
use crate::config::setting::{Live, Startup};

/// One directive.
pub struct Directive {
    /// As redis.conf and CONFIG GET spell it.
    pub name: &'static str,
    /// As it would stand in the file.
    pub default: &'static str,
    /// A paragraph for `--help`.
    pub doc: &'static str,
    /// Kind, range and place of the value.
    pub value: Value,
}

/// Where a directive's value lives, and so when it can change.
pub enum Value {
    /// Read when the node starts.
    Startup(Field<Startup>),
    /// CONFIG SET may change it.
    Live(Field<Live>),
    /// Known to redis.conf and asked for by clients, but slotcast has only one answer: the default.
    Fixed,
}

const fn startup(
    name: &'static str,
    default: &'static str,
    field: Field<Startup>,
    doc: &'static str,
) -> Directive {
    Directive { name, default, doc, value: Value::Startup(field) }
}

const fn live(name: &'static str, default: &'static str, field: Field<Live>, doc: &'static str) -> Directive {
    Directive { name, default, doc, value: Value::Live(field) }
}

const fn fixed(name: &'static str, default: &'static str, doc: &'static str) -> Directive {
    Directive { name, default, doc, value: Value::Fixed }
}

/// Redis's upper bound of most numbers.
const INT_MAX: u64 = i32::MAX as u64;
const MINUTE_MS: u64 = 60_000;
const MIB: u64 = 1 << 20;

/// All directives, in the order of `cluster.conf`.
#[rustfmt::skip] // a row reads as a row
pub static DIRECTIVES: &[Directive] = &[
    // Network
    startup("bind", "127.0.0.1 -::1", Field::Binds(|s| &mut s.bind),
        "Addresses to listen on, for clients and for the other nodes. * is every IPv4 address, ::* every IPv6 one; \
         an address with - in front is skipped if the machine does not have it."),
    startup("port", "6379", Field::Port(|s| &mut s.port),
        "The port clients connect to. 0: one the system picks (single-node mode only)."),
    startup("tcp-backlog", "511", Field::Number(|s| &mut s.tcp_backlog, 1, 65_535),
        "Connections the kernel keeps waiting to be accepted (it caps this at net.core.somaxconn)."),
    startup("protected-mode", "yes", Field::YesNo(|s| &mut s.protected_mode),
        "yes: refuse to start when bind reaches beyond this machine and no requirepass is set."),
    live("requirepass", "\"\"", Field::Text(|s| &mut s.requirepass),
        "The password clients must give with AUTH or HELLO. Empty: none."),
    live("maxclients", "10000", Field::Count(|s| &mut s.maxclients, 1, u32::MAX as usize),
        "Connections served at once; one more is told so and closed."),
    live("timeout", "0", Field::Seconds(|s| &mut s.timeout, 0, INT_MAX),
        "Seconds after which an idle client is closed. 0: never."),
    live("tcp-keepalive", "300", Field::Seconds(|s| &mut s.tcp_keepalive, 0, INT_MAX),
        "Seconds between TCP keep-alive probes to a silent client. 0: none."),
    startup("io-threads", "0", Field::Count(|s| &mut s.io_threads, 0, 128),
        "Threads that own connections and run their commands. 0: one a core."),

    // Log and directory
    live("loglevel", "notice", Field::LogLevel(|s| &mut s.loglevel),
        "How much is logged (to standard output): debug, verbose, notice, warning or nothing."),
    fixed("logfile", "\"\"",
        "slotcast logs to standard output only."),
    startup("dir", "data", Field::Text(|s| &mut s.dir),
        "The directory of what the node must remember: its identity and, in a cluster, its logs and snapshots. It is \
         created. Two nodes never share one."),

    // Memory
    live("maxmemory", "0", Field::Bytes(|s| &mut s.maxmemory, 0, u64::MAX),
        "Bytes that the keys and values of this node may take, over all shards it holds; each of them has an equal \
         share. 0: no limit."),
    live("maxmemory-policy", "noeviction", Field::Policy(|s| &mut s.maxmemory_policy),
        "What goes when maxmemory is reached. noeviction: nothing, writes get an error. allkeys-lru: the key used \
         longest ago. volatile-ttl: the key that expires soonest. Both look at a sample of maxmemory-samples keys."),
    live("maxmemory-samples", "5", Field::Count(|s| &mut s.maxmemory_samples, 1, 64),
        "Keys looked at to choose one to evict: more is more exact and slower."),

    // Limits of a client
    live("proto-max-bulk-len", "512mb", Field::Bytes(|s| &mut s.proto_max_bulk_len, MIB, i64::MAX as u64),
        "The longest single argument of a request, and so the longest value."),
    live("client-query-buffer-limit", "1gb", Field::Bytes(|s| &mut s.client_query_buffer_limit, MIB, i64::MAX as u64),
        "Bytes a client may have sent of requests that are not yet complete; one that sends more is closed."),
    live("client-output-buffer-limit", "normal 1gb 256mb 60 replica 256mb 64mb 60 pubsub 32mb 8mb 60",
        Field::OutputLimits(|s| &mut s.client_output_buffer_limit),
        "Bytes of replies and pushes that may wait for a client that does not read, by class: it is closed at once above \
         the hard limit, or when above the soft limit for so many seconds on end. 0: no limit. May be given once a class."),
    live("tracking-table-max-keys", "1000000", Field::Count(|s| &mut s.tracking_table_max_keys, 0, usize::MAX),
        "Keys remembered for client-side caching; beyond it the clients of some key are told to drop it. 0: no limit."),
    live("invalidation-window-bytes", "32mb", Field::Bytes(|s| &mut s.invalidation_window_bytes, 0, 1 << 40),
        "Bytes of the newest changes that each copy of a shard remembers, so that a cache which was away can be told what \
         it has missed (INVALIDATIONS SUBSCRIBE). One that was away for longer is told to drop the shard's slots."),
    live("invalidation-window-seconds", "600", Field::Seconds(|s| &mut s.invalidation_window_seconds, 1, INT_MAX),
        "Seconds for which they are remembered at most."),
    live("notify-keyspace-events", "\"\"", Field::Events(|s| &mut s.notify_keyspace_events),
        "Which events of keys are announced as messages, in redis.conf's letters. K on __keyspace@0__:KEY, E on \
         __keyevent@0__:EVENT; g generic commands, $ strings, h hashes, x expired, e evicted, A all of these; n new keys, m \
         keys that a read did not find. Empty: none."),
    live("notify-keyspace-scope", "node", Field::Scope(|s| &mut s.notify_keyspace_scope),
        "node: this node announces the events of the shards it leads, as a Redis Cluster's does. cluster: those of all \
         shards, so that subscribing on any one node is enough. The same on all nodes, like notify-keyspace-events."),
    live("hz", "10", Field::Number(|s| &mut s.hz, 1, 500),
        "Rounds of upkeep a second: expired keys, eviction, idle clients."),

    // Cluster
    startup("cluster-enabled", "no", Field::YesNo(|s| &mut s.cluster_enabled),
        "yes: this node is one of a cluster. no: it serves all slots alone."),
    startup("cluster-seeds", "\"\"", Field::Addresses(|s| &mut s.cluster_seeds),
        "The client address, host:port, of every node a new cluster is made of, the same on all of them. The cluster \
         forms once all are present and empty, and never a second time."),
    startup("cluster-shards", "0", Field::Count(|s| &mut s.cluster_shards, 0, 1024),
        "Shards a new cluster is made with; each is a Raft group that owns an equal part of the 16384 slots. 0: as many \
         as seeds."),
    startup("cluster-copies", "3", Field::Count(|s| &mut s.cluster_copies, 1, 7),
        "Nodes that hold a copy of each shard, its leader included. An odd number: a shard serves while more than half \
         of its copies live."),
    startup("cluster-port", "0", Field::Port(|s| &mut s.cluster_port),
        "The port the other nodes connect to. 0: port + 10000."),
    startup("cluster-announce-ip", "\"\"", Field::Text(|s| &mut s.cluster_announce_ip),
        "The host name or address that clients and nodes are told to reach this node by. Empty: the first address of \
         bind."),
    startup("durability", "quorum", Field::Durability(|s| &mut s.durability),
        "When a write is acknowledged. quorum: when it is written to the logs of most copies, which are on disk a second \
         later at most. quorum-fsync: when it is on the disks of most copies. memory: when it is in the memory of most \
         copies; nothing is kept on disk. In a cluster only: a single node keeps no keys on disk."),
    startup("cluster-heartbeat-interval", "50", Field::Millis(|s| &mut s.cluster_heartbeat_interval, 5, MINUTE_MS),
        "Milliseconds between the heartbeats of a shard's leader."),
    startup("cluster-election-timeout", "200", Field::Millis(|s| &mut s.cluster_election_timeout, 10, MINUTE_MS),
        "Milliseconds of silence after which a shard's followers elect a new leader; each draws between once and twice \
         this. A failover takes three to four times this, or twice this if the leader's process has died. At least twice cluster-heartbeat-interval."),
    live("cluster-node-timeout", "1000", Field::Millis(|s| &mut s.cluster_node_timeout, 50, 3_600_000),
        "Milliseconds of silence after which a node is marked as failed for clients (CLUSTER NODES, SHARDS)."),
    live("cluster-park-timeout", "2000", Field::Millis(|s| &mut s.cluster_park_timeout, 0, MINUTE_MS),
        "Milliseconds a request waits for its shard to have a leader before the client gets CLUSTERDOWN."),
    live("replica-max-staleness", "1000", Field::Millis(|s| &mut s.replica_max_staleness, 0, 3_600_000),
        "Milliseconds by which a copy read under READONLY may be behind its leader; beyond, MOVED. 0: any age."),
    live("cluster-require-full-coverage", "yes", Field::YesNo(|s| &mut s.cluster_require_full_coverage),
        "yes: no slot is served while some slot belongs to no shard. no: the others go on."),
    live("shutdown-timeout", "5", Field::Seconds(|s| &mut s.shutdown_timeout, 0, INT_MAX),
        "Seconds that a node which is told to stop (SIGTERM, SHUTDOWN) goes on serving while other copies lack some of the \
         log, so that nobody notices its end. Nodes that don't answer are not waited for."),

    // What clients ask a Redis for
    fixed("databases", "1", "There is one database, number 0, as in every Redis Cluster."),
    fixed("save", "\"\"", "slotcast writes no RDB files: copies on other nodes are what keeps a key."),
    fixed("appendonly", "no", "slotcast writes no append-only file."),
];

/// The row of a name, in either case.
pub fn find(name: &str) -> Option<&'static Directive> {
    DIRECTIVES.iter().find(|row| row.name.eq_ignore_ascii_case(name))
}

/// The known name nearest to a misspelt one, if any is near.
pub fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let far = name.len().div_ceil(3).max(1);
    let distances = DIRECTIVES.iter().map(|row| (distance(&name, row.name), row.name));
    let near = distances.min().filter(|(distance, _)| *distance <= far).map(|(_, name)| name);
    let begun = |row: &&Directive| name.len() > 2 && row.name.starts_with(&name);
    near.or_else(|| DIRECTIVES.iter().find(begun).map(|row| row.name))
}

/// Levenshtein's distance. Names are short: a misspelt one longer than this is near to nothing.
fn distance(a: &str, b: &str) -> usize {
    const LONGEST: usize = 64;
    if a.len() > LONGEST {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

impl Directive {
    /// Does the directive take several words?
    pub fn many(&self) -> bool {
        match &self.value {
            Value::Startup(field) => field.many(),
            Value::Live(field) => field.many(),
            Value::Fixed => self.name == "save",
        }
    }

    /// What may stand after the name.
    pub fn expects(&self) -> String {
        match &self.value {
            Value::Startup(field) => field.expects(),
            Value::Live(field) => field.expects(),
            Value::Fixed => format!("{}, nothing else", self.default),
        }
    }

    /// Reads words from a file or a flag into its place. `Err` is the reason.
    pub fn read(&self, startup: &mut Startup, live: &mut Live, words: &[&str]) -> Result<(), String> {
        match &self.value {
            Value::Startup(field) => field.read(startup, words),
            Value::Live(field) => field.read(live, words),
            Value::Fixed if words.join(" ").eq_ignore_ascii_case(self.fixed_value()) => Ok(()),
            Value::Fixed => Err("can't set immutable config".to_owned()),
        }
    }

    /// The value as CONFIG GET prints it.
    pub fn print(&self, startup: &mut Startup, live: &mut Live) -> String {
        match &self.value {
            Value::Startup(field) => field.print(startup),
            Value::Live(field) => field.print(live),
            Value::Fixed => self.fixed_value().to_owned(),
        }
    }

    fn fixed_value(&self) -> &'static str {
        self.default.trim_matches('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn rows_are_well_formed() {
        let names: HashSet<_> = DIRECTIVES.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), DIRECTIVES.len(), "a name is there twice");
        for row in DIRECTIVES {
            assert!(row.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", row.name);
            assert!(row.doc.ends_with('.') && row.doc.len() > 20, "{}: a sentence is missing", row.name);
        }
    }

    #[test]
    fn suggests_the_nearest_name() {
        assert_eq!(nearest("maxmemroy"), Some("maxmemory"));
        assert_eq!(nearest("cluster-seed"), Some("cluster-seeds"));
        assert_eq!(nearest("BIN"), Some("bind"));
        assert_eq!(nearest("maxmem"), Some("maxmemory"));
        assert_eq!(nearest("unix-socket-permissions"), None);
        assert_eq!(nearest(&"x".repeat(100_000)), None);
    }
}
