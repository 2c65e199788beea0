//! CLIENT TRACKING: what a caching client relies on. Who is told of what is in the script (`script.rs`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use slotcast_wire::frame::Frame;

use crate::node::{Client, LIMIT, Node};

fn tracking(node: &Node, mode: &str) -> Client {
    let mut client = node.connect();
    assert!(client.ask("HELLO 3").contains("proto"));
    assert_eq!(client.ask(&format!("CLIENT TRACKING on{mode}")), "OK");
    client
}

/// The key an invalidation names; `None`: everything.
fn invalidated(frame: &Frame) -> Option<String> {
    let text = frame.to_string();
    assert!(text.contains("invalidate"), "{text}");
    text.rsplit('"').nth(1).filter(|key| *key != "invalidate").map(str::to_owned)
}

#[test]
fn a_reader_is_told_once_of_each_way_a_key_can_change() {
    let node = Node::start(&[]);
    let mut reader = tracking(&node, "");
    let mut writer = node.connect();
    for change in ["SET k 2", "APPEND k x", "RENAME k other", "DEL k", "PEXPIRE k 1", "SET k 5 PX 20"] {
        reader.ask("EXISTS k");
        writer.ask(change);
        let push = reader.next().expect("a push");
        assert_eq!(invalidated(&push).as_deref(), Some("k"), "after {change}");
        writer.ask("SET k 1");
    }
    reader.ask("GET k");
    writer.ask("SET k 7 PX 30");
    assert_eq!(invalidated(&reader.next().expect("a push")).as_deref(), Some("k"));
    reader.ask("GET k");
    assert_eq!(invalidated(&reader.next().expect("a push when it expires")).as_deref(), Some("k"));
    reader.ask("GET k");
    writer.ask("FLUSHALL");
    assert_eq!(invalidated(&reader.next().expect("a push")), None);
}

#[test]
fn own_changes_come_behind_their_reply_or_not_at_all() {
    let node = Node::start(&[]);
    let mut client = tracking(&node, "");
    client.ask("GET k");
    assert_eq!(client.ask("SET k 1"), "OK", "the reply first");
    assert_eq!(invalidated(&client.next().expect("a push")).as_deref(), Some("k"));
    let mut silent = tracking(&node, " NOLOOP");
    silent.ask("GET k");
    assert_eq!(silent.ask("SET k 2"), "OK");
    assert_eq!(silent.ask("PING"), "PONG", "no push in between");
}

/// A client that caches what it reads and drops what it is told to.
struct Cache {
    client: Client,
    held: HashMap<String, String>,
}

impl Cache {
    fn read(&mut self, key: &str) {
        let args: slotcast_wire::args::OwnedArgs = ["GET", key].into_iter().collect();
        self.client.send(args.encoded());
        loop {
            let frame = self.client.next().expect("a frame");
            if matches!(frame, Frame::Push(_)) {
                self.drop_key(&frame);
            } else {
                self.held.insert(key.to_owned(), frame.to_string());
                return;
            }
        }
    }

    fn drop_key(&mut self, push: &Frame) {
        match invalidated(push) {
            Some(key) => drop(self.held.remove(&key)),
            None => self.held.clear(),
        }
    }

    /// Takes all pushes that are on their way: those in front of the answer to a PING.
    fn settle(&mut self) {
        self.client.send(b"*1\r\n$4\r\nPING\r\n");
        while let Some(frame) = self.client.next() {
            if !matches!(frame, Frame::Push(_)) {
                return;
            }
            self.drop_key(&frame);
        }
    }
}

#[test]
fn no_cache_keeps_a_stale_value_whatever_the_threads_do() {
    const KEYS: usize = 8;
    let node = Node::start(&["--io-threads", "4"]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let (node, stop) = (&node, &stop);
            scope.spawn(move || {
                let mut client = node.connect();
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    n += 1;
                    client.ask(&format!("SET key{} {writer}-{n}", n % KEYS));
                }
            });
        }
        let caches: Vec<_> = (0..3)
            .map(|reader| {
                let node = &node;
                scope.spawn(move || {
                    let mut cache = Cache { client: tracking(node, ""), held: HashMap::new() };
                    for n in 0..4_000 {
                        cache.read(&format!("key{}", (n + reader) % KEYS));
                    }
                    cache
                })
            })
            .collect();
        let caches: Vec<Cache> = caches.into_iter().map(|cache| cache.join().expect("no panic")).collect();
        stop.store(true, Ordering::Relaxed);
        let mut truth = node.connect();
        let since = Instant::now();
        for mut cache in caches {
            // Writers may have a last write on its way; what is still held after that must be true.
            loop {
                cache.settle();
                let stale = cache.held.iter().any(|(key, value)| truth.ask(&format!("GET {key}")) != *value);
                if !stale {
                    break;
                }
                assert!(since.elapsed() < LIMIT, "stale for ever: {:?}", cache.held);
            }
        }
    });
}

/// Sends many requests at once and takes their replies.
fn ask_all(client: &mut Client, requests: impl Iterator<Item = String>) {
    let requests: Vec<String> = requests.collect();
    for some in requests.chunks(1_000) {
        let bytes: Vec<u8> = some.iter().flat_map(|line| format!("{line}\r\n").into_bytes()).collect();
        client.send(&bytes);
        for _ in some {
            while matches!(client.next().expect("a reply"), Frame::Push(_)) {}
        }
    }
}

/// What CLIENT LIST says a connection takes: pushes that wait, and all.
fn memory_of(node: &Node, id: &str) -> (usize, usize) {
    let list = node.connect().ask(&format!("CLIENT LIST ID {id}"));
    let field = |name: &str| {
        let found = list.split(' ').find_map(|field| field.strip_prefix(name));
        found.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in {list}"))
    };
    (field("omem="), field("tot-mem="))
}

fn id_of(client: &mut Client) -> String {
    client.ask("CLIENT ID").rsplit(' ').next().expect("an id").to_owned()
}

const MIB: usize = 1 << 20;

#[test]
fn a_client_that_does_not_read_what_it_is_told_costs_little_and_learns_that_all_may_have_changed() {
    const KEYS: usize = 40_000;
    let key = |n: usize| format!("{n:0500}");
    let node = Node::start(&["--client-output-buffer-limit", "normal 0 0 0"]);
    let mut writer = node.connect();
    ask_all(&mut writer, (0..KEYS).map(|n| format!("SET {} 1", key(n))));
    let mut reads = tracking(&node, "");
    ask_all(&mut reads, (0..KEYS).map(|n| format!("GET {}", key(n))));
    let mut told_instead = tracking(&node, "");
    let target = id_of(&mut told_instead);
    let mut redirects = tracking(&node, &format!(" REDIRECT {target} BCAST PREFIX 00"));
    let mut broadcast = tracking(&node, " BCAST");
    let ids = [id_of(&mut reads), target, id_of(&mut broadcast)];
    let before = node.resident();
    let mut largest = 0;
    for round in 0..3 {
        ask_all(&mut writer, (0..KEYS).map(|n| format!("SET {} {round}", key(n))));
        largest = largest.max(node.resident());
        for id in &ids {
            let (waits, all) = memory_of(&node, id);
            assert!(waits <= all && all <= 8 * MIB, "{waits} and {all} bytes for connection {id}");
        }
    }
    // Two connections that would have taken 60 MB each, and one that would have taken 20 MB; and all the memory
    // that writing so much takes for a moment, which the allocator takes by the 4 MiB.
    assert!(largest < before + 3 * 8 * MIB + 24 * MIB, "{before} bytes before, {largest} at most");
    for client in [&mut reads, &mut told_instead, &mut broadcast] {
        let everything = std::iter::from_fn(|| client.next()).find(|push| invalidated(push).is_none());
        assert!(everything.is_some(), "a push that says that everything may have changed");
        assert_eq!(client.ask("PING"), "PONG");
    }
    assert_eq!(redirects.ask("PING"), "PONG", "the source is told nothing itself");
}

#[test]
fn a_key_that_the_table_lets_go_is_told_to_its_readers() {
    let node = Node::start(&["--tracking-table-max-keys", "1000"]);
    let mut cache = Cache { client: tracking(&node, ""), held: HashMap::new() };
    for n in 0..5_000 {
        cache.read(&format!("key:{n}"));
    }
    cache.settle();
    let total = |what: &str| {
        let info = node.connect().ask("INFO stats");
        let value = info
            .split_once(what)
            .and_then(|(_, rest)| rest.split(['\r', '\n', '\\']).next().map(str::to_owned));
        value.and_then(|value| value.parse::<usize>().ok()).expect("a figure")
    };
    let (keys, items) = (total("tracking_total_keys:"), total("tracking_total_items:"));
    assert!(keys < 1_500, "{keys} keys are remembered");
    assert_eq!((cache.held.len(), items), (keys, keys), "what is not remembered is not held either");
}

#[test]
fn keys_that_are_evicted_are_told() {
    let node = Node::start(&["--maxmemory", "4mb", "--maxmemory-policy", "allkeys-lru"]);
    let mut cache = Cache { client: tracking(&node, ""), held: HashMap::new() };
    let mut writer = node.connect();
    let value = "x".repeat(1_000);
    for n in 0..1_000 {
        writer.ask(&format!("SET key:{n} {value}"));
        cache.read(&format!("key:{n}"));
    }
    for n in 0..5_000 {
        writer.ask(&format!("SET other:{n} {value}"));
    }
    cache.settle();
    let stale: Vec<_> =
        cache.held.iter().filter(|(key, held)| writer.ask(&format!("GET {key}")) != **held).collect();
    assert_eq!(stale.len(), 0, "{:?}", stale.first());
    assert!(cache.held.len() < 900, "{} keys are still held", cache.held.len());
}
