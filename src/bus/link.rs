//! One outgoing connection to a peer, kept up: greeting, calls and their answers, pings, reconnecting.
//!
//! A call waits in a bounded queue until the connection takes it. While there is no connection calls fail at once
//! ("not delivered") rather than pile up: who calls knows better what to do about it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, timeout};

use crate::bus::call::{Answered, BusError, Lane};
use crate::bus::frame::{Frame, Greeting};
use crate::bus::reach::Reach;
use crate::bus::stream::{Reader, Writer};
use crate::bus::transport::Transport;
use crate::id::NodeId;

/// Calls in a link's queue; more are refused.
const QUEUE_CALLS: usize = 4096;
/// Bytes in a link's queue, by lane; more are refused. The control lane carries small calls only.
const QUEUE_BYTES: [usize; 3] = [8 << 20, 128 << 20, 64 << 20];
/// Calls awaiting their answer on one connection; more are refused.
const MAX_PENDING: usize = 8192;
/// Time to connect and be greeted.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(400);
/// Between attempts to connect: the first pause, doubled up to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(200));
/// A broken connection may come back this long before its peer is called unreachable.
const GRACE: Duration = Duration::from_millis(100);
/// Between pings.
const PING: Duration = Duration::from_millis(100);
/// Times of a ping without a sign of life before the peer is called unreachable: half a second.
const SILENT_PINGS: u32 = 5;
/// The same before the connection is given up: its calls fail and it is made anew. TCP repeats what was not received
/// after pauses that double, so once a cut is over an old connection may stay silent for as long as the cut has lasted,
/// while a new one works at once.
const DEAD_PINGS: u32 = 15;

/// The calling end of a link.
pub struct Link {
    calls: mpsc::Sender<Call>,
    queued: Arc<AtomicUsize>,
    limit: usize,
}

struct Call {
    expected: Option<NodeId>,
    service: u8,
    body: Bytes,
    answer: oneshot::Sender<Answered>,
}

impl Link {
    /// Starts keeping a connection to `addr`.
    pub fn open(
        me: NodeId,
        addr: SocketAddr,
        lane: Lane,
        transport: Arc<dyn Transport>,
        reach: Arc<Reach>,
    ) -> Link {
        let (calls, inbox) = mpsc::channel(QUEUE_CALLS);
        let queued = Arc::new(AtomicUsize::new(0));
        let sight = Sight { addr, lane, reach, found: None };
        let keeper = Keeper { me, transport, sight, inbox, queued: queued.clone(), warned: None };
        tokio::spawn(keeper.run());
        Link { calls, queued, limit: QUEUE_BYTES[lane as usize] }
    }

    /// Queues a call, in order; the answer comes over the returned channel.
    pub fn submit(
        &self,
        expected: Option<NodeId>,
        service: u8,
        body: Bytes,
    ) -> Result<oneshot::Receiver<Answered>, BusError> {
        let length = body.len();
        if self.queued.fetch_add(length, Ordering::Relaxed) + length > self.limit.max(length) {
            self.queued.fetch_sub(length, Ordering::Relaxed);
            return Err(BusError::NotDelivered("the queue to that node is full".into()));
        }
        let (answer, receiver) = oneshot::channel();
        self.calls.try_send(Call { expected, service, body, answer }).map_err(|error| {
            self.queued.fetch_sub(length, Ordering::Relaxed);
            BusError::NotDelivered(match error {
                mpsc::error::TrySendError::Full(_) => "the queue to that node is full".into(),
                mpsc::error::TrySendError::Closed(_) => "the bus is shut down".into(),
            })
        })?;
        Ok(receiver)
    }
}

/// In the order of the calls, so that all fail in that order when the connection breaks: a simulation replays.
type Pending = Mutex<BTreeMap<u64, oneshot::Sender<Answered>>>;

struct Keeper {
    me: NodeId,
    transport: Arc<dyn Transport>,
    sight: Sight,
    inbox: mpsc::Receiver<Call>,
    queued: Arc<AtomicUsize>,
    /// The node last complained about for not being the expected one.
    warned: Option<NodeId>,
}

/// What a link finds out about its peer.
#[derive(Clone)]
struct Sight {
    addr: SocketAddr,
    lane: Lane,
    reach: Arc<Reach>,
    /// Who answered there last.
    found: Option<NodeId>,
}

impl Sight {
    fn note(&self, answers: bool) {
        if let (Lane::Control, Some(node)) = (self.lane, self.found) {
            self.reach.note(node, self.addr, answers);
        }
    }

    /// Counts the time without signs of life; returns when the connection is to be given up. Beside the sending, which
    /// stands still when the socket takes nothing more.
    async fn watch(&self, life: &AtomicUsize) -> io::Error {
        let mut tick = pings();
        let (mut silent, mut last) = (0, 0);
        while silent < DEAD_PINGS {
            tick.tick().await;
            let now = life.load(Ordering::Relaxed);
            silent = if now == last { silent + 1 } else { 0 };
            last = now;
            self.note(silent < SILENT_PINGS);
        }
        io::ErrorKind::TimedOut.into()
    }
}

/// Ticks when a ping is due. One that was missed is not made up for: a process that was stopped counts no time.
fn pings() -> Interval {
    let mut ping = interval_at(Instant::now() + PING, PING);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ping
}

impl Keeper {
    async fn run(mut self) {
        let mut pause = BACKOFF.0;
        let mut broke_at: Option<Instant> = None;
        loop {
            match self.connect(broke_at).await {
                Ok((reader, writer, node)) => {
                    pause = BACKOFF.0;
                    self.sight.found = Some(node);
                    self.sight.note(true);
                    if self.sight.lane == Lane::Control {
                        self.sight.reach.connected(node);
                    }
                    let Some(error) = self.converse(reader, writer, node).await else { return };
                    let Sight { addr, lane, .. } = self.sight;
                    tracing::debug!(peer = %addr, ?lane, %error, "a bus connection broke");
                    broke_at = Some(Instant::now());
                }
                Err(error) => {
                    broke_at = None;
                    self.sight.note(false);
                    if self.refuse_for(pause, &error).await.is_none() {
                        return;
                    }
                    pause = (pause * 2).min(BACKOFF.1);
                }
            }
        }
    }

    /// Connects and greets. If the last connection broke a moment ago, the peer counts as reachable for [`GRACE`].
    async fn connect(&self, broke_at: Option<Instant>) -> io::Result<(Reader, Writer, NodeId)> {
        let attempt = timeout(CONNECT_TIMEOUT, self.greet());
        tokio::pin!(attempt);
        if let Some(broke_at) = broke_at {
            tokio::select! {
                biased;
                connected = &mut attempt => return connected?,
                () = tokio::time::sleep_until(broke_at + GRACE) => self.sight.note(false),
            }
        }
        attempt.await?
    }

    async fn greet(&self) -> io::Result<(Reader, Writer, NodeId)> {
        let (read, write) = self.transport.connect(self.sight.addr).await?;
        let (mut reader, mut writer) = (Reader::new(read), Writer::new(write));
        writer.raw(&Greeting { node: self.me, lane: self.sight.lane }.encode()).await?;
        let greeting = Greeting::decode(&reader.exactly().await?)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok((reader, writer, greeting.node))
    }

    /// For `pause`, tells every call that there is no connection. `None`: nobody can call any more.
    async fn refuse_for(&mut self, pause: Duration, error: &io::Error) -> Option<()> {
        let end = sleep(pause);
        tokio::pin!(end);
        loop {
            tokio::select! {
                biased;
                call = self.inbox.recv() => {
                    let call = call?;
                    self.dequeue(&call);
                    let why = format!("no connection to {}: {error}", self.sight.addr);
                    let _ = call.answer.send(Err(BusError::NotDelivered(why)));
                }
                () = &mut end => return Some(()),
            }
        }
    }

    fn dequeue(&self, call: &Call) {
        self.queued.fetch_sub(call.body.len(), Ordering::Relaxed);
    }

    /// Carries calls until the connection breaks (why), or nobody can call any more (`None`).
    async fn converse(&mut self, reader: Reader, writer: Writer, node: NodeId) -> Option<io::Error> {
        let pending = Pending::default();
        let (sight, life) = (self.sight.clone(), writer.progress());
        let ended = tokio::select! {
            biased;
            error = receive(reader, &pending, &life) => Some(error),
            error = sight.watch(&life) => Some(error),
            ended = self.send(writer, node, &pending) => ended.err(),
        };
        for (_, answer) in pending.into_inner() {
            let _ = answer.send(Err(BusError::Unknown(format!("the connection to {} broke", sight.addr))));
        }
        ended
    }

    /// Writes calls and pings; `Ok` when nobody can call any more.
    async fn send(&mut self, mut writer: Writer, node: NodeId, pending: &Pending) -> io::Result<()> {
        let mut ping = pings();
        let mut next_id = 0u64;
        loop {
            tokio::select! {
                biased;
                _ = ping.tick() => writer.feed(&Frame::Ping).await?,
                call = self.inbox.recv() => {
                    let Some(call) = call else { return Ok(()) };
                    let mut call = Some(call);
                    while let Some(taken) = call {
                        self.dequeue(&taken);
                        next_id += 1;
                        if let Some(frame) = self.admit(taken, next_id, node, pending) {
                            writer.feed(&frame).await?;
                        }
                        call = self.inbox.try_recv().ok();
                    }
                }
            }
            writer.flush().await?;
        }
    }

    /// The frame for a call, unless it must not be sent.
    fn admit(&mut self, call: Call, id: u64, node: NodeId, pending: &Pending) -> Option<Frame> {
        if call.answer.is_closed() {
            return None;
        }
        if let Some(expected) = call.expected.filter(|expected| *expected != node) {
            if self.warned.replace(expected) != Some(expected) {
                tracing::warn!(addr = %self.sight.addr, %expected, found = %node, "another node answers at this address");
            }
            let why =
                format!("node {} answers at {}, not {}", node.short(), self.sight.addr, expected.short());
            let _ = call.answer.send(Err(BusError::NotDelivered(why)));
            return None;
        }
        let mut pending = pending.lock();
        if pending.len() >= MAX_PENDING {
            pending.retain(|_, answer| !answer.is_closed());
        }
        if pending.len() >= MAX_PENDING {
            let _ = call.answer.send(Err(BusError::NotDelivered("that node owes too many answers".into())));
            return None;
        }
        pending.insert(id, call.answer);
        Some(Frame::Request { id, service: call.service, body: call.body })
    }
}

/// Hands answers to their callers until the connection breaks. Whatever comes in is a sign of life.
async fn receive(mut reader: Reader, pending: &Pending, life: &AtomicUsize) -> io::Error {
    loop {
        match reader.buffered() {
            Ok(Some(frame)) => deliver(frame, pending),
            Ok(None) => match reader.fill().await {
                Ok(()) => drop(life.fetch_add(1, Ordering::Relaxed)),
                Err(error) => return error,
            },
            Err(error) => return error,
        }
    }
}

fn deliver(frame: Frame, pending: &Pending) {
    if let Frame::Answer { id, served, body } = frame
        && let Some(answer) = pending.lock().remove(&id)
    {
        let not_served = || BusError::NotDelivered("that node does not serve this call".into());
        let _ = answer.send(if served { Ok(body) } else { Err(not_served()) });
    }
}
