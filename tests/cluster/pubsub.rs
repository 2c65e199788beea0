//! Pub/Sub over the nodes of a cluster.

use std::time::Instant;

use crate::nodes::{Cluster, Connection, LIMIT, NODES, ask};

/// The elements of the next RESP2 array of bulk strings and integers.
fn array(connection: &mut Connection) -> Vec<String> {
    let head = connection.line();
    let len: usize = head.trim_start_matches('*').parse().unwrap_or_else(|_| panic!("no array: {head}"));
    let element = |connection: &mut Connection| match connection.line() {
        line if line.starts_with('$') => connection.line(),
        line => line,
    };
    (0..len).map(|_| element(connection)).collect()
}

fn subscriber(port: u16, command: &str) -> Connection {
    let mut connection = Connection::open(port);
    let head = connection.ask(command);
    assert_eq!(head, "*3", "{command}");
    (0..5).for_each(|_| drop(connection.line()));
    connection
}

#[test]
fn a_message_reaches_the_subscribers_of_every_node_also_without_one_of_them() {
    let mut cluster = Cluster::start("pubsub", &["--durability", "memory"]);
    cluster.write(0..1);
    let ports = cluster.ports.clone();
    let mut open: Vec<_> = ports.iter().map(|port| subscriber(*port, "SUBSCRIBE news")).collect();
    let mut sharded: Vec<_> = ports.iter().map(|port| subscriber(*port, "SSUBSCRIBE news")).collect();
    for (n, port) in ports.iter().enumerate() {
        let text = n.to_string();
        assert_eq!(ask(*port, &["PUBLISH", "news", &text]).unwrap(), ":1", "the receivers of this node");
        for subscriber in &mut open {
            assert_eq!(array(subscriber), ["message", "news", &text]);
        }
        assert_eq!(ask(*port, &["SPUBLISH", "news", &text]).unwrap(), ":1");
        for subscriber in &mut sharded {
            assert_eq!(array(subscriber), ["smessage", "news", &text]);
        }
    }
    // In order, and none twice, whatever the speed.
    let mut publisher = Connection::open(ports[0]);
    for n in 0..2000 {
        publisher.ask(&format!("PUBLISH news {n}"));
    }
    for subscriber in &mut open {
        for n in 0..2000 {
            assert_eq!(array(subscriber), ["message", "news", &n.to_string()]);
        }
    }
    cluster.kill(2);
    assert_eq!(ask(ports[0], &["PUBLISH", "news", "without"]).unwrap(), ":1");
    (0..2).for_each(|n| assert_eq!(array(&mut open[n]), ["message", "news", "without"]));
    assert_eq!(ask(ports[1], &["SPUBLISH", "news", "without"]).unwrap(), ":1");
    (0..2).for_each(|n| assert_eq!(array(&mut sharded[n]), ["smessage", "news", "without"]));
    cluster.run(2);
    let begun = Instant::now();
    let mut late = loop {
        if ask(ports[2], &["PING"]).is_ok() {
            break subscriber(ports[2], "SUBSCRIBE back");
        }
        assert!(begun.elapsed() < LIMIT, "the node is not back");
    };
    // It is reached again once the others have connected to it.
    let reached = std::thread::spawn(move || array(&mut late));
    while !reached.is_finished() {
        ask(ports[0], &["PUBLISH", "back", "again"]).unwrap();
        assert!(begun.elapsed() < LIMIT, "a node that is back gets no messages");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(reached.join().unwrap(), ["message", "back", "again"]);
}

#[test]
fn shard_channels_belong_to_the_nodes_with_a_copy() {
    let cluster = Cluster::start("shardsub", &["--durability", "memory", "--cluster-copies", "1"]);
    cluster.write(0..1);
    let answers: Vec<String> =
        cluster.ports.iter().map(|port| Connection::open(*port).ask("SSUBSCRIBE news")).collect();
    assert_eq!(answers.iter().filter(|answer| *answer == "*3").count(), 1, "{answers:?}");
    assert_eq!(
        answers.iter().filter(|answer| answer.starts_with("-MOVED")).count(),
        NODES - 1,
        "{answers:?}"
    );
    let home = cluster.ports[answers.iter().position(|answer| answer == "*3").unwrap()];
    let mut crossing = Connection::open(home);
    assert!(crossing.ask("SSUBSCRIBE news other").starts_with("-CROSSSLOT"));
    assert!(crossing.ask("SPUBLISH news hi").starts_with(":0"));
    let elsewhere = cluster.ports.iter().find(|port| **port != home).unwrap();
    assert!(ask(*elsewhere, &["SPUBLISH", "news", "hi"]).unwrap().starts_with("-MOVED"));
}
