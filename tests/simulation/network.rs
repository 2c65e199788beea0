//! The network between the simulated nodes: bytes that take whole milliseconds, hosts that can be cut off from each
//! other, hosts that die with or without a word.
//!
//! It behaves as TCP does where it matters: bytes arrive in order or not at all; a cut loses nothing, it holds back,
//! and connecting across it hangs. Unlike `bus::memory` it reads no clock: each node has a clock of its own, so
//! the world says when it is.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use slotcast::bus::memory::{Chunks, Inbox};
use slotcast::bus::transport::{Halves, Listener, Transport};
use slotcast::wal::simulated::SimulatedDisk;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

/// Who cannot connect yet looks again after this long.
const RETRY: Duration = Duration::from_millis(10);

/// Milliseconds a chunk takes at most, in good times.
pub const LATENCY: u64 = 1;

const FIRST_PORT: u16 = 17_001;

/// Where a node's bus listens.
pub fn address(node: usize) -> SocketAddr {
    ([10, 0, 0, 1], FIRST_PORT + node as u16).into()
}

fn node_at(address: SocketAddr) -> usize {
    usize::from(address.port().wrapping_sub(FIRST_PORT))
}

/// The network. A cheap handle.
#[derive(Clone)]
pub struct Network(Arc<Mutex<Wires>>);

struct Wires {
    now: u64,
    rng: SmallRng,
    /// Milliseconds a chunk takes, at most: from a host to another.
    latency: BTreeMap<(usize, usize), u64>,
    /// What the hosts run on: a process that has died there sends nothing more.
    machines: Vec<SimulatedDisk>,
    hosts: BTreeMap<usize, Host>,
    /// Directions in which nothing passes.
    cuts: Vec<(usize, usize)>,
    pipes: BTreeMap<u64, Pipe>,
    next_pipe: u64,
}

#[derive(Default)]
struct Host {
    listening: Option<mpsc::Sender<(Halves, SocketAddr)>>,
    /// It answers nothing, not even "refused".
    silent: bool,
}

/// One direction of a connection.
#[derive(Default)]
struct Pipe {
    from: usize,
    to: usize,
    chunks: Chunks<u64>,
    reset: bool,
    /// The host that died with it; the other end hears of it unless that was silent.
    dead: Option<usize>,
    silent: bool,
    writer_gone: bool,
    reader_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }
}

impl Wires {
    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.contains(&(from, to))
    }

    /// Whether the living end knows that the connection is no more.
    fn is_broken(&self, pipe: &Pipe) -> bool {
        let heard = |dead: usize| {
            let other = if dead == pipe.from { pipe.to } else { pipe.from };
            !pipe.silent && !self.is_cut(dead, other)
        };
        pipe.reset || pipe.dead.is_some_and(heard)
    }

    fn pipe(&mut self, from: usize, to: usize) -> u64 {
        self.next_pipe += 1;
        self.pipes.insert(self.next_pipe, Pipe { from, to, ..Pipe::default() });
        self.next_pipe
    }

    fn delay(&mut self, from: usize, to: usize) -> u64 {
        let latency = self.latency.get(&(from, to)).copied().unwrap_or(LATENCY);
        self.rng.random_range(0..=latency)
    }

    fn drop_end(&mut self, id: u64, end: impl Fn(&mut Pipe)) {
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        end(pipe);
        pipe.wake();
        if pipe.reader_gone && pipe.writer_gone {
            self.pipes.remove(&id);
        }
    }
}

impl Network {
    /// A network without cuts, between `machines`.
    pub fn new(seed: u64, machines: Vec<SimulatedDisk>) -> Network {
        Network(Arc::new(Mutex::new(Wires {
            now: 0,
            rng: SmallRng::seed_from_u64(seed),
            latency: BTreeMap::new(),
            machines,
            hosts: BTreeMap::new(),
            cuts: Vec::new(),
            pipes: BTreeMap::new(),
            next_pipe: 0,
        })))
    }

    /// A node's access to it.
    pub fn host(&self, node: usize) -> Arc<dyn Transport> {
        Arc::new(Access { network: self.clone(), node })
    }

    /// It is `now` (ms): wakes whoever has something to take.
    pub fn advance(&self, now: u64) {
        let mut wires = self.0.lock();
        wires.now = now;
        let ready: Vec<u64> = wires
            .pipes
            .iter()
            .filter(|(_, pipe)| {
                let due = pipe.chunks.arrival().is_some_and(|at| at <= now);
                let held = wires.is_cut(pipe.from, pipe.to);
                wires.is_broken(pipe) || (due && !held) || (pipe.writer_gone && pipe.chunks.is_empty())
            })
            .map(|(id, _)| *id)
            .collect();
        for id in ready {
            wires.pipes.get_mut(&id).into_iter().for_each(Pipe::wake);
        }
    }

    /// A chunk from one node to another takes up to so many milliseconds from now on.
    pub fn slow_down(&self, from: usize, to: usize, latency: u64) {
        self.0.lock().latency.insert((from, to), latency);
    }

    /// Holds back all bytes from one node to another.
    pub fn cut(&self, from: usize, to: usize) {
        self.0.lock().cuts.push((from, to));
    }

    /// Mends one cut.
    pub fn mend(&self, from: usize, to: usize) {
        let mut wires = self.0.lock();
        if let Some(at) = wires.cuts.iter().position(|cut| *cut == (from, to)) {
            wires.cuts.remove(at);
        }
    }

    /// Resets all connections between two nodes.
    pub fn reset(&self, one: usize, other: usize) {
        for pipe in self.0.lock().pipes.values_mut() {
            if (pipe.from, pipe.to) == (one, other) || (pipe.from, pipe.to) == (other, one) {
                pipe.reset = true;
                pipe.wake();
            }
        }
    }

    /// The node's process is gone; `silent`: its machine too, nobody tells the others.
    pub fn die(&self, node: usize, silent: bool) {
        let mut wires = self.0.lock();
        wires.hosts.insert(node, Host { listening: None, silent });
        for pipe in wires.pipes.values_mut() {
            if pipe.from == node || pipe.to == node {
                (pipe.dead, pipe.silent) = (Some(node), silent);
                pipe.wake();
            }
        }
    }

    /// The node is back: connections of its former life are reset.
    pub fn revive(&self, node: usize) {
        let mut wires = self.0.lock();
        wires.hosts.entry(node).or_default().silent = false;
        for pipe in wires.pipes.values_mut().filter(|pipe| pipe.dead == Some(node)) {
            pipe.silent = false;
        }
    }

    fn open(&self, from: usize, to: usize) -> Option<io::Result<Halves>> {
        let mut wires = self.0.lock();
        let silent = wires.hosts.get(&to).is_none_or(|host| host.silent);
        if wires.is_cut(from, to) || wires.is_cut(to, from) || silent {
            return None;
        }
        let listener = wires.hosts.get(&to).and_then(|host| host.listening.clone());
        let Some(listener) = listener else { return Some(Err(io::ErrorKind::ConnectionRefused.into())) };
        let (there, back) = (wires.pipe(from, to), wires.pipe(to, from));
        drop(wires);
        let halves = |reads: u64, writes: u64| -> Halves {
            (Box::new(ReadEnd(self.clone(), reads)), Box::new(WriteEnd(self.clone(), writes)))
        };
        Some(match listener.try_send((halves(there, back), address(from))) {
            Ok(()) => Ok(halves(back, there)),
            Err(_) => Err(io::ErrorKind::ConnectionRefused.into()),
        })
    }
}

struct Access {
    network: Network,
    node: usize,
}

impl Transport for Access {
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        let (sender, inbox) = Inbox::new(addr);
        self.network.0.lock().hosts.insert(self.node, Host { listening: Some(sender), silent: false });
        Box::pin(std::future::ready(Ok(Box::new(inbox) as Box<dyn Listener>)))
    }

    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Halves>> {
        Box::pin(async move {
            let round_trip = {
                let mut wires = self.network.0.lock();
                let (here, there) = (self.node, node_at(addr));
                wires.delay(here, there) + wires.delay(there, here)
            };
            tokio::time::sleep(Duration::from_millis(round_trip)).await;
            loop {
                if let Some(opened) = self.network.open(self.node, node_at(addr)) {
                    return opened;
                }
                tokio::time::sleep(RETRY).await;
            }
        })
    }
}

struct ReadEnd(Network, u64);

struct WriteEnd(Network, u64);

impl AsyncRead for ReadEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut wires = self.0.0.lock();
        let now = wires.now;
        let reset = || Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        let Some(pipe) = wires.pipes.get(&self.1) else { return reset() };
        if wires.is_broken(pipe) {
            return reset();
        }
        let held = wires.is_cut(pipe.from, pipe.to);
        let Some(pipe) = wires.pipes.get_mut(&self.1) else { return reset() };
        let (ended, due) = (pipe.writer_gone, pipe.chunks.arrival().is_some_and(|at| at <= now));
        if held || pipe.dead.is_some() || !due {
            if ended && pipe.chunks.is_empty() && !held && pipe.dead.is_none() {
                return Poll::Ready(Ok(()));
            }
            pipe.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        pipe.chunks.take(into);
        pipe.writer.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WriteEnd {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut wires = self.0.0.lock();
        let Some((from, to)) = wires.pipes.get(&self.1).map(|pipe| (pipe.from, pipe.to)) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        if wires.machines.get(from).is_some_and(SimulatedDisk::has_crashed) {
            return Poll::Pending;
        }
        let arrival = wires.now + 1 + wires.delay(from, to);
        let broken = wires
            .pipes
            .get(&self.1)
            .is_none_or(|pipe| wires.is_broken(pipe) || (pipe.reader_gone && pipe.dead.is_none()));
        let Some(pipe) = wires.pipes.get_mut(&self.1).filter(|_| !broken) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let Some(length) = pipe.chunks.push(arrival, bytes) else {
            pipe.writer = Some(context.waker().clone());
            return Poll::Pending;
        };
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
        self.0.0.lock().drop_end(self.1, |pipe| pipe.writer_gone = true);
    }
}

impl Drop for ReadEnd {
    fn drop(&mut self) {
        self.0.0.lock().drop_end(self.1, |pipe| pipe.reader_gone = true);
    }
}
