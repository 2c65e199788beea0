//! A node under test, and a client that speaks frames.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use slotcast_wire::args::OwnedArgs;
use slotcast_wire::frame::{Frame, FrameDecoder};

/// Longest wait for anything.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A running node, killed when dropped.
pub struct Node {
    pub child: Child,
    pub port: u16,
}

impl Node {
    /// Starts a node with further flags, and waits until it answers.
    pub fn start(flags: &[&str]) -> Node {
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let child = Command::new(env!("CARGO_BIN_EXE_slotcast"))
            .args(["--port", &port.to_string(), "--dir", env!("CARGO_TARGET_TMPDIR")])
            .args(flags)
            .stdout(Stdio::null())
            .spawn()
            .expect("the node starts");
        let node = Node { child, port };
        let since = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(since.elapsed() < LIMIT, "the node does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        node
    }

    pub fn connect(&self) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("a connection");
        stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Client { stream, decoder: FrameDecoder::default(), unread: Vec::new() }
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
