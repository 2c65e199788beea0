//! A script of several connections: requests in, replies and pushes out below each. Played against a node and, where
//! redis-server is installed, against that; see the script for its form. `UPDATE_GOLDEN=1` writes it anew as the node
//! answers: then read the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use slotcast_wire::frame::Frame;

use crate::node::{Client, LIMIT, Node, connect};

/// From here on slotcast differs on purpose.
const OURS: &str = "# Otherwise than in Redis:";

/// One play: its connections.
struct Player {
    port: u16,
    connections: BTreeMap<u32, Connection>,
    /// The ids of all there were.
    ids: BTreeMap<u32, String>,
}

struct Connection {
    client: Client,
    /// Between MULTI and EXEC: nothing may be sent besides the script.
    queues: bool,
}

impl Player {
    fn connection(&mut self, number: u32) -> &mut Connection {
        let (port, ids) = (self.port, &mut self.ids);
        self.connections.entry(number).or_insert_with(|| {
            let mut client = connect(port);
            let id = client.ask("CLIENT ID");
            ids.insert(number, id.rsplit(' ').next().expect("an id").to_owned());
            Connection { client, queues: false }
        })
    }

    /// Sends a request; its reply, and what all connections were told because of it.
    fn request(&mut self, number: u32, line: &str) -> String {
        // All connections that the script has so far, and those it names now, are there.
        self.connection(number);
        let mut line = line.to_owned();
        for other in 1..=9 {
            let name = format!("{{{other}}}");
            if line.contains(&name) {
                self.connection(other);
                line = line.replace(&name, &self.ids[&other]);
            }
        }
        let connection = self.connection(number);
        connection.client.send(format!("{line}\r\n").as_bytes());
        let is_subscription = line.to_ascii_lowercase().contains("subscribe");
        let mut text = String::new();
        loop {
            let Some(frame) = connection.client.next() else {
                text.push_str("closed\n");
                break;
            };
            let is_reply = is_subscription || !is_told(&frame);
            let shown = match is_reply {
                // It names the server and its version.
                true if line.starts_with("HELLO") => "hello".into(),
                true => frame.to_string(),
                false => format!("{number}< {}", told(&frame)),
            };
            writeln!(text, "{}", shown.trim_end_matches('\n')).expect("a string takes all");
            if is_reply {
                break;
            }
        }
        let word = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
        connection.queues = match word.as_str() {
            "MULTI" => true,
            "EXEC" | "DISCARD" | "RESET" => false,
            _ => connection.queues,
        };
        if word == "QUIT" {
            self.connections.remove(&number);
            // It is gone for the others once it is no longer listed.
            self.await_gone();
        }
        self.settle(&mut text);
        self.with_names(&line, text)
    }

    /// The answer with connections' numbers in place of their ids, where ids are.
    fn with_names(&self, line: &str, text: String) -> String {
        let is_about_redirection = line.contains("GETREDIR") || line.contains("TRACKINGINFO");
        if !is_about_redirection && !text.contains("redir-broken") {
            return text;
        }
        self.ids
            .iter()
            .fold(text, |text, (number, id)| text.replace(&format!(" {id}\n"), &format!(" {{{number}}}\n")))
    }

    /// Until no more connections are listed than the script has.
    fn await_gone(&self) {
        let since = Instant::now();
        let mut look = connect(self.port);
        while look.ask("CLIENT LIST").matches(" laddr=").count() > self.connections.len() + 1 {
            assert!(since.elapsed() < LIMIT, "a connection that has quit is still there");
        }
    }

    /// Appends what the connections were told, in front of the answers to a further request of each. CLIENT ID answers
    /// with a number, or an error in RESP2's pub/sub mode, and leaves CLIENT CACHING as it is.
    fn settle(&mut self, text: &mut String) {
        for (number, connection) in self.connections.iter_mut().filter(|(_, connection)| !connection.queues) {
            connection.client.send(b"CLIENT ID\r\n");
            let mut pushes = BTreeSet::new();
            loop {
                match connection.client.next().expect("an answer") {
                    Frame::Integer(_) | Frame::Error(_) => break,
                    frame => pushes.insert(format!("{number}< {}", told(&frame))),
                };
            }
            pushes.iter().for_each(|push| writeln!(text, "{push}").expect("a string takes all"));
        }
    }
}

/// Whether nobody asked for the frame.
fn is_told(frame: &Frame) -> bool {
    match frame {
        Frame::Push(_) => true,
        Frame::Array(elements) => elements.first() == Some(&Frame::Bulk(b"message".to_vec())),
        _ => false,
    }
}

/// A push in one line, the keys in order.
fn told(frame: &Frame) -> String {
    let (Frame::Push(elements) | Frame::Array(elements)) = frame else { return frame.to_string() };
    let words = elements.iter().map(|element| match element {
        Frame::Bulk(word) => String::from_utf8_lossy(word).into_owned(),
        Frame::Array(keys) => {
            let keys: BTreeSet<String> = keys.iter().map(Frame::to_string).collect();
            keys.into_iter().collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The script with the answers it gets now in place of those it has.
fn played(script: &str, port: u16) -> String {
    let mut player = Player { port, connections: BTreeMap::new(), ids: BTreeMap::new() };
    let mut played = String::new();
    let mut in_answer = false;
    for line in script.lines() {
        let request = line.split_once("> ").and_then(|(number, rest)| Some((number.parse().ok()?, rest)));
        if let Some((number, request)) = request {
            writeln!(played, "{line}").expect("a string takes all");
            played.push_str(&player.request(number, request));
            in_answer = true;
            continue;
        }
        in_answer &= !line.is_empty();
        if !in_answer {
            writeln!(played, "{line}").expect("a string takes all");
        }
    }
    played
}

#[track_caller]
fn assert_same(is: &str, should: &str, whose: &str) {
    for (at, (is, should)) in is.lines().zip(should.lines()).enumerate() {
        assert_eq!(is, should, "line {}, {whose}", at + 1);
    }
    assert_eq!(is.lines().count(), should.lines().count(), "{whose} ends otherwise");
}

/// A redis-server, killed when dropped.
struct Redis {
    child: Child,
    port: u16,
}

impl Redis {
    /// None: it is not installed.
    fn start() -> Option<Redis> {
        let port =
            TcpListener::bind(("127.0.0.1", 0)).and_then(|free| free.local_addr()).expect("a port").port();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--save", "", "--appendonly", "no", "--databases", "1"])
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        let redis = Redis { child, port };
        let since = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(since.elapsed() < LIMIT, "redis-server does not listen");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Some(redis)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn who_is_told_of_what_is_as_the_script_says_and_as_redis_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tracking.txt");
    let script = std::fs::read_to_string(&path).expect("the script");
    let node = Node::start(&[]);
    let ours = played(&script, node.port);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &ours).expect("the script written");
        return;
    }
    assert_same(&ours, &script, "slotcast");
    match Redis::start() {
        Some(redis) => {
            let same = script.split(OURS).next().unwrap_or_default();
            assert_same(&played(same, redis.port), same, "redis-server")
        }
        None => println!("redis-server is not installed: compared with the script only"),
    }
}
