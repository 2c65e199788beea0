//! A network in memory, for tests and simulations: with latency out of a seed, hosts that can be cut off from each
//! other and hosts that crash.
//!
//! It behaves as TCP does where it matters: bytes arrive in order or not at all; a cut loses nothing, it only
//! holds back (and connecting across it hangs); a crash resets every connection; buffers are bounded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::bus::transport::{Halves, Listener, Transport};

/// Bytes under way in one direction of a connection; a writer waits at it.
const BUFFER: usize = 1 << 20;
/// Connections waiting to be accepted; more are refused.
const BACKLOG: usize = 64;

/// A network. A cheap handle.
#[derive(Clone)]
pub struct Network(Arc<Mutex<Wires>>);

/// One host's access to it.
pub struct Host {
    network: Network,
    addr: SocketAddr,
}

struct Wires {
    rng: SmallRng,
    latency: (Duration, Duration),
    listening: BTreeMap<SocketAddr, mpsc::Sender<(Halves, SocketAddr)>>,
    cuts: BTreeSet<(SocketAddr, SocketAddr)>,
    pipes: Vec<Arc<Mutex<Pipe>>>,
    /// Who tries to connect across a cut.
    waiting: Vec<Waker>,
}

/// One direction of a connection.
struct Pipe {
    from: SocketAddr,
    to: SocketAddr,
    chunks: Chunks<Instant>,
    cut: bool,
    reset: bool,
    /// The writing half is gone.
    ended: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }
}

impl Network {
    /// A network whose bytes take between `latency.0` and `latency.1` each way.
    pub fn new(seed: u64, latency: (Duration, Duration)) -> Network {
        Network(Arc::new(Mutex::new(Wires {
            rng: SmallRng::seed_from_u64(seed),
            latency,
            listening: BTreeMap::new(),
            cuts: BTreeSet::new(),
            pipes: Vec::new(),
            waiting: Vec::new(),
        })))
    }

    /// The host that listens on, and connects from, `addr`.
    pub fn host(&self, addr: SocketAddr) -> Host {
        Host { network: self.clone(), addr }
    }

    /// Holds back all bytes from `from` to `to` (one direction) until it is mended.
    pub fn cut(&self, from: SocketAddr, to: SocketAddr) {
        self.0.lock().cuts.insert((from, to));
        self.apply_cuts();
    }

    /// Cuts `host` off from everybody, in both directions.
    pub fn isolate(&self, host: SocketAddr) {
        let mut wires = self.0.lock();
        let others: Vec<SocketAddr> =
            wires.listening.keys().copied().filter(|other| *other != host).collect();
        wires.cuts.extend(others.iter().flat_map(|other| [(*other, host), (host, *other)]));
        drop(wires);
        self.apply_cuts();
    }

    /// Mends all cuts.
    pub fn mend(&self) {
        self.0.lock().cuts.clear();
        self.apply_cuts();
    }

    /// Resets every connection of `host` and stops its listening, as if its process were killed.
    pub fn crash(&self, host: SocketAddr) {
        let mut wires = self.0.lock();
        wires.listening.remove(&host);
        for pipe in &wires.pipes {
            let mut pipe = pipe.lock();
            if pipe.from == host || pipe.to == host {
                pipe.reset = true;
                pipe.wake();
            }
        }
    }

    fn apply_cuts(&self) {
        let mut wires = self.0.lock();
        wires.pipes.retain(|pipe| Arc::strong_count(pipe) > 1);
        for pipe in &wires.pipes {
            let mut pipe = pipe.lock();
            pipe.cut = wires.cuts.contains(&(pipe.from, pipe.to));
            pipe.wake();
        }
        wires.waiting.drain(..).for_each(Waker::wake);
    }

    fn arrival(&self) -> Instant {
        let mut wires = self.0.lock();
        let (least, most) = wires.latency;
        Instant::now() + if least < most { wires.rng.random_range(least..most) } else { least }
    }

    /// Ready with both ends once no cut is between them.
    fn open(&self, from: SocketAddr, to: SocketAddr, context: &mut Context<'_>) -> Poll<io::Result<Halves>> {
        let mut wires = self.0.lock();
        if wires.cuts.contains(&(from, to)) || wires.cuts.contains(&(to, from)) {
            wires.waiting.push(context.waker().clone());
            return Poll::Pending;
        }
        let Some(listener) = wires.listening.get(&to).cloned() else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()));
        };
        let (there, back) = (wires.pipe(from, to), wires.pipe(to, from));
        let halves = |reads: &Arc<Mutex<Pipe>>, writes: &Arc<Mutex<Pipe>>| -> Halves {
            let network = self.clone();
            (
                Box::new(ReadEnd { pipe: reads.clone(), timer: None }),
                Box::new(WriteEnd { pipe: writes.clone(), network }),
            )
        };
        match listener.try_send((halves(&there, &back), from)) {
            Ok(()) => Poll::Ready(Ok(halves(&back, &there))),
            Err(_) => Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into())),
        }
    }
}

impl Wires {
    fn pipe(&mut self, from: SocketAddr, to: SocketAddr) -> Arc<Mutex<Pipe>> {
        let pipe = Arc::new(Mutex::new(Pipe {
            from,
            to,
            chunks: Chunks::default(),
            cut: false,
            reset: false,
            ended: false,
            reader: None,
            writer: None,
        }));
        self.pipes.push(pipe.clone());
        pipe
    }
}

impl Transport for Host {
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        let (sender, inbox) = Inbox::new(addr);
        let taken = self.network.0.lock().listening.insert(addr, sender).is_some_and(|old| !old.is_closed());
        Box::pin(async move {
            match taken {
                true => Err(io::ErrorKind::AddrInUse.into()),
                false => Ok(Box::new(inbox) as Box<dyn Listener>),
            }
        })
    }

    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Halves>> {
        Box::pin(std::future::poll_fn(move |context| self.network.open(self.addr, addr, context)))
    }
}

/// Listens for the connections that are sent to it.
pub struct Inbox {
    addr: SocketAddr,
    inbox: mpsc::Receiver<(Halves, SocketAddr)>,
}

impl Inbox {
    /// One that listens on `addr`, and where to send connections and whom they come from.
    pub fn new(addr: SocketAddr) -> (mpsc::Sender<(Halves, SocketAddr)>, Inbox) {
        let (sender, inbox) = mpsc::channel(BACKLOG);
        (sender, Inbox { addr, inbox })
    }
}

/// Bytes under way in one direction, in chunks that arrive at `T`, none before the one in front of it.
#[derive(Debug)]
pub struct Chunks<T> {
    chunks: VecDeque<(T, Bytes)>,
    length: usize,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Chunks { chunks: VecDeque::new(), length: 0 }
    }
}

impl<T: Ord + Copy> Chunks<T> {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// When the first one arrives.
    pub fn arrival(&self) -> Option<T> {
        self.chunks.front().map(|(arrival, _)| *arrival)
    }

    /// Sends as many of `bytes` as there is room for; how many. `None`: there is no room.
    pub fn push(&mut self, arrival: T, bytes: &[u8]) -> Option<usize> {
        if self.length >= BUFFER {
            return None;
        }
        let length = bytes.len().min(BUFFER - self.length);
        let arrival = self.chunks.back().map_or(arrival, |(last, _)| arrival.max(*last));
        self.chunks.push_back((arrival, Bytes::copy_from_slice(&bytes[..length])));
        self.length += length;
        Some(length)
    }

    /// Takes of the first one what `into` has room for.
    pub fn take(&mut self, into: &mut ReadBuf<'_>) {
        let Some((_, chunk)) = self.chunks.front_mut() else { return };
        let length = chunk.len().min(into.remaining());
        into.put_slice(&chunk[..length]);
        chunk.advance(length);
        if chunk.is_empty() {
            self.chunks.pop_front();
        }
        self.length -= length;
    }
}

impl Listener for Inbox {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Halves, SocketAddr)>> {
        Box::pin(async move {
            match self.inbox.recv().await {
                Some(accepted) => Ok(accepted),
                None => std::future::pending().await, // Crashed: nobody comes any more.
            }
        })
    }
}

struct ReadEnd {
    pipe: Arc<Mutex<Pipe>>,
    timer: Option<Pin<Box<Sleep>>>,
}

struct WriteEnd {
    pipe: Arc<Mutex<Pipe>>,
    network: Network,
}

impl AsyncRead for ReadEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut pipe = this.pipe.lock();
        if pipe.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        pipe.reader = Some(context.waker().clone());
        if pipe.cut {
            return Poll::Pending;
        }
        let ended = pipe.ended;
        let Some(at) = pipe.chunks.arrival() else {
            return if ended { Poll::Ready(Ok(())) } else { Poll::Pending };
        };
        if at > Instant::now() {
            let timer = this.timer.insert(Box::pin(sleep_until(at)));
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
        pipe.chunks.take(into);
        pipe.writer.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WriteEnd {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let arrival = self.network.arrival();
        let mut pipe = self.pipe.lock();
        if pipe.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let Some(length) = pipe.chunks.push(arrival, bytes) else {
            pipe.writer = Some(context.waker().clone());
            return Poll::Pending;
        };
        pipe.reader.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for WriteEnd {
    fn drop(&mut self) {
        let mut pipe = self.pipe.lock();
        pipe.ended = true;
        pipe.wake();
    }
}

impl Drop for ReadEnd {
    fn drop(&mut self) {
        let mut pipe = self.pipe.lock();
        pipe.reset = true; // Nobody reads any more: the other side's writes fail, as on a reset.
        pipe.wake();
    }
}
