//! Near caches: the four rules of `slotcast_near_cache::l1` between clients and nodes of the simulation.
//!
//! A cache follows the stream of one node at a time, and goes on at any other from where it stands; what its users ask
//! for is served from memory, or loaded from the leader or from any copy. What the network brings it comes late at times,
//! both the stream and the replies; that is how they overtake each other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use slotcast_near_cache::l1::{L1, Limits, Lookup, Value};
use slotcast_near_cache::told::{Start, Subscribed};
use slotcast_wire::args::OwnedArgs;
use slotcast_wire::frame::Frame;
use slotcast_wire::invalidation::{Push, read_push, read_ranges, read_stamp};
use slotcast_wire::position::Position;
use tokio::time::{sleep, timeout};

use crate::client::{Client, Doors, Outcome};
use crate::feeding::Stream;
use crate::invariants::staleness::{Held, Staleness};
use crate::messages::Request;
use crate::node::NODES;
use crate::trace::Trace;
use crate::workload::{OBJECTS, Records, command, key, set_stamped};

/// Between two things a user does (ms), at most.
const THINK: u64 = 12;
/// Keys looked up at a time.
const LOOKS: usize = 4;
/// One frame, or reply, in so many is late, by up to so many milliseconds.
pub const LATE: (u32, u64) = (60, 900);
/// One frame in so many is the last of its connection.
const BREAK: u32 = 250;
/// Heartbeats that may be missing before a connection is taken for dead.
const MISSING: u32 = 4;

/// How a cache is set up.
pub struct Kind {
    bound: Duration,
    heartbeat: Duration,
    /// More of what it says to INVALIDATIONS SUBSCRIBE.
    words: &'static [&'static str],
    prefixes: &'static [&'static str],
    /// It reads from any copy, however old.
    anywhere: bool,
}

/// A cache of each kind takes part.
pub const KINDS: [Kind; 3] = [
    Kind { bound: ms(400), heartbeat: ms(50), words: &[], prefixes: &[], anywhere: false },
    Kind { bound: ms(700), heartbeat: ms(100), words: &["L1SIZE", "3"], prefixes: &[], anywhere: true },
    Kind {
        bound: ms(1500),
        heartbeat: ms(250),
        words: &["MAXDELAY", "20000"],
        prefixes: &["{o0}", "{o5}", "{o6}", "{o7}"],
        anywhere: true,
    },
];

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A cache. A cheap handle.
#[derive(Clone)]
pub struct Near {
    pub number: usize,
    pub l1: Arc<L1>,
    kind: &'static Kind,
    staleness: Staleness,
    doors: Doors,
    trace: Trace,
    /// Subscriptions begun of shards, by how: resumed or behind, fresh, flush, not served.
    pub starts: Arc<parking_lot::Mutex<[usize; 4]>>,
}

impl Near {
    /// An empty cache of a kind.
    pub fn new(number: usize, staleness: Staleness, doors: Doors, trace: Trace) -> Near {
        let kind = &KINDS[number];
        let prefixes = kind.prefixes.iter().map(|prefix| Bytes::from_static(prefix.as_bytes())).collect();
        let limits = Limits { max_entries: 1000, max_bytes: 1 << 20, max_staleness: kind.bound, prefixes };
        let l1 = Arc::new(L1::new(limits));
        let number = staleness.watch(l1.clone(), kind.bound);
        Near { number, l1, kind, staleness, doors, trace, starts: Arc::default() }
    }

    fn now(&self) -> Duration {
        ms(self.trace.now())
    }

    /// Whether the network is to do something bad that it does once in so many times.
    fn is_due(&self, rng: &mut SmallRng, one_in: u32) -> bool {
        self.staleness.is_stormy() && rng.random_ratio(1, one_in)
    }

    async fn travel(&self, rng: &mut SmallRng) {
        let (one_in, longest) = LATE;
        let longest = if self.is_due(rng, one_in) { longest } else { 2 };
        sleep(ms(rng.random_range(0..=longest))).await;
    }

    /// What is in memory of a key.
    pub fn look(&self, key: &str) -> Lookup {
        let found = self.l1.lookup(key.as_bytes(), self.now());
        self.staleness.looked_up(self.number, key.as_bytes(), &found);
        found
    }
}

/// Uses a cache until told to stop.
pub async fn keep_using(near: Near, mut client: Client, records: Records, stop: Arc<AtomicBool>) -> Client {
    while !stop.load(Ordering::Relaxed) {
        client.pause(THINK).await;
        for _ in 0..LOOKS {
            near.look(&key(client.rng.random_range(0..OBJECTS), client.rng.random_range(0..2)));
        }
        let (object, field) = (client.rng.random_range(0..OBJECTS), client.rng.random_range(0..2));
        if client.rng.random_ratio(1, 12) {
            write(&near, &mut client, &records, (object, field)).await;
        } else if !matches!(near.look(&key(object, field)), Lookup::Hit(_)) {
            load(&near, &mut client, &key(object, field)).await;
        }
    }
    client
}

async fn load(near: &Near, client: &mut Client, key: &str) {
    let asked = near.trace.now();
    let anywhere = near.kind.anywhere && client.rng.random();
    let request = Request::Stamped { command: command(&["GET", key]), anywhere };
    let outcome = match anywhere {
        true => {
            let node = client.rng.random_range(0..NODES);
            client.request_at(node, &request).await.unwrap_or(Outcome::Refused)
        }
        false => client.request(&request).await,
    };
    let Outcome::Replies(replies) = outcome else { return };
    let Some((stamp, pttl, reply)) = stamped(&replies) else { return };
    near.travel(&mut client.rng).await;
    let value = reply.as_bytes().map(Bytes::copy_from_slice);
    take_in(near, key, value, (stamp, pttl), asked, false);
}

async fn write(near: &Near, client: &mut Client, records: &Records, (object, field): (usize, usize)) {
    let (asked, key) = (near.trace.now(), key(object, field));
    let (value, outcome) = set_stamped(client, records, (object, field)).await;
    match outcome {
        Outcome::Replies(replies) => {
            let Some((stamp, pttl, _)) = stamped(&replies) else { return };
            near.travel(&mut client.rng).await;
            take_in(near, &key, Some(value.into()), (stamp, pttl), asked, true);
        }
        Outcome::Unknown => near.l1.forget(key.as_bytes()),
        Outcome::Refused => {}
    }
}

fn stamped(replies: &[Frame]) -> Option<(Position, i64, &Frame)> {
    let Some(Frame::Attributed(attributes, reply)) = replies.first() else { return None };
    let (stamp, pttl) = read_stamp(attributes)?;
    Some((stamp, pttl, reply))
}

fn take_in(
    near: &Near,
    key: &str,
    value: Option<Bytes>,
    (position, pttl): (Position, i64),
    asked: u64,
    written: bool,
) {
    let expires_at = u64::try_from(pttl).ok().map(|left| asked + left);
    let (name, bytes) = (Bytes::copy_from_slice(key.as_bytes()), value.clone());
    let taken = Value { bytes, stamp: position, expires_at: expires_at.map(ms) };
    let is_in = match written {
        true => {
            near.l1.written(name, taken);
            near.l1.lookup(key.as_bytes(), near.now()) != Lookup::Miss
        }
        false => near.l1.fill(name, taken),
    };
    if is_in {
        let held = Held { value, position, written, expires_at };
        near.staleness.filled(near.number, key.as_bytes(), held);
    }
}

/// Follows the stream for ever, from node to node.
pub async fn follow(near: Near, seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed.wrapping_mul(211).wrapping_add(near.number as u64));
    let mut node = near.number % NODES;
    loop {
        let door = near.doors.lock()[node].clone();
        if let Some(door) = door {
            let mut following = Following { near: &near, rng: &mut rng, stream: door.follow(), node };
            let why = following.run().await.unwrap_err();
            near.trace.note(format!("near cache {} leaves node {node}: {why}", near.number));
        }
        sleep(ms(rng.random_range(1..100))).await;
        node = (node + rng.random_range(1..NODES)) % NODES;
    }
}

/// A subscription.
struct Following<'a> {
    near: &'a Near,
    rng: &'a mut SmallRng,
    stream: Stream,
    node: usize,
}

impl Following<'_> {
    /// Until it ends, for a reason.
    async fn run(&mut self) -> Result<(), &'static str> {
        let begun = self.near.now();
        let mut answered = begun;
        let mut asked: VecDeque<Duration> = VecDeque::new();
        self.ask(self.subscription())?;
        let Frame::Map(shards) = self.frame().await? else { return Err("an answer that does not fit") };
        for (shard, subscribed) in &shards {
            self.begin(shard, subscribed).ok_or("an answer that does not fit")?;
        }
        loop {
            let frame = self.frame().await?;
            match read_push(&frame) {
                Some(push) => {
                    self.near.l1.take(&push, Some(answered)).map_err(|_| "something was left out")?;
                    if !matches!(push, Push::Heartbeat(_)) {
                        continue;
                    }
                    if self.near.now() - begun > self.near.kind.bound && self.is_stale() {
                        return Err("it is cut off");
                    }
                    if asked.is_empty() && !self.near.l1.cursors().is_empty() {
                        asked.push_back(self.near.now());
                        self.ask(self.acknowledgement())?;
                    }
                }
                None => answered = asked.pop_front().ok_or("an answer to nothing")?,
            }
        }
    }

    fn ask(&self, request: OwnedArgs) -> Result<(), &'static str> {
        self.stream.requests.send(request).map_err(|_| "it is gone")
    }

    /// The next frame, after its travel.
    async fn frame(&mut self) -> Result<Frame, &'static str> {
        let silence = self.near.kind.heartbeat * MISSING;
        let frame = match timeout(silence, self.stream.frames.recv()).await {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                // Not everybody who dies says so.
                if self.rng.random() {
                    sleep(silence).await;
                }
                return Err("it is gone");
            }
            Err(_) => return Err("it is silent"),
        };
        self.near.travel(self.rng).await;
        match self.near.is_due(self.rng, BREAK) {
            true => Err("the connection broke"),
            false => Ok(frame),
        }
    }

    fn subscription(&self) -> OwnedArgs {
        let Kind { words, prefixes, heartbeat, .. } = self.near.kind;
        let mut all: Vec<String> = ["INVALIDATIONS", "SUBSCRIBE"].map(String::from).into();
        all.extend(words.iter().map(ToString::to_string));
        all.extend(prefixes.iter().flat_map(|prefix| ["PREFIX".to_owned(), prefix.to_string()]));
        all.extend(["HEARTBEAT".to_owned(), heartbeat.as_millis().to_string()]);
        let cursors = self.near.l1.cursors();
        if !cursors.is_empty() {
            all.push("FROM".to_owned());
            all.extend(cursors.iter().map(Position::to_string));
        }
        all.iter().collect()
    }

    fn acknowledgement(&self) -> OwnedArgs {
        let words = ["INVALIDATIONS", "ACK"].map(String::from);
        words.into_iter().chain(self.near.l1.cursors().iter().map(Position::to_string)).collect()
    }

    /// `shard => [status, lineage, index, epoch, [first last ...], address]`
    fn begin(&self, shard: &Frame, subscribed: &Frame) -> Option<()> {
        let (Frame::Integer(shard), Frame::Array(parts)) = (shard, subscribed) else { return None };
        let [status, Frame::Integer(lineage), Frame::Integer(index), Frame::Integer(epoch), slots, ..] =
            parts.as_slice()
        else {
            return None;
        };
        let (start, kind) = match status.as_bytes()? {
            b"resumed" | b"behind" => (Some(Start::Resumed), 0),
            b"fresh" => (Some(Start::Fresh), 1),
            b"flush" => (Some(Start::Flush), 2),
            _ => (None, 3),
        };
        self.near.starts.lock()[kind] += 1;
        let position = Position { shard: *shard as u32, lineage: *lineage as u64, index: *index as u64 };
        let status = String::from_utf8_lossy(status.as_bytes()?);
        let (number, node) = (self.near.number, self.node);
        self.near.trace.note(format!("near cache {number} follows node {node}: {status} {position}"));
        if let Some(start) = start {
            let (epoch, slots) = (*epoch as u64, read_ranges(slots)?);
            self.near.l1.subscribed(&Subscribed { start, position, epoch, slots });
        }
        Some(())
    }

    /// Whether this node has had nothing to vouch for some shard with for too long.
    fn is_stale(&self) -> bool {
        let now = self.near.now();
        let fresh = |at: Duration| now.saturating_sub(at) <= self.near.kind.bound;
        !self.near.l1.cursors().iter().all(|cursor| self.near.l1.verified_at(cursor.shard).is_some_and(fresh))
    }
}
