//! A node under test, and a client that speaks frames.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use slotcast_wire::args::OwnedArgs;
use slotcast_wire::frame::{Frame, FrameDecoder};

/// Longest wait for anything.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A port that no other test of this process is given, and that nobody listens on now.
fn next_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let port =
            20_000 + (std::process::id() % 200) as u16 * 50 + NEXT.fetch_add(1, Ordering::Relaxed) % 50;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A running node, killed when dropped.
pub struct Node {
    pub child: Child,
    pub port: u16,
}

impl Node {
    /// Starts a node with further flags, and waits until it answers.
    pub fn start(flags: &[&str]) -> Node {
        let since = Instant::now();
        loop {
            let port = next_port();
            let child = Command::new(env!("CARGO_BIN_EXE_slotcast"))
                .args(["--port", &port.to_string(), "--dir", env!("CARGO_TARGET_TMPDIR")])
                .args(flags)
                .stdout(Stdio::null())
                .spawn()
                .expect("the node starts");
            let mut node = Node { child, port };
            // A node that finds its port taken ends; the next port may be free.
            while node.child.try_wait().expect("its state").is_none() {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return node;
                }
                assert!(since.elapsed() < LIMIT, "the node does not listen");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    pub fn connect(&self) -> Client {
        connect(self.port)
    }

    /// Bytes of memory the process holds.
    pub fn resident(&self) -> usize {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).expect("statm");
        statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("pages") * 4096
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connects to a server on this machine.
pub fn connect(port: u16) -> Client {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    Client { stream, decoder: FrameDecoder::default(), unread: Vec::new() }
}

/// A connection.
pub struct Client {
    pub stream: TcpStream,
    decoder: FrameDecoder,
    unread: Vec<u8>,
}

impl Client {
    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the node takes bytes");
    }

    /// The next frame; `None`: the node has closed the connection.
    pub fn next(&mut self) -> Option<Frame> {
        let mut chunk = [0; 64 << 10];
        loop {
            let (used, frame) = self.decoder.decode(&self.unread).expect("well-formed frames");
            self.unread.drain(..used);
            if frame.is_some() {
                return frame;
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(count) => self.unread.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no frame: {error}"),
            }
        }
    }

    /// One request, its words split at spaces, and its reply as text.
    pub fn ask(&mut self, line: &str) -> String {
        let args: OwnedArgs = line.split(' ').collect();
        self.send(args.encoded());
        self.next().map_or("closed".into(), |frame| frame.to_string())
    }
}
