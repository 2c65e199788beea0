//! What a cache may rely on that was filled from a leader or from a copy: each node tells the clients it serves, and
//! one that no longer hears of changes tells them so.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use slotcast_wire::frame::{Frame, FrameDecoder};

use crate::nodes::{Cluster, LIMIT, NODES, ask};

/// A connection that tracks, and what it was told: keys, or everything (`None`).
struct Tracking {
    stream: TcpStream,
    decoder: FrameDecoder,
    unread: Vec<u8>,
    told: Vec<Option<String>>,
}

impl Tracking {
    fn open(port: u16, mode: &str) -> Tracking {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut tracking =
            Tracking { stream, decoder: FrameDecoder::default(), unread: vec![], told: vec![] };
        tracking.ask("HELLO 3");
        assert_eq!(tracking.ask("READONLY"), "OK");
        assert_eq!(tracking.ask(&format!("CLIENT TRACKING on{mode}")), "OK");
        tracking
    }

    /// A request's reply.
    fn ask(&mut self, request: &str) -> String {
        self.stream.write_all(format!("{request}\r\n").as_bytes()).unwrap();
        loop {
            if let Some(reply) = self.frame() {
                return reply.to_string();
            }
        }
    }

    /// The next frame; `None`: it was a push.
    fn frame(&mut self) -> Option<Frame> {
        let mut chunk = [0; 4096];
        loop {
            let (used, frame) = self.decoder.decode(&self.unread).unwrap();
            self.unread.drain(..used);
            match frame {
                Some(Frame::Push(push)) => {
                    self.note(&push);
                    return None;
                }
                Some(reply) => return Some(reply),
                None => {
                    let count = self.stream.read(&mut chunk).unwrap();
                    assert!(count > 0, "the connection is closed");
                    self.unread.extend_from_slice(&chunk[..count]);
                }
            }
        }
    }

    fn note(&mut self, push: &[Frame]) {
        match push {
            [_, Frame::Array(keys)] => self.told.extend(keys.iter().map(|key| Some(key.to_string()))),
            [_, Frame::Null] => self.told.push(None),
            _ => panic!("no invalidation: {push:?}"),
        }
    }

    /// Reads a key until the node answers with its value; what was told before is of no interest any more.
    fn read(&mut self, key: &str, value: &str) {
        let begun = Instant::now();
        while self.ask(&format!("GET {key}")) != format!("\"{value}\"") {
            assert!(begun.elapsed() < LIMIT, "{key} is not read");
            std::thread::sleep(Duration::from_millis(20));
        }
        self.told.clear();
    }

    /// Until it is told that a key has changed, or that everything may have (which any node may say that was not let
    /// run for a while).
    fn hears_of(&mut self, key: &str) {
        let is_told = |told: &Option<String>| told.as_ref().is_none_or(|told| *told == format!("\"{key}\""));
        while !self.told.iter().any(is_told) {
            self.frame();
        }
    }

    fn hears_of_everything(&mut self) {
        while !self.told.contains(&None) {
            self.frame();
        }
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
    let mut near_leader = Tracking::open(cluster.ports[leader], "");
    let mut near_follower = Tracking::open(cluster.ports[follower], "");
    let mut listener = Tracking::open(cluster.ports[follower], " BCAST PREFIX key:");
    near_leader.read("key:0", "value 0");
    near_follower.read("key:0", "value 0");
    assert_eq!(cluster.ask(&["SET", "key:0", "second"]), "+OK");
    for connection in [&mut near_leader, &mut near_follower, &mut listener] {
        connection.hears_of("key:0");
    }
    near_follower.read("key:0", "second");
    listener.told.clear();
    // The follower is left alone: it leads its own shard without a quorum, and follows the others without a leader.
    for other in (0..NODES).filter(|other| *other != follower) {
        cluster.kill(other);
    }
    let begun = Instant::now();
    near_follower.hears_of_everything();
    listener.hears_of_everything();
    assert!(begun.elapsed() < LIMIT / 4, "told after {:?}", begun.elapsed());
    for other in (0..NODES).filter(|other| *other != follower) {
        cluster.run(other);
    }
    cluster.serves();
    assert_eq!(cluster.ask(&["SET", "key:0", "third"]), "+OK");
    near_follower.read("key:0", "third");
    assert_eq!(cluster.ask(&["SET", "key:0", "fourth"]), "+OK");
    near_follower.hears_of("key:0");
}

#[test]
fn reads_between_writes_are_answered_before_the_invalidation_that_overtakes_them() {
    const ROUNDS: usize = 8;
    const REQUESTS: usize = 40;
    let cluster = Cluster::start("overtaken", &["--durability", "memory"]);
    assert_eq!(cluster.ask(&["SET", "{t}k", "0"]), "+OK");
    let port = cluster.ports[leader_of(&cluster, "{t}k")];
    let mut cache = Tracking::open(port, "");
    for round in 0..ROUNDS {
        // The value that the cache holds, as the frames come.
        let mut held = None;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..REQUESTS).for_each(|n| drop(ask(port, &["SET", "{t}k", &format!("{round}:{n}")])))
            });
            for n in 0..REQUESTS {
                // The three travel through the log as one, the read among them.
                let requests = format!("SET {{t}}own {n}\r\nGET {{t}}k\r\nSET {{t}}own x\r\n");
                cache.stream.write_all(requests.as_bytes()).unwrap();
                let mut replies = 0;
                while replies < 3 {
                    match cache.frame() {
                        Some(reply) => {
                            replies += 1;
                            if replies == 2 {
                                held = Some(reply.to_string());
                            }
                        }
                        None => held = None,
                    }
                }
            }
        });
        cache.told.clear();
        assert_eq!(cache.ask("PING"), "PONG");
        let dropped = !cache.told.is_empty();
        let truth = cache.ask("GET {t}k");
        assert!(dropped || held.is_none_or(|held| held == truth), "stale for ever in round {round}");
    }
}

#[test]
fn who_waits_is_told_meanwhile_and_waits_no_longer_for_it() {
    let cluster = Cluster::start("meanwhile", &["--durability", "memory"]);
    assert_eq!(cluster.ask(&["SET", "{t}k", "0"]), "+OK");
    let port = cluster.ports[leader_of(&cluster, "{t}k")];
    let change = || assert_eq!(ask(port, &["SET", "{t}k", "1"]).unwrap(), "+OK");
    // For more copies than there are; for changes far ahead.
    let wait = |ms: u64| (format!("WAIT 5 {ms}\r\n"), "(integer) 2");
    let read = |ms: u64| (format!("XREAD BLOCK {ms} STREAMS __inval__:{{t}} 9999999-0\r\n"), "(nil)");
    let open = || {
        let mut cache = Tracking::open(port, " BCAST PREFIX {t}k");
        assert_eq!(cache.ask("SET {t}own 1"), "OK");
        cache
    };
    for (for_ever, (limited, answer)) in [(wait(0).0, wait(300)), (read(0).0, read(300))] {
        let mut cache = open();
        cache.stream.write_all(for_ever.as_bytes()).unwrap();
        for _ in 0..5 {
            let told = cache.told.len();
            change();
            while cache.told.len() == told {
                assert!(cache.frame().is_none(), "answered: {for_ever}");
            }
        }
        let mut cache = open();
        let begun = Instant::now();
        cache.stream.write_all(limited.as_bytes()).unwrap();
        let reply = loop {
            change();
            if let Some(reply) = cache.frame() {
                break reply.to_string();
            }
        };
        assert_eq!(reply, answer, "{limited}");
        assert!(begun.elapsed() >= Duration::from_millis(300), "{limited}: {:?}", begun.elapsed());
    }
}
