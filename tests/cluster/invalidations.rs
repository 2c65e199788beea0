//! The stream of invalidations goes on where it stood: after a reconnect, at another node, through the death of a leader.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use slotcast_wire::frame::{Frame, FrameDecoder};
use slotcast_wire::invalidation::{Push, Reason, read_push, read_stamp};
use slotcast_wire::position::Position;
use slotcast_wire::slot::slot_of;

use crate::nodes::{Cluster, LIMIT, NODES, ask};

/// A RESP3 connection.
struct Stream {
    socket: TcpStream,
    decoder: FrameDecoder,
    received: Vec<u8>,
}

impl Stream {
    fn open(port: u16) -> Stream {
        let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let mut stream = Stream { socket, decoder: FrameDecoder::default(), received: Vec::new() };
        stream.ask("HELLO 3");
        stream
    }

    /// Subscribes at a node that has a copy of every shard, once it has opened them; the status of each shard and where
    /// it begins.
    fn subscribe(port: u16, rest: &str) -> (Stream, BTreeMap<u32, (String, Position)>) {
        let begun = Instant::now();
        loop {
            let (stream, shards) = Self::try_subscribe(port, rest);
            if shards.values().all(|(status, _)| status != "notserved") {
                return (stream, shards);
            }
            assert!(begun.elapsed() < LIMIT, "{shards:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn try_subscribe(port: u16, rest: &str) -> (Stream, BTreeMap<u32, (String, Position)>) {
        let mut stream = Stream::open(port);
        let Frame::Map(shards) = stream.ask(&format!("INVALIDATIONS SUBSCRIBE HEARTBEAT 50 {rest}")) else {
            panic!("a map of shards")
        };
        let one = |(shard, start): (Frame, Frame)| {
            let (Frame::Integer(shard), Frame::Array(start)) = (shard, start) else { panic!() };
            let [Frame::Bulk(status), Frame::Integer(lineage), Frame::Integer(index), ..] = &start[..] else {
                panic!("{start:?}")
            };
            let position = Position { shard: shard as u32, lineage: *lineage as u64, index: *index as u64 };
            (shard as u32, (String::from_utf8_lossy(status).into_owned(), position))
        };
        (stream, shards.into_iter().map(one).collect())
    }

    fn ask(&mut self, request: &str) -> Frame {
        self.socket.write_all(format!("{request}\r\n").as_bytes()).unwrap();
        loop {
            match self.next() {
                Frame::Push(_) => {}
                frame => return frame,
            }
        }
    }

    fn next(&mut self) -> Frame {
        loop {
            let (taken, frame) = self.decoder.decode(&self.received).unwrap();
            self.received.drain(..taken);
            if let Some(frame) = frame {
                return frame;
            }
            let mut bytes = [0; 4096];
            let count = self.socket.read(&mut bytes).unwrap();
            assert!(count > 0, "the connection is closed");
            self.received.extend_from_slice(&bytes[..count]);
        }
    }

    fn push(&mut self) -> Push {
        read_push(&self.next()).expect("a push of the stream")
    }

    /// The keys named until `last` is; intervals must join each other.
    fn keys_until(&mut self, last: &str, at: &mut BTreeMap<u32, Position>) -> Vec<String> {
        let mut named = Vec::new();
        loop {
            match self.push() {
                Push::Keys { to, from, keys } => {
                    assert_eq!(at.insert(to.shard, to).map(|before| before.index), Some(from), "no gap");
                    named.extend(keys.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()));
                }
                Push::Slots { .. } => panic!("nothing is to be flushed"),
                Push::Heartbeat(_) => {}
            }
            if named.iter().any(|key| key == last) {
                return named;
            }
        }
    }
}

fn positions(shards: &BTreeMap<u32, (String, Position)>) -> BTreeMap<u32, Position> {
    shards.iter().map(|(shard, (_, position))| (*shard, *position)).collect()
}

fn from(at: &BTreeMap<u32, Position>) -> String {
    at.values().fold("FROM".to_owned(), |text, position| format!("{text} {position}"))
}

/// The port of a key's leader.
fn leader(cluster: &Cluster, key: &str) -> usize {
    let begun = Instant::now();
    loop {
        for n in 0..NODES {
            if ask(cluster.ports[n], &["EXISTS", key]).is_ok_and(|answer| answer.starts_with(':')) {
                return n;
            }
        }
        assert!(begun.elapsed() < LIMIT, "nobody leads");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_subscriber_that_was_away_is_told_exactly_what_has_changed_wherever_it_comes_back() {
    let mut cluster = Cluster::start("stream", &[]);
    let (stream, shards) = Stream::subscribe(cluster.ports[0], "");
    assert!(shards.values().all(|(status, _)| status == "fresh"), "{shards:?}");
    let mut at = positions(&shards);
    drop(stream);
    cluster.write(0..30);
    // At another node.
    let (mut stream, shards) = Stream::subscribe(cluster.ports[1], &from(&at));
    assert!(shards.values().all(|(status, _)| status == "resumed" || status == "behind"), "{shards:?}");
    cluster.ask(&["SET", "last", "1"]);
    let mut named = stream.keys_until("last", &mut at);
    named.sort();
    named.dedup();
    assert_eq!(named.len(), 31, "each key once: {named:?}");
    // The key's leader dies, the stream at a survivor goes on.
    let dead = leader(&cluster, "last");
    let (mut stream, _) = Stream::subscribe(cluster.ports[(dead + 1) % NODES], &from(&at));
    cluster.kill(dead);
    cluster.ask(&["SET", "last", "2"]);
    assert!(stream.keys_until("last", &mut at).contains(&"last".to_owned()));
    // And at the one that was dead, once it is back.
    cluster.run(dead);
    cluster.serves();
    cluster.ask(&["SET", "again", "3"]);
    let (mut stream, shards) = Stream::subscribe(cluster.ports[dead], &from(&at));
    assert!(shards.values().all(|(status, _)| status == "resumed" || status == "behind"), "{shards:?}");
    assert!(stream.keys_until("again", &mut at).contains(&"again".to_owned()));
}

#[test]
fn heartbeats_of_a_copy_that_is_cut_off_grow_old() {
    let mut cluster = Cluster::start("heartbeat", &["--durability", "memory"]);
    let last = leader(&cluster, "probe");
    let (mut stream, _) = Stream::subscribe(cluster.ports[last], "");
    let age = |stream: &mut Stream| loop {
        if let Push::Heartbeat(positions) = stream.push() {
            return positions.iter().map(|(_, age)| *age).max().expect("a shard");
        }
    };
    let begun = Instant::now();
    while age(&mut stream) > 500 {
        assert!(begun.elapsed() < LIMIT, "heartbeats of a healthy cluster are young");
    }
    (0..NODES).filter(|n| *n != last).for_each(|n| cluster.kill(n));
    while age(&mut stream) < 1_500 {
        assert!(begun.elapsed() < LIMIT, "nobody stands behind it any more");
    }
}

#[test]
fn what_the_log_does_not_reach_back_to_is_flushed_a_shard_alone() {
    let cluster = Cluster::start("window", &["--invalidation-window-bytes", "100000"]);
    let (stream, shards) = Stream::subscribe(cluster.ports[0], "");
    let mut at = positions(&shards);
    drop(stream);
    let tag = "{tag}";
    let filler: String = "k".repeat(4000);
    for n in 0..80 {
        cluster.ask(&["SET", &format!("{tag}:{n}:{filler}"), "1"]);
    }
    let (mut stream, shards) = Stream::subscribe(cluster.ports[leader(&cluster, tag)], &from(&at));
    let flushed: Vec<u32> =
        shards.iter().filter(|(_, (status, _))| status == "flush").map(|(shard, _)| *shard).collect();
    assert_eq!(flushed.len(), 1, "{shards:?}");
    at.extend(positions(&shards));
    cluster.ask(&["SET", "other", "1"]);
    cluster.ask(&["SET", tag, "1"]);
    stream.keys_until(tag, &mut at);
    // FLUSHALL at one leader is a flush of its shards.
    let port = cluster.ports[leader(&cluster, tag)];
    assert_eq!(ask(port, &["FLUSHALL"]).unwrap(), "+OK");
    let slots = loop {
        if let Push::Slots { slots, reason, .. } = stream.push() {
            assert_eq!(reason, Reason::Flushed);
            break slots;
        }
    };
    assert!(slots.iter().any(|(first, last)| (*first..=*last).contains(&slot_of(tag.as_bytes()))));
}

#[test]
fn stamps_say_as_of_when_a_reply_is_true() {
    // Rare housekeeping: a history begins with the first write, not when somebody gets round to it.
    let cluster = Cluster::start("stamp", &["--durability", "memory", "--hz", "1"]);
    let port = cluster.ports[leader(&cluster, "k")];
    let mut client = Stream::open(port);
    assert_eq!(client.ask("CLIENT STAMP ON"), Frame::Simple("OK".into()));
    let mut stamped = |request: &str| match client.ask(request) {
        Frame::Attributed(attributes, reply) => (read_stamp(&attributes).expect("a stamp"), *reply),
        frame => panic!("{request}: no stamp in front of {frame}"),
    };
    let ((written, remaining), _) = stamped("SET k v PX 50000");
    assert!((1..=50_000).contains(&remaining));
    let hits = || {
        let stats = ask(port, &["INFO", "stats"]).unwrap();
        let hits = stats.lines().find_map(|line| line.strip_prefix("keyspace_hits:")).unwrap();
        hits.parse::<u64>().unwrap()
    };
    let before = hits();
    let ((read, _), value) = stamped("GET k");
    assert_eq!(hits(), before + 1, "a stamp counts for nothing");
    assert_eq!(value, Frame::Bulk(b"v".to_vec()));
    assert_eq!((read.shard, read.lineage), (written.shard, written.lineage));
    assert!(read.index >= written.index && written.lineage > 0);
    let ((deleted, remaining), _) = stamped("DEL k");
    assert!(deleted.index > written.index && remaining == -2);
}

#[test]
fn ordinary_clients_read_the_log_as_a_stream_and_go_on_at_another_node() {
    let mut cluster = Cluster::start("xread", &["--durability", "memory"]);
    let tag = "__inval__:{tag}";
    let home = leader(&cluster, "{tag}");
    let mut client = Stream::open(cluster.ports[home]);
    assert_eq!(client.ask(&format!("XREAD STREAMS {tag} $")), Frame::Null);
    // A history may begin with this one, which the log does not reach back to then.
    cluster.ask(&["SET", "{tag}:0", "x"]);
    cluster.ask(&["SET", "{tag}:1", "x"]);
    let mut after = "0".to_owned();
    let mut next = |client: &mut Stream, wanted: &str| loop {
        let text = client.ask(&format!("XREAD COUNT 1 BLOCK 20000 STREAMS {tag} {after}")).to_string();
        let words: Vec<&str> = text.split('"').skip(1).step_by(2).collect();
        assert_eq!(words.first(), Some(&tag), "{text}");
        after = words[1].to_owned();
        match words[4..] {
            ["key", key, ..] if key == wanted => return,
            ["flush", "window", ..] | ["key", "{tag}:0", ..] if wanted == "{tag}:1" => {}
            _ => panic!("{text}"),
        }
    };
    next(&mut client, "{tag}:1");
    let port = cluster.ports[home];
    let writer = std::thread::spawn(move || {
        // The stream of the other connection is silent: it waits.
        let begun = Instant::now();
        while !ask(port, &["CLIENT", "LIST"]).unwrap().contains("cmd=xread") {
            assert!(begun.elapsed() < LIMIT, "nobody reads");
            std::thread::sleep(Duration::from_millis(10));
        }
        ask(port, &["SET", "{tag}:2", "x"]).unwrap()
    });
    next(&mut client, "{tag}:2");
    assert_eq!(writer.join().unwrap(), "+OK");
    cluster.kill(home);
    cluster.ask(&["DEL", "{tag}:1"]);
    let mut client = Stream::open(cluster.ports[(home + 1) % NODES]);
    next(&mut client, "{tag}:1");
    assert!(client.ask("XREAD STREAMS {tag} 0").to_string().contains("Only invalidation logs"));
    assert!(client.ask(&format!("XRANGE {tag} - + COUNT 2")).to_string().contains("{tag}:1"));
}

#[test]
fn heartbeats_do_not_wait_for_changes_to_be_gathered() {
    let cluster = Cluster::start("gathering", &["--durability", "memory"]);
    let (mut stream, _) = Stream::subscribe(cluster.ports[0], "MAXDELAY 1000000");
    let begun = Instant::now();
    let mut heartbeats = 0;
    while heartbeats < 20 {
        heartbeats += usize::from(matches!(stream.push(), Push::Heartbeat(_)));
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "one a second: {:?}", begun.elapsed());
}

#[test]
fn changes_that_are_gathered_come_in_fewer_pushes_and_none_is_left_out() {
    let cluster = Cluster::start("delay", &["--durability", "memory"]);
    let (mut stream, shards) = Stream::subscribe(cluster.ports[0], "HEARTBEAT 5000 MAXDELAY 300000");
    let mut at = positions(&shards);
    cluster.ask(&["SET", "{tag}:first", "x"]);
    stream.keys_until("{tag}:first", &mut at);
    let (begun, port) = (Instant::now(), cluster.ports[leader(&cluster, "{tag}")]);
    let keys: Vec<String> = (0..200).map(|n| format!("{{tag}}:{n}")).collect();
    keys.iter().for_each(|key| assert_eq!(ask(port, &["SET", key, "x"]).unwrap(), "+OK"));
    let (mut named, mut pushes) = (Vec::new(), 0);
    while !named.contains(&keys[199]) {
        if let Push::Keys { to, from, keys } = stream.push() {
            assert_eq!(at.insert(to.shard, to).map(|before| before.index), Some(from), "no gap");
            named.extend(keys.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()));
            pushes += 1;
        }
    }
    assert_eq!(named, keys, "each once, in order");
    let elapsed = begun.elapsed();
    let most = 2 + elapsed.as_millis() / 300;
    assert!(pushes <= most && most < 100, "{pushes} pushes of 200 changes in {elapsed:?}");
}
