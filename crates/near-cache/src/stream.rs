//! One connection to one node, on which the node tells what has changed.
//!
//! A task owns the socket: it passes on what arrives, and sends what it is given. What arrives waits in a queue that is
//! bounded; while it is full nothing is read, and the node then tells less exactly.
//!
//! A heartbeat says how long ago a quorum stood behind the stream, by the server's clock, as of when it was *written*; it
//! may have been on its way for long. So the cache asks now and then (INVALIDATIONS ACK) and counts a heartbeat's age
//! from when it asked the last question that was answered before it: then no delay makes old news look new.

use std::collections::VecDeque;
use std::io::Error as IoError;
use std::time::Duration;

use bytes::BytesMut;
use slotcast_wire::frame::{Frame, FrameDecoder};
use slotcast_wire::invalidation::{Push, read_push};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::connection::{Socket, dial, request};
use crate::follow::Node;

/// A node must have answered within this.
const ANSWER: Duration = Duration::from_secs(2);
/// Requests that may wait to be sent; a node that takes none is given up.
const MAX_UNSENT: usize = 16;

/// What a stream tells whoever follows it.
#[derive(Debug)]
pub struct Told {
    /// By which node.
    pub node: Node,
    /// On which of the connections to it.
    pub stream: u64,
    /// What.
    pub what: What,
}

/// See [`Told`].
#[derive(Debug)]
pub enum What {
    /// Something has changed, or not.
    Push(Push),
    /// The reply to a request.
    Reply(Frame),
    /// The connection has ended, or could not be made. Why doesn't matter: what was missed is told by the next node.
    Lost,
}

/// See the module's documentation. When it is dropped, the connection is closed.
#[derive(Debug)]
pub struct Stream {
    /// Tells it from others to the same node.
    pub id: u64,
    unsent: mpsc::Sender<Vec<u8>>,
    task: JoinHandle<()>,
    /// When each request was made that isn't answered yet.
    asked: VecDeque<Duration>,
    /// When the last one was that is.
    answered: Duration,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Stream {
    /// Begins to connect to `node`, which is reached at `address`. After `silence` it is taken for dead.
    pub fn open(
        (node, address, id): (Node, String, u64),
        silence: Duration,
        told: mpsc::Sender<Told>,
        now: Duration,
    ) -> Stream {
        let (unsent, requests) = mpsc::channel(MAX_UNSENT);
        let task = tokio::spawn(async move {
            let link = Link { node, stream: id, told, requests };
            // What became of it is told; if nobody listens any more, all is over.
            let _ = link.run(&address, silence).await;
        });
        Stream { id, unsent, task, asked: VecDeque::new(), answered: now }
    }

    /// Sends a request. False: the node takes none.
    pub fn send<T: AsRef<[u8]>>(&mut self, words: &[T], now: Duration) -> bool {
        self.asked.push_back(now);
        self.unsent.try_send(request(words)).is_ok()
    }

    /// A reply has come.
    pub fn answer(&mut self) {
        self.answered = self.asked.pop_front().unwrap_or(self.answered);
    }

    /// All that was asked is answered.
    pub fn is_idle(&self) -> bool {
        self.asked.is_empty()
    }

    /// A time before which the node has not written what it tells now.
    pub fn answered(&self) -> Duration {
        self.answered
    }

    /// The node hasn't answered for too long.
    pub fn is_overdue(&self, now: Duration) -> bool {
        self.asked.front().is_some_and(|asked| now.saturating_sub(*asked) > ANSWER)
    }
}

/// The task's side.
struct Link {
    node: Node,
    stream: u64,
    told: mpsc::Sender<Told>,
    requests: mpsc::Receiver<Vec<u8>>,
}

impl Link {
    async fn run(mut self, address: &str, silence: Duration) -> Result<(), mpsc::error::SendError<Told>> {
        if let Ok(mut socket) = self.connect(address).await {
            while let Ok(frame) = self.next(&mut socket, silence).await {
                let what = match read_push(&frame) {
                    Some(push) => What::Push(push),
                    None if matches!(frame, Frame::Push(_)) => continue,
                    None => What::Reply(frame),
                };
                self.tell(what).await?;
            }
        }
        self.tell(What::Lost).await
    }

    async fn tell(&self, what: What) -> Result<(), mpsc::error::SendError<Told>> {
        self.told.send(Told { node: self.node.clone(), stream: self.stream, what }).await
    }

    async fn connect(&self, address: &str) -> std::io::Result<Socket> {
        let stream = dial(address).await.map_err(IoError::other)?;
        let mut socket = Socket { stream, input: BytesMut::new(), decoder: FrameDecoder::default() };
        socket.stream.write_all(&request(&["HELLO", "3"])).await?;
        match timeout(ANSWER, socket.frame()).await??.as_error() {
            Some(error) => Err(IoError::other(error.into_owned())),
            None => Ok(socket),
        }
    }

    /// What arrives next. Meanwhile sends what there is to be sent.
    async fn next(&mut self, socket: &mut Socket, silence: Duration) -> std::io::Result<Frame> {
        let next = async {
            loop {
                tokio::select! {
                    frame = socket.frame() => return frame,
                    request = self.requests.recv() => {
                        let request = request.ok_or(std::io::ErrorKind::BrokenPipe)?;
                        socket.stream.write_all(&request).await?;
                    }
                }
            }
        };
        timeout(silence, next).await?
    }
}
