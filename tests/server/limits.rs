//! Named limits, met.

use std::io::Write;
use std::time::{Duration, Instant};

use slotcast_wire::args::OwnedArgs;

use crate::node::{LIMIT, Node};

#[test]
fn a_client_beyond_maxclients_is_told_so() {
    let node = Node::start(&["--maxclients", "2"]);
    let (mut first, mut second) = (node.connect(), node.connect());
    assert_eq!(first.ask("PING"), "PONG");
    assert_eq!(second.ask("PING"), "PONG");
    let mut third = node.connect();
    assert!(third.next().expect("a reply").to_string().contains("ERR max number of clients reached"));
    assert_eq!(third.next(), None);
    drop(first);
    let since = Instant::now();
    while node.connect().ask("PING") != "PONG" {
        assert!(since.elapsed() < LIMIT, "the place of a client that left is not given away");
    }
}

#[test]
fn a_client_that_never_reads_costs_little_and_the_others_nothing() {
    let node = Node::start(&[]);
    let mut other = node.connect();
    let value = vec![b'x'; 1 << 20];
    let set: OwnedArgs = [&b"SET"[..], b"large", &value].into_iter().collect();
    other.send(set.encoded());
    assert_eq!(other.next().expect("a reply").to_string(), "OK");
    let before = node.resident();
    let mut greedy = node.connect();
    greedy.stream.set_write_timeout(Some(Duration::from_millis(500))).expect("a timeout");
    // 100,000 replies of 1 MiB are asked for and none is read; the node stops taking requests.
    let request = b"GET large\r\n".repeat(1000);
    let taken = (0..100).take_while(|_| greedy.stream.write_all(&request).is_ok()).count();
    assert_eq!(other.ask("PING"), "PONG");
    let grown = node.resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes for {taken} thousand requests");
}

#[test]
fn a_reply_beyond_the_output_limit_closes_the_connection() {
    let node = Node::start(&["--client-output-buffer-limit", "normal 4mb 0 0"]);
    let mut client = node.connect();
    for n in 0..8 {
        let value = vec![b'x'; 4 << 20];
        let key = format!("k{n}");
        let set: OwnedArgs = [&b"SET"[..], key.as_bytes(), &value].into_iter().collect();
        client.send(set.encoded());
        assert_eq!(client.next().expect("a reply").to_string(), "OK");
    }
    let mut greedy = node.connect();
    greedy.send(b"MGET k0 k1 k2 k3 k4 k5 k6 k7\r\n");
    let since = Instant::now();
    while client.ask("CLIENT LIST").matches("id=").count() > 1 {
        assert!(since.elapsed() < LIMIT, "it is still there");
    }
}

#[test]
fn replies_that_a_client_did_not_wait_for_reach_nobody_else() {
    let node = Node::start(&["--io-threads", "1"]);
    let value = vec![b'x'; 10 << 10];
    let set: OwnedArgs = [&b"SET"[..], b"large", &value].into_iter().collect();
    let mut other = node.connect();
    other.send(set.encoded());
    assert_eq!(other.next().expect("a reply").to_string(), "OK");
    for _ in 0..50 {
        // More replies than are written at once; when the later ones are, nobody is there any more.
        let mut hasty = node.connect();
        hasty.send(&b"GET large\r\n".repeat(200));
        drop(hasty);
        assert_eq!((other.ask("PING"), node.connect().ask("ECHO me")), ("PONG".into(), "\"me\"".into()));
    }
}

#[test]
fn idle_clients_are_closed_after_timeout_and_stats_say_so() {
    let node = Node::start(&["--timeout", "1"]);
    let mut idle = node.connect();
    assert_eq!(idle.ask("PING"), "PONG");
    assert_eq!(idle.next(), None);
}

#[test]
fn maxmemory_refuses_or_evicts_as_the_policy_says() {
    let node = Node::start(&["--maxmemory", "3mb"]);
    let mut client = node.connect();
    let fill = |client: &mut crate::node::Client, prefix: &str, suffix: &str| -> String {
        let value = "v".repeat(1000);
        (0..8000)
            .map(|n| client.ask(&format!("SET {prefix}{n} {value}{suffix}")))
            .find(|reply| reply != "OK")
            .unwrap_or_default()
    };
    let refused = fill(&mut client, "a", "");
    assert!(refused.contains("OOM command not allowed when used memory > 'maxmemory'."), "{refused}");
    assert!(client.ask("GET a0").starts_with("\"v"), "reads go on");
    assert_eq!(client.ask("DEL a0"), "(integer) 1", "and so do removals");
    assert_eq!(client.ask("CONFIG SET maxmemory-policy allkeys-lru"), "OK");
    assert_eq!(fill(&mut client, "b", ""), "");
    let usage = client.ask("INFO memory");
    let used: u64 = usage
        .split("used_memory:")
        .nth(1)
        .and_then(|rest| rest.split(['\r', '\\', '\n']).next())
        .and_then(|n| n.parse().ok())
        .expect("used_memory");
    assert!(used < 4 << 20, "{used}");
    assert_eq!(client.ask("FLUSHALL"), "OK");
    assert_eq!(client.ask("CONFIG SET maxmemory-policy volatile-ttl"), "OK");
    assert_eq!(client.ask("SET keep 1"), "OK");
    assert_eq!(fill(&mut client, "c", " EX 1000"), "");
    assert_eq!(client.ask("GET keep"), "\"1\"", "only keys with a deadline go");
}
