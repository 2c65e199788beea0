//! What a cache may rely on that was filled from a leader or from a copy: each node tells the clients it serves, and
//! one that no longer hears of changes tells them so.

use std::time::{Duration, Instant};

use crate::nodes::{Cluster, Connection, LIMIT, NODES, ask};

/// A connection that tracks what it reads, or is told of everything.
fn tracking(port: u16, mode: &str) -> Connection {
    let mut connection = Connection::open(port);
    assert_eq!(connection.ask("HELLO 3"), "%7");
    // Its last field, the modules: none.
    while connection.line() != "*0" {}
    assert_eq!(connection.ask("READONLY"), "+OK");
    assert_eq!(connection.ask(&format!("CLIENT TRACKING on{mode}")), "+OK");
    connection
}

/// The next push: the key it names, `None` for everything.
fn invalidated(connection: &mut Connection) -> Option<String> {
    let head = [connection.line(), connection.line(), connection.line()];
    assert_eq!(head, [">2", "$10", "invalidate"]);
    let keys = connection.line();
    if keys == "_" {
        return None;
    }
    assert_eq!(keys, "*1");
    connection.line();
    Some(connection.line())
}

/// Reads a key until the node answers with its value.
fn read(connection: &mut Connection, key: &str, value: &str) {
    let begun = Instant::now();
    loop {
        let head = connection.ask(&format!("GET {key}"));
        match head.strip_prefix('$').and_then(|length| length.parse::<i32>().ok()) {
            Some(0..) if connection.line() == value => return,
            _ if head == ">2" => {
                // Everything, while the node came up.
                while connection.line() != "_" {}
                while connection.line().starts_with("-") {}
            }
            _ => {}
        }
        assert!(begun.elapsed() < LIMIT, "{key} is not read: {head}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The node that serves a key.
fn leader_of(cluster: &Cluster, key: &str) -> usize {
    let serves = |port: &u16| ask(*port, &["GET", key]).is_ok_and(|answer| !answer.starts_with('-'));
    cluster.ports.iter().position(serves).expect("a leader")
}

#[test]
fn a_copy_tells_those_who_have_read_it_and_a_node_that_is_cut_off_tells_them_that_all_may_have_changed() {
    let mut cluster = Cluster::start("tracking", &["--replica-max-staleness", "1000"]);
    cluster.write(0..1);
    let leader = leader_of(&cluster, "key:0");
    let follower = (leader + 1) % NODES;
    let mut near_leader = tracking(cluster.ports[leader], "");
    let mut near_follower = tracking(cluster.ports[follower], "");
    let mut listener = tracking(cluster.ports[follower], " BCAST PREFIX key:");
    let all = [&mut near_leader, &mut near_follower];
    for reader in all {
        read(reader, "key:0", "value 0");
    }
    assert_eq!(cluster.ask(&["SET", "key:0", "second"]), "+OK");
    for connection in [&mut near_leader, &mut near_follower, &mut listener] {
        assert_eq!(invalidated(connection).as_deref(), Some("key:0"));
    }
    read(&mut near_follower, "key:0", "second");
    // The follower is left alone: it leads its own shard without a quorum, and follows the others without a leader.
    for other in (0..NODES).filter(|other| *other != follower) {
        cluster.kill(other);
    }
    let begun = Instant::now();
    assert_eq!(invalidated(&mut near_follower), None);
    assert_eq!(invalidated(&mut listener), None);
    assert!(begun.elapsed() < Duration::from_secs(10), "told after {:?}", begun.elapsed());
    for other in (0..NODES).filter(|other| *other != follower) {
        cluster.run(other);
    }
    cluster.serves();
    let mut again = tracking(cluster.ports[follower], "");
    assert_eq!(cluster.ask(&["SET", "key:0", "third"]), "+OK");
    read(&mut again, "key:0", "third");
    assert_eq!(cluster.ask(&["SET", "key:0", "fourth"]), "+OK");
    assert_eq!(invalidated(&mut again).as_deref(), Some("key:0"));
}
