//! CLIENT TRACKING, default mode: what a caching client relies on.

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
