//! Keyspace notifications over the nodes of a cluster: every acknowledged change is heard of once.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use slotcast_wire::slot::slot_of;

use crate::nodes::{Cluster, Connection, LIMIT, ask};

/// Listens at some nodes for keys that are set.
struct Ears {
    heard: Receiver<String>,
    keys: BTreeMap<String, usize>,
    nodes: usize,
}

impl Ears {
    fn at(ports: &[u16]) -> Ears {
        let (sender, heard) = channel();
        for port in ports {
            let mut connection = Connection::open(*port);
            assert_eq!(connection.ask("SUBSCRIBE __keyevent@0__:set"), "*3");
            (0..5).for_each(|_| drop(connection.line()));
            let sender = sender.clone();
            std::thread::spawn(move || listen(connection, &sender));
        }
        Ears { heard, keys: BTreeMap::new(), nodes: ports.len() }
    }

    /// Listens until each of these was heard of `times`, and so were the last keys of all shards, written now.
    fn until(&mut self, cluster: &Cluster, keys: &[String], times: usize) {
        let last: Vec<String> = (0..3).map(|shard| of_shard("last", shard)).collect();
        last.iter().for_each(|key| assert_eq!(cluster.ask(&["SET", key, "1"]), "+OK"));
        let begun = Instant::now();
        while keys.iter().chain(&last).any(|key| self.keys.get(key).is_none_or(|heard| *heard < times)) {
            match self.heard.recv_timeout(Duration::from_millis(100)) {
                Ok(key) => *self.keys.entry(key).or_insert(0) += 1,
                Err(_) => assert!(begun.elapsed() < LIMIT, "not heard of at {} nodes: {:?}", self.nodes, {
                    keys.iter().filter(|key| self.keys.get(*key) != Some(&times)).collect::<Vec<_>>()
                }),
            }
        }
        let wrong: Vec<_> = keys.iter().filter(|key| self.keys[*key] != times).collect();
        assert!(wrong.is_empty(), "heard of more than once: {wrong:?}");
    }
}

/// Reads messages until the node is gone.
fn listen(mut connection: Connection, heard: &Sender<String>) {
    while connection.line() == "*3" {
        let words: Vec<String> = (0..6).map(|_| connection.line()).collect();
        if heard.send(words[5].clone()).is_err() {
            return;
        }
    }
}

/// A key of the first, second or third shard.
fn of_shard(name: &str, shard: u16) -> String {
    let mut keys = (0..).map(|n| format!("{name}:{n}"));
    keys.find(|key| slot_of(key.as_bytes()) / 5462 == shard).expect("a key")
}

/// Sets keys, once each; those that were certainly set, and set once.
fn set(cluster: &Cluster, keys: std::ops::Range<usize>) -> Vec<String> {
    let certain = |key: &String| {
        let mut port = cluster.ports[0];
        loop {
            match ask(port, &["SET", key, "1"]).as_deref() {
                Ok("+OK") => return true,
                Ok(moved) if moved.starts_with("-MOVED") => {
                    port = moved.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
                }
                _ => return false,
            }
        }
    };
    keys.map(|n| format!("key:{n}")).filter(certain).collect()
}

fn flags<'a>(scope: &'a str, copies: &'a str) -> [&'a str; 8] {
    [
        "--durability",
        "memory",
        "--notify-keyspace-events",
        "E$",
        "--notify-keyspace-scope",
        scope,
        "--cluster-copies",
        copies,
    ]
}

#[test]
fn who_listens_at_all_nodes_hears_of_each_change_once_also_while_leaders_change() {
    let cluster = Cluster::start("events-node", &flags("node", "3"));
    let mut ears = Ears::at(&cluster.ports);
    let mut keys = set(&cluster, 0..100);
    assert_eq!(ask(cluster.ports[1], &["CLUSTER", "FAILOVER"]).unwrap(), "+OK");
    keys.extend(set(&cluster, 100..300));
    assert!(keys.len() > 200, "{} of 300 keys were set", keys.len());
    ears.until(&cluster, &keys, 1);
}

#[test]
fn with_the_scope_cluster_any_node_says_all_also_through_a_kill() {
    let mut cluster = Cluster::start("events-cluster", &flags("cluster", "3"));
    let mut ears = Ears::at(&cluster.ports[..2]);
    let mut keys = set(&cluster, 0..100);
    cluster.kill(2);
    keys.extend(set(&cluster, 100..300));
    assert!(keys.len() > 200, "{} of 300 keys were set", keys.len());
    ears.until(&cluster, &keys, 2);
}

#[test]
fn a_node_without_a_copy_is_told_by_the_leader() {
    let cluster = Cluster::start("events-one-copy", &flags("cluster", "1"));
    let mut ears = Ears::at(&cluster.ports);
    let keys = set(&cluster, 0..100);
    assert_eq!(keys.len(), 100);
    ears.until(&cluster, &keys, 3);
}
