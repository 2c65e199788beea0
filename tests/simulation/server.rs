//! What a node does for its clients: `slotcast::server` without sockets and sessions, on the same rooms beneath it.
//!
//! A request is routed by the node's view; writes go through the shard's proposer; a read is executed at once and
//! counts only if the lease still holds *after* it (if it has run out before, the leadership is confirmed first).
//! Keys are remembered for tracking under the lock of the read, and pushes leave behind the replies they may
//! concern. A [`Fault`] breaks one of these rules, to prove that the checks would notice.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::SmallRng;
use slotcast::command::needs::needs;
use slotcast::command::table;
use slotcast::id::GroupId;
use slotcast::keyspace::locked::Needs;
use slotcast::keyspace::slot::Stamp;
use slotcast::node::hosted::Hosted;
use slotcast::server::outbox::Outbox;
use slotcast::session::tracking::Tracking;
use slotcast::shard::Shard;
use slotcast::shard::piece::{Piece, PieceReply, Step};
use slotcast::shard::proposal::{put_request, put_transaction};
use slotcast::shard::unit::{Occasion, Resolved};
use slotcast::topology::route::{Route, route};
use slotcast::topology::view::View;
use slotcast::tracking::backlog::Form;
use slotcast::wal::simulated::SimulatedDisk;
use slotcast_wire::args::OwnedArgs;
use slotcast_wire::frame::{Frame, FrameDecoder};
use slotcast_wire::reply::{Proto, Reply};
use slotcast_wire::slot::slot_of;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::messages::{Message, Request};

/// As `cluster-park-timeout`'s default and `server::waiting::OUTCOME_TIMEOUT`.
const PARK: Duration = Duration::from_millis(800);
const OUTCOME: Duration = Duration::from_secs(5);
/// A connection looks for pushes this often.
const POLL: Duration = Duration::from_millis(5);
/// One read in so many is held up on its way, for up to so many milliseconds: its thread is not scheduled.
const STALL: (u32, u64) = (50, 700);

/// A rule broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A write is acknowledged when it has been proposed.
    AcknowledgedEarly,
    /// A read does not look at the lease.
    ReadWithoutLease,
    /// A read's key is remembered for tracking after the read, outside of its lock.
    RememberedLate,
    /// A heartbeat of the stream of invalidations says that a quorum stands behind it now, whatever the node knows.
    HeartbeatsWithoutQuorum,
    /// A subscription is resumed although the invalidation log does not reach back so far.
    ResumedOverGap,
}

impl Fault {
    /// All of them, by name.
    pub const ALL: [(&str, Fault); 5] = [
        ("acknowledged-early", Fault::AcknowledgedEarly),
        ("read-without-lease", Fault::ReadWithoutLease),
        ("remembered-late", Fault::RememberedLate),
        ("heartbeats-without-quorum", Fault::HeartbeatsWithoutQuorum),
        ("resumed-over-gap", Fault::ResumedOverGap),
    ];
}

/// What the connections of a node share.
pub struct Server {
    /// The server's own state: who listens to what, and the invalidation logs.
    pub whole: Arc<slotcast::server::Server>,
    pub hosted: Hosted,
    pub view: Arc<ArcSwap<View>>,
    pub changed: watch::Receiver<u64>,
    pub rng: Mutex<SmallRng>,
    pub fault: Option<Fault>,
    /// What it runs on: a process that has died there sends nothing more.
    pub machine: SimulatedDisk,
}

struct Connection {
    server: Arc<Server>,
    author: u64,
    outbox: Arc<Outbox>,
    /// This connection's own: it knows which changes of the routes it has seen.
    changed: watch::Receiver<u64>,
    watched: Vec<(Box<[u8]>, Stamp)>,
    /// The request at hand is to be answered with stamps, and not tracked.
    stamped: bool,
    until: Instant,
}

/// Why a request is not answered yet.
enum Halt {
    Again,
    Answer(Message),
    Close,
}

/// Serves a connection that tracks what it reads, until its client is gone.
pub async fn serve(
    server: Arc<Server>,
    mut requests: UnboundedReceiver<Request>,
    messages: UnboundedSender<Message>,
) {
    let nowhere = ([127, 0, 0, 1], 0).into();
    let (clients, invalidation) = (&server.whole.context.clients, &server.whole.invalidation);
    let client = clients.register(nowhere, nowhere, 0);
    let outbox = Arc::new(Outbox::new(client.clone()));
    invalidation.follow(&outbox, &Tracking { on: true, ..Tracking::default() }, Proto::Resp3, |_| None);
    let mut connection = Connection {
        server: server.clone(),
        author: client.id,
        outbox,
        changed: server.changed.clone(),
        watched: Vec::new(),
        stamped: false,
        until: Instant::now(),
    };
    loop {
        let request = tokio::select! {
            biased;
            request = requests.recv() => request,
            () = sleep(POLL) => {
                connection.push(&messages);
                continue;
            }
        };
        let Some(request) = request else { break };
        let Some(answer) = connection.answer(&request).await else { break };
        if server.machine.has_crashed() {
            break;
        }
        let _ = messages.send(answer);
        connection.push(&messages);
    }
    invalidation.close(client.id);
    clients.forget(client.id);
}

impl Connection {
    /// Sends the pushes that have gathered.
    fn push(&self, messages: &UnboundedSender<Message>) {
        if self.server.machine.has_crashed() {
            return;
        }
        let mut bytes = Vec::new();
        self.outbox.drain(Form::Push, &mut bytes);
        for frame in frames(&bytes) {
            let Frame::Push(elements) = frame else { continue };
            match elements.get(1) {
                Some(Frame::Array(keys)) => keys.iter().filter_map(Frame::as_bytes).for_each(|key| {
                    let _ = messages.send(Message::Invalidate(Some(key.to_vec())));
                }),
                _ => drop(messages.send(Message::Invalidate(None))),
            }
        }
    }

    /// The answer; `None`: the connection is closed.
    async fn answer(&mut self, request: &Request) -> Option<Message> {
        self.until = Instant::now() + PARK;
        let slot = match request {
            Request::Watch(key) => slot_of(key),
            request => slot_of(request.commands().first()?.as_args().at(1)),
        };
        self.stamped = matches!(request, Request::Stamped { .. });
        let anywhere = matches!(request, Request::Stamped { anywhere: true, .. });
        // EXEC ends what WATCH began, whatever comes of it.
        let watched = match request {
            Request::Transaction(_) => std::mem::take(&mut self.watched),
            _ => Vec::new(),
        };
        let mut confirmed = None;
        loop {
            let shard = match self.shard_of(slot, anywhere, &mut confirmed).await {
                Ok(shard) => shard,
                Err(Halt::Again) => continue,
                Err(Halt::Answer(message)) => return Some(message),
                Err(Halt::Close) => return None,
            };
            let leased = confirmed != Some(shard.id);
            let done = match request {
                Request::Watch(key) => self.watch(&shard, key, leased).await,
                Request::Transaction(all) => self.execute(&shard, all, &watched, leased).await,
                request => match request.commands() {
                    all if all.iter().all(|args| !is_write(args)) => self.read(&shard, all, leased).await,
                    all => self.write(&shard, all).await,
                },
            };
            // It was not taken: this node does not lead, whatever it has heard so far.
            let done = if matches!(done, Halt::Again) { self.park().await } else { done };
            match done {
                Halt::Again => confirmed = None,
                Halt::Answer(message) => return Some(message),
                Halt::Close => return None,
            }
        }
    }

    /// The shard that serves a slot here and whose leadership is certain now; if `anywhere`, any copy of it, however old.
    async fn shard_of(
        &mut self,
        slot: u16,
        anywhere: bool,
        confirmed: &mut Option<GroupId>,
    ) -> Result<Arc<Shard>, Halt> {
        let view = self.server.view.load_full();
        let group = match route(&view, slot, anywhere) {
            Route::Lead(group) => group,
            Route::Follow(group) => {
                *confirmed = Some(group);
                group
            }
            Route::Redirect(redirect) => return Err(Halt::Answer(Message::Redirect(redirect))),
            Route::Park => return Err(self.park().await),
        };
        let Some(shard) = self.server.hosted.shards.load().get(&group).cloned() else {
            return Err(self.park().await);
        };
        let careless = self.server.fault == Some(Fault::ReadWithoutLease);
        if careless || *confirmed == Some(group) || lease_is_valid(&shard) {
            return Ok(shard);
        }
        let Some(proposer) = shard.proposer() else { return Err(self.park().await) };
        match timeout_at(self.until, proposer.group().read_barrier()).await {
            Ok(Ok(())) => *confirmed = Some(group),
            _ => return Err(self.park().await),
        }
        Err(Halt::Again)
    }

    async fn park(&mut self) -> Halt {
        match Instant::now() < self.until && timeout_at(self.until, self.changed.changed()).await.is_ok() {
            true => Halt::Again,
            false => Halt::Answer(Message::Down),
        }
    }

    fn occasion(&self, shard: &Shard) -> Occasion {
        let (now, seed) = (shard.stamp.now(), shard.stamp.seed());
        Occasion {
            now,
            seed,
            author: Some(self.author),
            tracking: !self.stamped,
            stamped: self.stamped,
            index: None,
            here: true,
        }
    }

    async fn read(&self, shard: &Arc<Shard>, requests: &[OwnedArgs], leased: bool) -> Halt {
        let late = self.server.fault == Some(Fault::RememberedLate);
        let mut bytes = Vec::new();
        self.stall().await;
        for request in requests {
            let Some((command, needs)) = resolve(request) else { return Halt::Close };
            let occasion = Occasion { tracking: !late && !self.stamped, ..self.occasion(shard) };
            shard.read((command, request.as_args()), &needs, occasion, &mut reply(&mut bytes));
        }
        self.stall().await;
        if late && !self.stamped {
            requests.iter().for_each(|request| {
                self.server.whole.invalidation.remember(shard.id, self.author, request.as_args().at(1))
            });
        }
        match self.is_current(shard, leased) {
            true => Halt::Answer(Message::Replies(frames(&bytes))),
            false => Halt::Close,
        }
    }

    /// Checked after the read: if the lease still holds, nobody else could have changed what it saw.
    fn is_current(&self, shard: &Shard, leased: bool) -> bool {
        !leased || self.server.fault == Some(Fault::ReadWithoutLease) || lease_is_valid(shard)
    }

    async fn stall(&self) {
        let (one_in, longest) = STALL;
        let stall = {
            let mut rng = self.server.rng.lock();
            if rng.random_ratio(1, one_in) { rng.random_range(1..=longest) } else { 0 }
        };
        if stall > 0 {
            sleep(Duration::from_millis(stall)).await;
        }
    }

    async fn watch(&mut self, shard: &Arc<Shard>, key: &[u8], leased: bool) -> Halt {
        self.stall().await;
        let stamp = shard.lock(&Needs::Slot(slot_of(key)), shard.stamp.now()).stamp(key);
        if !self.is_current(shard, leased) {
            return Halt::Close;
        }
        self.watched.push((key.into(), stamp));
        Halt::Answer(Message::Replies(Vec::new()))
    }

    async fn write(&self, shard: &Arc<Shard>, requests: &[OwnedArgs]) -> Halt {
        let (mut steps, mut units) = (Vec::new(), Vec::new());
        for request in requests {
            if is_write(request) {
                put_request(request.encoded(), &mut units);
                steps.push(Step::Logged);
            } else {
                steps.push(Step::Read(request.clone()));
            }
        }
        let is_set = requests.len() == 1 && requests[0].as_args().name() == b"SET";
        let outcome = self.propose(shard, steps, units);
        if is_set && self.server.fault == Some(Fault::AcknowledgedEarly) {
            return Halt::Answer(Message::Replies(vec![Frame::Simple("OK".into())]));
        }
        match timeout(OUTCOME, outcome).await {
            Ok(Ok(PieceReply::Applied { bytes, .. })) => Halt::Answer(Message::Replies(frames(&bytes))),
            Ok(Ok(PieceReply::NotLeader)) => Halt::Again,
            Ok(Err(_)) | Err(_) => Halt::Answer(Message::Uncertain),
        }
    }

    async fn execute(
        &self,
        shard: &Arc<Shard>,
        requests: &[OwnedArgs],
        watched: &[(Box<[u8]>, Stamp)],
        leased: bool,
    ) -> Halt {
        let aborted = || vec![Frame::Null];
        if requests.iter().all(|request| !is_write(request)) {
            self.stall().await;
            let mut bytes = Vec::new();
            let resolved: Vec<Resolved<'_>> = requests
                .iter()
                .filter_map(|request| Some((resolve(request)?.0, request.as_args())))
                .collect();
            let occasion = self.occasion(shard);
            let keys: Vec<_> = watched.iter().map(|(key, stamp)| (&**key, *stamp)).collect();
            let done = shard.transaction(&keys, &resolved, occasion, &mut reply(&mut bytes)).is_some();
            return match self.is_current(shard, leased) {
                true => Halt::Answer(Message::Replies(if done { frames(&bytes) } else { aborted() })),
                false => Halt::Close,
            };
        }
        let mut units = Vec::new();
        put_transaction(watched, requests.iter().map(OwnedArgs::encoded), &mut units);
        match timeout(OUTCOME, self.propose(shard, vec![Step::Logged], units)).await {
            Ok(Ok(PieceReply::Applied { bytes, transaction, .. })) => {
                let done = transaction.flatten().is_some();
                Halt::Answer(Message::Replies(if done { frames(&bytes) } else { aborted() }))
            }
            Ok(Ok(PieceReply::NotLeader)) => Halt::Again,
            Ok(Err(_)) | Err(_) => Halt::Answer(Message::Uncertain),
        }
    }

    fn propose(&self, shard: &Arc<Shard>, steps: Vec<Step>, units: Vec<u8>) -> oneshot::Receiver<PieceReply> {
        let (reply, outcome) = oneshot::channel();
        let piece = Piece {
            author: Some(self.author),
            tracking: !self.stamped,
            stamped: self.stamped,
            proto: Proto::Resp3,
            steps,
            reply,
        };
        if let Some(proposer) = shard.proposer() {
            proposer.submit(piece, units);
        }
        outcome
    }
}

fn reply(bytes: &mut Vec<u8>) -> Reply<'_> {
    Reply::new(bytes, Proto::Resp3)
}

fn resolve(request: &OwnedArgs) -> Option<(&'static slotcast::command::spec::Command, Needs)> {
    let command = table::resolve(request.as_args())?;
    Some((command, needs(command, request.as_args()).ok()?))
}

fn is_write(request: &OwnedArgs) -> bool {
    table::resolve(request.as_args()).is_some_and(|command| command.is_write())
}

fn lease_is_valid(shard: &Shard) -> bool {
    shard.proposer().is_some_and(|proposer| proposer.lease().is_valid(Instant::now()))
}

/// The frames that were written.
pub fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    let (mut decoder, mut frames) = (FrameDecoder::default(), Vec::new());
    while let Ok((taken, Some(frame))) = decoder.decode(bytes) {
        frames.push(frame);
        bytes = &bytes[taken..];
    }
    frames
}
