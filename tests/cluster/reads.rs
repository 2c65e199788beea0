//! What a connection's read mode promises.

use std::time::{Duration, Instant};

use crate::nodes::{Cluster, Connection, LIMIT, ask};

#[test]
fn a_copy_is_read_while_it_is_new_enough_and_redirects_when_it_is_not() {
    let cluster = Cluster::start("replica", &["--durability", "memory", "--replica-max-staleness", "1000"]);
    cluster.write(0..1);
    let leader =
        cluster.ports.iter().find(|port| ask(**port, &["GET", "key:0"]).unwrap() == "value 0").unwrap();
    let follower = cluster.ports.iter().find(|port| *port != leader).unwrap();
    let mut reader = Connection::open(*follower);
    assert!(reader.ask("GET key:0").starts_with("-MOVED"));
    assert_eq!(reader.ask("READONLY"), "+OK");
    let begun = Instant::now();
    // Its leader's next heartbeat tells it how new it is.
    while reader.ask("GET key:0") != "$7" {
        assert!(begun.elapsed() < LIMIT, "a copy that is up to date is not read");
        std::thread::sleep(Duration::from_millis(20));
    }
    reader.line();
    assert_eq!(reader.ask("CLIENT READS LINEARIZABLE"), "+OK");
    assert!(reader.ask("GET key:0").starts_with("-MOVED"), "a copy is not linearizable");
    assert_eq!(reader.ask("CLIENT READS LEASE"), "+OK");
    // Any state is older than the past.
    assert_eq!(ask(*follower, &["CONFIG", "SET", "replica-max-staleness", "1"]).unwrap(), "+OK");
    while !reader.ask("GET key:0").starts_with("-MOVED") {
        reader.line();
        assert!(begun.elapsed() < LIMIT, "a copy that is behind is read");
    }
}
