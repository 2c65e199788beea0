//! One connection: bytes in, requests through [`dispatch`](crate::server::dispatch), bytes out.
//!
//! A *turn* is what one wake-up does, without waiting: write what is left, take what has arrived, execute all whole
//! requests in it, write the replies with one call. Idle connections hold no buffers: a turn reads into and replies
//! from its thread's scratch buffers, and only a rest (half a request, a full socket) is kept. What a request has to
//! wait for is a [`Pending`]; the requests behind it wait in the input.
//!
//! A client that does not read its replies is not served either: while its socket takes nothing, nothing more of it
//! is executed; after [`STALL_LIMIT`], or beyond `client-output-buffer-limit`, it is closed.

use std::cell::RefCell;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use futures::FutureExt;
use slotcast_wire::request::{Limits, ProtocolError, RequestParser};
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::Instant;
use tracing::debug;

use crate::id::GroupId;
use crate::server::Server;
use crate::server::batch::{Batch, Prepared};
use crate::server::dispatch::{Dispatch, Step};
use crate::server::feeding::Feeding;
use crate::server::outbox::Outbox;
use crate::server::pending::Pending;
use crate::server::piece::Gather;
use crate::session::Session;
use crate::topology::view::View;

/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;
/// Reply bytes after which a turn writes before it executes more.
const WRITE_BYTES: usize = 256 << 10;
/// A client that takes none of its unsent replies for so long is closed.
pub const STALL_LIMIT: Duration = Duration::from_secs(60);
/// A scratch buffer that has grown beyond this is given back.
const KEEP_BYTES: usize = 1 << 20;

/// A thread's buffers, used by one turn at a time.
struct Scratch {
    input: Box<[u8]>,
    output: Vec<u8>,
    batch: Batch,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        input: vec![0; READ_BYTES].into(),
        output: Vec::with_capacity(WRITE_BYTES),
        batch: Batch::default(),
    });
}

/// See the module's documentation.
pub struct Connection {
    pub(super) server: Arc<Server>,
    pub(super) stream: TcpStream,
    pub(super) session: Session,
    pub(super) outbox: Arc<Outbox>,
    pub(super) parser: RequestParser,
    /// Its stream of invalidations, if it has subscribed.
    pub(super) feeding: Option<Box<Feeding>>,
    /// Received, not yet executed.
    pub(super) input: Vec<u8>,
    /// To be sent, from `sent` on.
    pub(super) output: Vec<u8>,
    pub(super) sent: usize,
    /// There may be whole requests in `input`.
    pub(super) runnable: bool,
    pub(super) closing: bool,
    /// Pushes are queued, and are to leave in the next turn.
    pub(super) gathering: bool,
    /// A wait to be taken up again, when the pushes that have interrupted it are sent.
    pub(super) interrupted: Option<Pending>,
    /// Reads of this shard were confirmed for the next turn.
    pub(super) confirmed: Option<GroupId>,
    /// Until when the request at hand may wait.
    pub(super) waits_until: Option<Instant>,
    /// What the request that waits was routed by.
    pub(super) routed_by: Option<Arc<View>>,
    /// The last write of this connection, for WAIT.
    pub(super) last_write: Option<(GroupId, u64)>,
}

/// What a turn ends with.
enum Turn {
    Wait(Pending),
    Close,
}

/// Why a turn stopped executing.
enum Halt {
    /// No whole request is left.
    Starved,
    /// Enough replies to write first.
    Full,
    Close,
    Wait(Pending),
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(server: Arc<Server>, stream: TcpStream, session: Session) -> Self {
        let outbox = Arc::new(Outbox::new(session.client.clone()));
        server.publisher.connect(session.client.id, outbox.clone());
        Self {
            server,
            stream,
            session,
            outbox,
            feeding: None,
            parser: RequestParser::default(),
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            runnable: false,
            closing: false,
            gathering: false,
            interrupted: None,
            confirmed: None,
            waits_until: None,
            routed_by: None,
            last_write: None,
        }
    }

    /// Serves it until it closes.
    pub async fn run(mut self) {
        loop {
            match std::future::poll_fn(|task| self.poll_turn(task)).await {
                Ok(Turn::Wait(pending)) => self.settle(pending).await,
                Ok(Turn::Close) => break,
                Err(error) => {
                    debug!(client = self.session.client.id, %error, "connection ends");
                    break;
                }
            }
        }
        self.server.farewell(&mut self.session);
    }

    fn poll_turn(&mut self, task: &mut TaskContext<'_>) -> Poll<io::Result<Turn>> {
        SCRATCH.with_borrow_mut(|scratch| {
            loop {
                self.session.client.register(task.waker());
                if self.session.client.is_killed() {
                    return Poll::Ready(Ok(Turn::Close));
                }
                // What cannot be sent yet stays in the outbox, which is bounded.
                ready!(self.poll_flush(task))?;
                if !self.gathers(task) && self.outbox.drain(self.session.push_form(), &mut self.output) {
                    ready!(self.poll_flush(task))?;
                }
                if self.closing {
                    return Poll::Ready(Ok(Turn::Close));
                }
                self.poll_feed(task);
                ready!(self.poll_flush(task))?;
                if let Some(pending) = self.interrupted.take() {
                    return Poll::Ready(Ok(Turn::Wait(pending)));
                }
                let halt = match std::mem::take(&mut self.runnable) {
                    true => self.serve_kept(scratch),
                    false => ready!(self.poll_receive(task, scratch))?,
                };
                self.session.client.unparsed.store(self.input.len() as u64, Relaxed);
                // A piece may be executed already, and have read what a push is about: its replies go first.
                if !matches!(halt, Halt::Wait(Pending::Piece { .. })) {
                    self.outbox.drain(self.session.push_form(), &mut scratch.output);
                }
                self.send(task, scratch)?;
                match halt {
                    Halt::Starved => {}
                    Halt::Full => self.runnable = true,
                    Halt::Close => self.closing = true,
                    Halt::Wait(pending) => return Poll::Ready(Ok(Turn::Wait(pending))),
                }
            }
        })
    }

    /// Whether pushes that are queued wait until the thread has looked at its sockets once more, which is at once if it
    /// has nothing else to do: while others write, what they change in two rounds leaves in one write.
    fn gathers(&mut self, task: &mut TaskContext<'_>) -> bool {
        let is_idle = !self.runnable && self.interrupted.is_none();
        self.gathering = !self.gathering && is_idle && self.outbox.is_waiting();
        if self.gathering {
            let _ = pin!(yield_now()).poll(task);
        }
        self.gathering
    }

    /// Takes what is new of the stream of invalidations, now that everything before it is sent.
    fn poll_feed(&mut self, task: &mut TaskContext<'_>) {
        match &mut self.session.following {
            Some(following) => {
                let feeding = self.feeding.get_or_insert_default();
                feeding.poll(following, &self.server, task, &mut self.output);
            }
            None => self.feeding = None,
        }
    }

    /// Takes what has arrived and executes what is whole.
    fn poll_receive(&mut self, task: &mut TaskContext<'_>, scratch: &mut Scratch) -> Poll<io::Result<Halt>> {
        let mut buffer = ReadBuf::new(&mut scratch.input);
        ready!(Pin::new(&mut self.stream).poll_read(task, &mut buffer))?;
        let count = buffer.filled().len();
        if count == 0 {
            return Poll::Ready(Ok(Halt::Close));
        }
        let metrics = &self.server.context.metrics;
        metrics.input_bytes.add(count as u64);
        if self.gathering {
            // What a change has queued that was acknowledged before this was sent goes before the answer.
            self.outbox.drain(self.session.push_form(), &mut scratch.output);
        }
        if !self.input.is_empty() {
            self.input.extend_from_slice(&scratch.input[..count]);
            return Poll::Ready(Ok(self.serve_kept(scratch)));
        }
        let (input, out) = (&scratch.input[..count], &mut scratch.output);
        let (consumed, halt) = self.serve(input, out, &mut scratch.batch);
        self.input.extend_from_slice(&input[consumed..]);
        Poll::Ready(Ok(halt))
    }

    /// Executes what is whole of the kept input.
    fn serve_kept(&mut self, scratch: &mut Scratch) -> Halt {
        let mut input = std::mem::take(&mut self.input);
        let (consumed, halt) = self.serve(&input, &mut scratch.output, &mut scratch.batch);
        if consumed == input.len() {
            input = Vec::new();
        } else {
            input.drain(..consumed);
        }
        self.input = input;
        if self.input.len() as u64 > self.server.context.config.live().client_query_buffer_limit {
            debug!(client = self.session.client.id, "closed: its request exceeds client-query-buffer-limit");
            return Halt::Close;
        }
        halt
    }

    /// Executes the whole requests of `buf`; returns how many bytes they took.
    fn serve(&mut self, buf: &[u8], out: &mut Vec<u8>, batch: &mut Batch) -> (usize, Halt) {
        let limits = self.limits();
        let Self { server, session, outbox, parser, confirmed, waits_until, routed_by, .. } = self;
        let server = server.clone();
        let shards = server.shards.load();
        let mut dispatch = Dispatch::new(&server, session, outbox, out, &shards, confirmed.take());
        dispatch.session.client.last_active.store(dispatch.now, Relaxed);
        let (mut at, mut count) = (0, 0);
        let halt = 'turn: loop {
            let error = batch.parse(&buf[at..], parser, &limits, |slot| dispatch.keyspace_of(slot));
            let tracked = server.invalidation.table();
            batch.prefetch(&buf[at..], |slot| dispatch.keyspace_of(slot), |key| tracked.prefetch(key));
            for prepared in batch.requests() {
                let rest = &buf[at..];
                let consumed = prepared.consumed();
                count += 1;
                match dispatch.prepared(prepared, rest) {
                    Step::Done if dispatch.out.len() < WRITE_BYTES => at += consumed,
                    Step::Done => {
                        // Enough to write first; what was parsed ahead is parsed again.
                        *parser = RequestParser::default();
                        at += consumed;
                        break 'turn Halt::Full;
                    }
                    step => {
                        // The parser has run ahead of what is executed: it begins anew behind it.
                        *parser = RequestParser::default();
                        if at > 0 {
                            *waits_until = None;
                        }
                        let (taken, halt) = defer(&mut dispatch, step, rest, prepared, &limits);
                        at += taken;
                        break 'turn halt;
                    }
                }
            }
            at += batch.blank();
            if count > 0 {
                *waits_until = None;
            }
            match error {
                Some(error) => break refuse(&mut dispatch, error),
                None if batch.is_last() => break Halt::Starved,
                None if dispatch.out.len() >= WRITE_BYTES => break Halt::Full,
                None => {}
            }
        };
        server.context.metrics.note_turn(count, dispatch.lookups.hits, dispatch.lookups.misses);
        dispatch.session.show();
        *routed_by = dispatch.view.take();
        if !dispatch.reads_are_current() {
            debug!(client = dispatch.session.client.id, "closed: the lease ran out during its reads");
            dispatch.out.clear();
            return (at, Halt::Close);
        }
        (at, halt)
    }

    fn limits(&self) -> Limits {
        let live = self.server.context.config.live();
        let limits = Limits { max_bulk: live.proto_max_bulk_len as usize, ..Limits::DEFAULT };
        if self.session.authenticated { limits } else { limits.unauthenticated() }
    }

    /// Sends a turn's replies and the pushes behind them; keeps what the socket does not take. Nothing stays behind
    /// for the next connection of this thread, whatever becomes of this one.
    fn send(&mut self, task: &mut TaskContext<'_>, scratch: &mut Scratch) -> io::Result<()> {
        if scratch.output.is_empty() {
            return Ok(());
        }
        let sent = self.send_or_keep(task, &scratch.output);
        scratch.output.clear();
        if scratch.output.capacity() > KEEP_BYTES {
            scratch.output = Vec::with_capacity(WRITE_BYTES);
        }
        sent
    }

    /// Runs `f` with a dispatcher that writes behind what is to be sent.
    pub(super) fn dispatching<R>(&mut self, f: impl FnOnce(&mut Dispatch<'_>) -> R) -> R {
        let Self { server, session, outbox, output, confirmed, routed_by, .. } = self;
        let shards = server.shards.load();
        let mut dispatch = Dispatch::new(server, session, outbox, output, &shards, confirmed.take());
        *routed_by = dispatch.view.clone();
        f(&mut dispatch)
    }

    /// Whether the client has closed its end.
    pub(super) fn is_abandoned(&self) -> bool {
        let ready = self.stream.ready(Interest::READABLE).now_or_never();
        ready.is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed()))
    }
}

/// What follows from a request that was not finished at once: the bytes that are done with, and how the turn ends.
fn defer(
    dispatch: &mut Dispatch<'_>,
    step: Step,
    rest: &[u8],
    prepared: &Prepared,
    limits: &Limits,
) -> (usize, Halt) {
    let consumed = prepared.consumed();
    match step {
        Step::Done => (consumed, Halt::Full),
        Step::Close => (consumed, Halt::Close),
        Step::Propose(shard) => (0, Halt::Wait(Gather { dispatch, limits }.submit(&shard, rest, prepared))),
        step @ (Step::Park(_) | Step::Confirm(_) | Step::ProposeAll) => {
            (0, Halt::Wait(Pending::Step(step, consumed)))
        }
        // The request has had its effect on the session (EXEC has taken the transaction): it must not run again.
        step => (consumed, Halt::Wait(Pending::Step(step, 0))),
    }
}

fn refuse(dispatch: &mut Dispatch<'_>, error: ProtocolError) -> Halt {
    dispatch.reply().error(&format!("ERR {error}"));
    Halt::Close
}
