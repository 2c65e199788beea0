//! CLUSTER FAILOVER.

use std::time::{Duration, Instant};

use crate::nodes::{Cluster, LIMIT, ask};

#[test]
fn a_failover_that_is_asked_for_makes_a_node_the_master_of_all_it_replicates() {
    let cluster = Cluster::start("failover", &["--durability", "memory"]);
    cluster.write(0..50);
    let port = cluster.ports[1];
    assert_eq!(ask(port, &["CLUSTER", "FAILOVER"]).unwrap(), "+OK");
    let begun = Instant::now();
    let masters = || ask(cluster.ports[0], &["CLUSTER", "NODES"]).unwrap();
    let all = |line: &str| line.contains(&format!(":{port}@")) && line.ends_with("0-16383");
    while !masters().lines().any(all) {
        assert!(begun.elapsed() < LIMIT, "{}", masters());
        std::thread::sleep(Duration::from_millis(20));
    }
    cluster.has(0..50);
    let again = ask(port, &["CLUSTER", "FAILOVER"]).unwrap();
    assert_eq!(again, "-ERR You should send CLUSTER FAILOVER to a replica");
}
