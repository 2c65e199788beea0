//! One connection to a node, shared by all who ask: requests go out as they come, replies are matched in order.
//!
//! A task owns the socket. How many requests may be under way is bounded by permits that travel with the requests; who
//! finds none left waits. If the connection ends, every request learns whether it may have reached the node.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use slotcast_wire::args::encode;
use slotcast_wire::frame::{Frame, FrameDecoder};
use slotcast_wire::invalidation::read_stamp;
use slotcast_wire::position::Position;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

/// Requests under way on one connection; more wait.
const MAX_IN_FLIGHT: usize = 1024;
/// Bytes gathered before they are written; more requests wait in their queue.
const MAX_GATHERED: usize = 64 << 10;
/// A node that has said nothing for so long, though it was asked, is taken for dead. Longer than a cluster holds a
/// request through a failover.
const SILENCE: Duration = Duration::from_secs(4);
const CONNECT: Duration = Duration::from_secs(1);
const READ_AT_ONCE: usize = 64 << 10;

/// A reply, and as of when it is true.
#[derive(Debug)]
pub struct Answer {
    /// The reply itself.
    pub frame: Frame,
    /// The position, and the key's remaining time as PTTL says it.
    pub stamp: Option<(Position, i64)>,
}

/// Why there is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The node has certainly not seen the request.
    Unsent,
    /// It may have.
    Sent,
}

type Reply = oneshot::Receiver<Result<Answer, Lost>>;

struct Asked {
    request: Vec<u8>,
    reply: oneshot::Sender<Result<Answer, Lost>>,
    permit: OwnedSemaphorePermit,
}

/// See the module's documentation. When it is dropped, the socket is closed.
#[derive(Clone, Debug)]
pub struct Connection {
    asked: mpsc::Sender<Asked>,
    permits: Arc<Semaphore>,
}

impl Connection {
    /// Connects and says which protocol, and that replies are to be stamped. The text says why not.
    pub async fn open(address: &str) -> Result<Connection, String> {
        let mut stream = dial(address).await?;
        let mut requests = request(&["HELLO", "3"]);
        requests.extend(request(&["CLIENT", "STAMP", "ON"]));
        stream.write_all(&requests).await.map_err(|error| error.to_string())?;
        let (asked, queue) = mpsc::channel(MAX_IN_FLIGHT);
        let mut socket = Socket { stream, input: BytesMut::new(), decoder: FrameDecoder::default() };
        for _ in 0..2 {
            let frame = timeout(SILENCE, socket.frame()).await.map_err(|_| "no reply to HELLO".to_owned())?;
            let frame = frame.map_err(|error| error.to_string())?;
            if let Some(error) = frame.as_error() {
                return Err(error.into_owned());
            }
        }
        tokio::spawn(Link { socket, queue, output: BytesMut::new(), waiting: VecDeque::new() }.run());
        Ok(Connection { asked, permits: Arc::new(Semaphore::new(MAX_IN_FLIGHT)) })
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.asked.is_closed()
    }

    /// Sends a request, whole, and waits for its reply.
    pub async fn ask(&self, request: Vec<u8>) -> Result<Answer, Lost> {
        self.send(request).await?.await.unwrap_or(Err(Lost::Sent))
    }

    /// Sends requests, one behind the other, and waits for their replies.
    pub async fn ask_all(&self, requests: Vec<Vec<u8>>) -> Vec<Result<Answer, Lost>> {
        let mut sent = Vec::with_capacity(requests.len());
        for request in requests {
            sent.push(self.send(request).await);
        }
        let mut answers = Vec::with_capacity(sent.len());
        for sent in sent {
            answers.push(match sent {
                Ok(answer) => answer.await.unwrap_or(Err(Lost::Sent)),
                Err(lost) => Err(lost),
            });
        }
        answers
    }

    async fn send(&self, request: Vec<u8>) -> Result<Reply, Lost> {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| Lost::Unsent)?;
        let (reply, answer) = oneshot::channel();
        self.asked.send(Asked { request, reply, permit }).await.map_err(|_| Lost::Unsent)?;
        Ok(answer)
    }
}

/// A request's bytes.
pub fn request<T: AsRef<[u8]>>(words: &[T]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(words.iter(), &mut bytes);
    bytes
}

/// A socket to `host:port`.
pub async fn dial(address: &str) -> Result<TcpStream, String> {
    let stream = timeout(CONNECT, TcpStream::connect(address)).await;
    let stream = stream.map_err(|_| format!("{address} does not answer"))?;
    let stream = stream.map_err(|error| format!("{address}: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    Ok(stream)
}

/// A socket that frames are read from.
#[derive(Debug)]
pub struct Socket {
    /// Where they come from.
    pub stream: TcpStream,
    /// What has been read and not taken.
    pub input: BytesMut,
    /// Takes it.
    pub decoder: FrameDecoder,
}

impl Socket {
    /// The next frame. Nothing is lost when this is dropped midway.
    pub async fn frame(&mut self) -> std::io::Result<Frame> {
        loop {
            if let Some(frame) = self.parsed()? {
                return Ok(frame);
            }
            self.read().await?;
        }
    }

    /// The next frame if it is here.
    pub fn parsed(&mut self) -> std::io::Result<Option<Frame>> {
        let (taken, frame) = self.decoder.decode(&self.input).map_err(std::io::Error::other)?;
        self.input.advance(taken);
        Ok(frame)
    }

    async fn read(&mut self) -> std::io::Result<()> {
        self.input.reserve(READ_AT_ONCE);
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// The task's side.
struct Link {
    socket: Socket,
    queue: mpsc::Receiver<Asked>,
    output: BytesMut,
    waiting: VecDeque<(oneshot::Sender<Result<Answer, Lost>>, OwnedSemaphorePermit)>,
}

impl Link {
    async fn run(mut self) {
        // The reason doesn't matter: who asked tries again, or tells the caller that it is unknown.
        let _ = self.serve().await;
        self.queue.close();
        while let Ok(asked) = self.queue.try_recv() {
            let _ = asked.reply.send(Err(Lost::Unsent));
        }
        self.waiting.drain(..).for_each(|(reply, _)| drop(reply.send(Err(Lost::Sent))));
    }

    async fn serve(&mut self) -> std::io::Result<()> {
        let mut heard = Instant::now();
        loop {
            let Link { socket: Socket { stream, input, .. }, queue, output, waiting } = self;
            input.reserve(READ_AT_ONCE);
            let (mut reader, mut writer) = stream.split();
            tokio::select! {
                read = reader.read_buf(input) => {
                    if read? == 0 {
                        return Ok(());
                    }
                    heard = Instant::now();
                    self.take_replies()?;
                }
                written = writer.write_buf(output), if !output.is_empty() => drop(written?),
                asked = queue.recv(), if output.len() < MAX_GATHERED => {
                    let Some(asked) = asked else { return Ok(()) };
                    if waiting.is_empty() {
                        heard = Instant::now();
                    }
                    self.send(asked);
                }
                _ = sleep_until(heard + SILENCE), if !waiting.is_empty() => return Ok(()),
            }
        }
    }

    fn send(&mut self, first: Asked) {
        let mut next = Some(first);
        while let Some(Asked { request, reply, permit }) = next {
            self.output.extend_from_slice(&request);
            self.waiting.push_back((reply, permit));
            next = if self.output.len() < MAX_GATHERED { self.queue.try_recv().ok() } else { None };
        }
    }

    fn take_replies(&mut self) -> std::io::Result<()> {
        while let Some(frame) = self.socket.parsed()? {
            let answer = match frame {
                Frame::Push(_) => continue,
                Frame::Attributed(attributes, frame) => {
                    Answer { frame: *frame, stamp: read_stamp(&attributes) }
                }
                frame => Answer { frame, stamp: None },
            };
            let unasked = || std::io::Error::other("a reply to nothing");
            let (reply, _) = self.waiting.pop_front().ok_or_else(unasked)?;
            // Whoever asked may have given up.
            let _ = reply.send(Ok(answer));
        }
        Ok(())
    }
}
