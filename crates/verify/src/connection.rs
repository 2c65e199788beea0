//! One connection to one node: requests out, their replies in, and what it means when that fails.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use slotcast_wire::args;
use slotcast_wire::frame::{Frame, FrameDecoder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A node on the same machine that takes longer is not there.
const CONNECT: Duration = Duration::from_millis(400);

/// Times that a node sent what nobody had asked for: it must never.
static UNASKED: AtomicUsize = AtomicUsize::new(0);

/// Times so far that a node sent what nobody had asked for.
pub fn unasked() -> usize {
    UNASKED.load(Ordering::Relaxed)
}

/// Why there is no answer. The connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// There was no connection, so that nothing was done.
    NotSent,
    /// Closed, broken or silent after sending began.
    Lost,
}

/// An open connection.
pub struct Connection {
    stream: TcpStream,
    decoder: FrameDecoder,
    received: Vec<u8>,
}

impl Connection {
    /// Connects to a node.
    pub async fn open(node: SocketAddr) -> Result<Connection, Silence> {
        let stream = timeout(CONNECT, TcpStream::connect(node)).await;
        let stream = stream.ok().and_then(Result::ok).ok_or(Silence::NotSent)?;
        let _ = stream.set_nodelay(true);
        Ok(Connection { stream, decoder: FrameDecoder::default(), received: Vec::new() })
    }

    /// Whether the node has closed it, or said what it wasn't asked.
    pub fn is_stale(&self) -> bool {
        let read = self.stream.try_read(&mut [0; 1]);
        if !self.received.is_empty() || read.as_ref().is_ok_and(|count| *count > 0) {
            UNASKED.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        !matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends requests at once and waits for a reply to each.
    pub async fn exchange(
        &mut self,
        requests: &[Vec<String>],
        patience: Duration,
    ) -> Result<Vec<Frame>, Silence> {
        let mut bytes = Vec::new();
        requests.iter().for_each(|words| args::encode(words.iter(), &mut bytes));
        let whole = async {
            self.stream.write_all(&bytes).await?;
            let mut replies = Vec::new();
            while replies.len() < requests.len() {
                replies.push(self.reply().await?);
            }
            io::Result::Ok(replies)
        };
        timeout(patience, whole).await.ok().and_then(Result::ok).ok_or(Silence::Lost)
    }

    async fn reply(&mut self) -> io::Result<Frame> {
        loop {
            let (used, frame) =
                self.decoder.decode(&self.received).map_err(|_| io::ErrorKind::InvalidData)?;
            self.received.drain(..used);
            if let Some(frame) = frame {
                return Ok(frame);
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// A request's words.
pub fn request(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// One request on a connection of its own.
pub async fn ask(node: SocketAddr, words: &[&str], patience: Duration) -> Option<Frame> {
    let mut connection = Connection::open(node).await.ok()?;
    connection.exchange(&[request(words)], patience).await.ok()?.pop()
}
