//! Figures that operators and dashboards read.

use std::time::Instant;

use crate::node::{LIMIT, Node};

#[test]
fn keys_that_reads_find_and_miss_are_counted() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    client.ask("SET here 1");
    for request in ["GET here", "EXISTS here nowhere", "MGET nowhere here", "INCR here"] {
        client.ask(request);
    }
    let stats = client.ask("INFO stats");
    assert!(stats.contains("keyspace_hits:3") && stats.contains("keyspace_misses:2"), "{stats}");
    assert_eq!(client.ask("CONFIG RESETSTAT"), "OK");
    let stats = client.ask("INFO stats");
    assert!(stats.contains("keyspace_hits:0") && stats.contains("keyspace_misses:0"), "{stats}");
}

#[test]
fn a_request_half_sent_shows_in_its_connections_line() {
    let node = Node::start(&[]);
    let (mut slow, mut other) = (node.connect(), node.connect());
    slow.ask("CLIENT SETNAME slow");
    slow.send(b"*2\r\n$4\r\nECHO\r\n$9\r\nhalf");
    let since = Instant::now();
    while !other
        .ask("CLIENT LIST")
        .lines()
        .any(|line| line.contains("name=slow") && line.contains(" qbuf=22 "))
    {
        assert!(since.elapsed() < LIMIT, "{}", other.ask("CLIENT LIST"));
    }
}
