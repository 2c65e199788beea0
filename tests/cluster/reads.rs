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

#[test]
fn a_copy_that_was_stopped_serves_nothing_older_than_it_may_be() {
    const READS: usize = 300;
    let cluster = Cluster::start("stopped", &["--durability", "memory", "--replica-max-staleness", "400"]);
    cluster.write(0..1);
    let leads = |port: &u16| ask(*port, &["GET", "key:0"]).unwrap() == "value 0";
    let leader = cluster.ports.iter().position(leads).unwrap();
    let follower = (leader + 1) % cluster.ports.len();
    let mut readers: Vec<Connection> = (0..8).map(|_| Connection::open(cluster.ports[follower])).collect();
    let begun = Instant::now();
    for reader in &mut readers {
        assert_eq!(reader.ask("READONLY"), "+OK");
        while reader.ask("GET key:0") != "$7" {
            assert!(begun.elapsed() < LIMIT, "a copy that is up to date is not read");
            std::thread::sleep(Duration::from_millis(20));
        }
        reader.line();
    }
    // What its leader says meanwhile waits in its socket, as do these reads.
    cluster.signal(follower, "STOP");
    assert_eq!(ask(cluster.ports[leader], &["SET", "key:0", "newer"]).unwrap(), "+OK");
    readers.iter_mut().for_each(|reader| reader.send(&"GET key:0\r\n".repeat(READS)));
    std::thread::sleep(Duration::from_millis(600)); // longer than a copy may be behind
    cluster.signal(follower, "CONT");
    for reader in &mut readers {
        for _ in 0..READS {
            match &*reader.line() {
                "$5" => assert_eq!(reader.line(), "newer"),
                line => assert!(line.starts_with("-MOVED"), "{line}: long overwritten"),
            }
        }
    }
}
