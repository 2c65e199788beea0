//! Keyspace notifications on one node. What each command announces is in the golden scripts.

use slotcast_wire::frame::Frame;

use crate::node::{Client, Node};

fn listener(node: &Node) -> Client {
    let mut client = node.connect();
    client.ask("HELLO 3");
    assert!(client.ask("PSUBSCRIBE __key*@0__:*").contains("psubscribe"));
    client
}

/// Channel and message.
fn heard(client: &mut Client) -> (String, String) {
    let Frame::Push(elements) = client.next().expect("a message") else { panic!("no message") };
    let text = |at: usize| elements[at].to_string().trim_matches('"').to_owned();
    assert_eq!(text(0), "pmessage");
    (text(2), text(3))
}

#[test]
fn events_come_by_key_and_by_name_while_they_are_wanted() {
    let node = Node::start(&["--notify-keyspace-events", "KEA", "--maxmemory-samples", "10"]);
    let (mut ears, mut client) = (listener(&node), node.connect());
    assert_eq!(client.ask("CONFIG GET notify-keyspace-events"), "1) \"notify-keyspace-events\"\n2) \"AKE\"");
    let both = |ears: &mut Client, event: &str, key: &str| {
        assert_eq!(heard(ears), (format!("__keyspace@0__:{key}"), event.to_owned()));
        assert_eq!(heard(ears), (format!("__keyevent@0__:{event}"), key.to_owned()));
    };
    client.ask("SET k v PX 50");
    both(&mut ears, "set", "k");
    both(&mut ears, "expire", "k");
    both(&mut ears, "expired", "k");
    for request in ["MULTI", "INCR n", "HSET h a 1", "HDEL h a", "EXEC"] {
        client.ask(request);
    }
    for (event, key) in [("incrby", "n"), ("hset", "h"), ("hdel", "h"), ("del", "h")] {
        both(&mut ears, event, key);
    }
    assert!(client.ask("CONFIG SET notify-keyspace-events KEy").contains("Invalid event class character"));
    assert_eq!(client.ask("CONFIG SET notify-keyspace-events Em"), "OK");
    client.ask("SET k v");
    client.ask("MGET k gone");
    assert_eq!(heard(&mut ears), ("__keyevent@0__:keymiss".to_owned(), "gone".to_owned()));
    assert_eq!(client.ask("CONFIG SET notify-keyspace-events "), "OK");
    client.ask("GET gone");
    assert_eq!(client.ask("CONFIG SET notify-keyspace-events Eg"), "OK");
    client.ask("DEL k");
    assert_eq!(heard(&mut ears), ("__keyevent@0__:del".to_owned(), "k".to_owned()), "and nothing in between");
}

#[test]
fn evictions_are_announced() {
    let node = Node::start(&["--notify-keyspace-events", "Ee", "--maxmemory-policy", "allkeys-lru"]);
    let (mut ears, mut client) = (listener(&node), node.connect());
    assert_eq!(client.ask("CONFIG SET maxmemory 1mb"), "OK");
    let value = "v".repeat(10_000);
    for n in 0..200 {
        assert_eq!(client.ask(&format!("SET key:{n} {value}")), "OK");
    }
    let (channel, key) = heard(&mut ears);
    assert_eq!(channel, "__keyevent@0__:evicted");
    assert!(key.starts_with("key:"), "{key}");
}
