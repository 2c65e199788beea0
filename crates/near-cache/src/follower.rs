//! Does what [`Follow`] decides: the one task that listens to all streams and tells the cache.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use slotcast_wire::frame::Frame;
use slotcast_wire::invalidation::{Push, read_ranges};
use slotcast_wire::position::Position;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::cluster::Cluster;
use crate::connection::request;
use crate::follow::{Act, Follow, Node, Offer};
use crate::l1::L1;
use crate::options::Options;
use crate::stream::{Stream, Told, What};
use crate::told::{Start, Subscribed};

/// Frames that may wait to be taken in; beyond it the sockets aren't read.
const MAX_UNTAKEN: usize = 256;
/// Shards of which somebody has read a value though they aren't followed; more are found out about later.
pub const MAX_UNHEARD: usize = 16;
/// So often it is seen what is to be done, and while all is well.
const LOOKS: Duration = Duration::from_millis(20);
const CALM_LOOKS: Duration = Duration::from_millis(100);
/// So many heartbeats in a row may be missing, and a moment, before a stream isn't trusted any more.
const MISSING_HEARTBEATS: u32 = 3;
const MOMENT: Duration = Duration::from_millis(250);
/// One node is asked for what it has, or for the slots, for so long.
const ASK: Duration = Duration::from_millis(1500);
/// Changed keys that are worth naming after an absence; beyond it the server names slots. Its own limit is a million.
const NAMED_KEYS: usize = 100_000;

/// What has happened to subscriptions since the cache was made.
#[derive(Debug, Default)]
pub struct Starts {
    /// Of a shard, without a position.
    pub fresh: AtomicU64,
    /// Of a shard, where the cache stood.
    pub resumed: AtomicU64,
    /// It could not be: the shard's slots were dropped.
    pub flushed: AtomicU64,
    /// Subscriptions made, of one shard or more.
    pub connected: AtomicU64,
    /// Nodes that are listened to now.
    pub streams: AtomicU64,
    /// Shards known now.
    pub shards: AtomicU64,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Follower {
    /// What is told.
    pub l1: Arc<L1>,
    /// Where nodes are.
    pub cluster: Arc<Cluster>,
    /// Prefixes, times.
    pub options: Options,
    /// What durations are counted from.
    pub origin: Instant,
    /// What has happened.
    pub starts: Arc<Starts>,
    /// Shards that a reply came from and nobody follows.
    pub unheard: mpsc::Receiver<u32>,
}

/// What the others find out for the task.
enum Found {
    Located(Vec<Node>),
    Offered(Node, Option<Vec<(u32, Offer)>>),
}

struct State {
    follower: Follower,
    follow: Follow,
    streams: HashMap<Node, Stream>,
    ids: u64,
    tell: mpsc::Sender<Told>,
    asking: JoinSet<Found>,
}

impl Follower {
    /// Follows all shards for ever.
    pub async fn run(self) {
        let (tell, mut told) = mpsc::channel(MAX_UNTAKEN);
        // Elsewhere before reads have to go to the cluster.
        let patience = (self.options.max_staleness / 2).max(self.options.heartbeat * 2 + MOMENT);
        let follow = Follow::new(patience, rand::random());
        let (streams, asking) = (HashMap::new(), JoinSet::new());
        let mut state = State { follower: self, follow, streams, ids: 0, tell, asking };
        let mut next = Instant::now();
        loop {
            tokio::select! {
                told = told.recv() => {
                    // Pushes come by the thousand and seldom give anything to decide.
                    if !told.is_some_and(|told| state.take(told)) {
                        continue;
                    }
                }
                Some(Ok(found)) = state.asking.join_next() => state.found(found),
                Some(shard) = state.follower.unheard.recv() => {
                    let now = state.now();
                    state.follow.heard_of(shard, now);
                }
                _ = sleep_until(next) => {}
            }
            state.look();
            next = Instant::now() + if state.follow.is_calm() { CALM_LOOKS } else { LOOKS };
        }
    }

    fn silence(&self) -> Duration {
        self.options.heartbeat * MISSING_HEARTBEATS + MOMENT
    }

    fn subscription(&self, shards: &[u32]) -> Vec<Vec<u8>> {
        let Options { prefixes, heartbeat, max_entries, .. } = &self.options;
        let mut words: Vec<Vec<u8>> = vec![b"INVALIDATIONS".into(), b"SUBSCRIBE".into()];
        for prefix in prefixes {
            words.extend([b"PREFIX".to_vec(), prefix.to_vec()]);
        }
        words.extend([b"L1SIZE".to_vec(), (*max_entries).clamp(1, NAMED_KEYS).to_string().into()]);
        words.extend([b"HEARTBEAT".to_vec(), heartbeat.as_millis().to_string().into()]);
        let mut cursors = shards.iter().filter_map(|shard| self.l1.cursor(*shard)).peekable();
        if cursors.peek().is_some() {
            words.push(b"FROM".into());
            words.extend(cursors.map(|cursor| cursor.to_string().into()));
        }
        words
    }
}

impl State {
    fn now(&self) -> Duration {
        self.follower.origin.elapsed()
    }

    /// Sees what is to be done, and does it.
    fn look(&mut self) {
        let now = self.now();
        let overdue: Vec<Node> = self.streams_that(|stream| stream.is_overdue(now));
        overdue.iter().for_each(|node| self.lose(node));
        for act in self.follow.decide(&self.follower.l1, now) {
            match act {
                Act::Locate => self.locate(),
                Act::Ask(node) => self.ask(node),
                Act::Subscribe(node, shards) => self.subscribe(node, &shards),
                Act::Leave(node) => drop(self.streams.remove(&node)),
            }
        }
        let Starts { streams, shards, .. } = &*self.follower.starts;
        streams.store(self.streams.len() as u64, Ordering::Relaxed);
        shards.store(self.follow.shards() as u64, Ordering::Relaxed);
    }

    fn streams_that(&self, are: impl Fn(&Stream) -> bool) -> Vec<Node> {
        self.streams.iter().filter(|(_, stream)| are(stream)).map(|(node, _)| node.clone()).collect()
    }

    fn lose(&mut self, node: &Node) {
        self.streams.remove(node);
        let now = self.now();
        self.follow.lost(node, now);
    }

    fn locate(&mut self) {
        let cluster = self.follower.cluster.clone();
        self.asking.spawn(async move {
            let _ = cluster.refresh(Instant::now() + ASK).await; // or it goes on with those it knows
            Found::Located(cluster.addresses().into_iter().map(Node::from).collect())
        });
    }

    fn ask(&mut self, node: Node) {
        let cluster = self.follower.cluster.clone();
        self.asking.spawn(async move {
            let words = request(&["INVALIDATIONS", "STATUS"]);
            let answer = timeout(ASK, cluster.ask(&node, words)).await;
            let offers = answer.ok().and_then(Result::ok).and_then(|answer| read_offers(&answer.frame));
            Found::Offered(node, offers)
        });
    }

    fn found(&mut self, found: Found) {
        let now = self.now();
        match found {
            Found::Located(nodes) => self.follow.located(nodes, now),
            Found::Offered(node, offers) => self.follow.offered(&node, offers, now),
        }
    }

    fn subscribe(&mut self, node: Node, shards: &[u32]) {
        let now = self.now();
        let words = self.follower.subscription(shards);
        if !self.streams.contains_key(&node) {
            self.ids += 1;
            let target = (node.clone(), self.follower.options.reached(&node), self.ids);
            let opened = Stream::open(target, self.follower.silence(), self.tell.clone(), now);
            self.streams.insert(node.clone(), opened);
        }
        if !self.streams.get_mut(&node).is_some_and(|stream| stream.send(&words, now)) {
            self.lose(&node);
        }
    }

    /// Whether there may be something to decide.
    fn take(&mut self, Told { node, stream, what }: Told) -> bool {
        let now = self.now();
        // Of one that was given up.
        let Some(known) = self.streams.get_mut(&node).filter(|known| known.id == stream) else {
            return false;
        };
        match what {
            What::Push(push) => {
                self.follow.take(&self.follower.l1, &node, &push, known.answered(), now);
                if matches!(push, Push::Heartbeat(_)) {
                    self.acknowledge(&node, now);
                }
                return false;
            }
            What::Reply(frame) => {
                known.answer();
                if let Frame::Map(shards) = &frame {
                    let begun: Option<Vec<_>> = shards.iter().map(read_begun).collect();
                    match begun {
                        Some(begun) => self.begin(&node, &begun, now),
                        None => self.lose(&node),
                    }
                } else if frame.as_error().is_some() {
                    self.lose(&node);
                }
            }
            What::Lost => self.lose(&node),
        }
        true
    }

    fn begin(&mut self, node: &Node, begun: &[(u32, Option<Subscribed>)], now: Duration) {
        let Starts { fresh, resumed, flushed, connected, .. } = &*self.follower.starts;
        connected.fetch_add(1, Ordering::Relaxed);
        for start in self.follow.answered(&self.follower.l1, node, begun, now) {
            let count = match start {
                Start::Fresh => fresh,
                Start::Resumed => resumed,
                Start::Flush => flushed,
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Asks the next question.
    fn acknowledge(&mut self, node: &Node, now: Duration) {
        let Some(stream) = self.streams.get_mut(node).filter(|stream| stream.is_idle()) else { return };
        let cursors = self.follow.followed_at(node).filter_map(|shard| self.follower.l1.cursor(shard));
        let mut words = vec!["INVALIDATIONS".to_owned(), "ACK".to_owned()];
        words.extend(cursors.map(|cursor: Position| cursor.to_string()));
        if words.len() > 2 && !stream.send(&words, now) {
            self.lose(node);
        }
    }
}

/// Of the reply to SUBSCRIBE: `shard => [status, lineage, index, epoch, [first last ...], address]`
fn read_begun((shard, begun): &(Frame, Frame)) -> Option<(u32, Option<Subscribed>)> {
    let (Frame::Integer(shard), Frame::Array(parts)) = (shard, begun) else { return None };
    let shard = u32::try_from(*shard).ok()?;
    let [status, Frame::Integer(lineage), Frame::Integer(index), Frame::Integer(epoch), slots, ..] =
        parts.as_slice()
    else {
        return None;
    };
    let start = match status.as_bytes()? {
        b"fresh" => Start::Fresh,
        b"resumed" | b"behind" => Start::Resumed,
        b"flush" => Start::Flush,
        _ => return Some((shard, None)),
    };
    let (lineage, index) = (u64::try_from(*lineage).ok()?, u64::try_from(*index).ok()?);
    let (epoch, slots) = (u64::try_from(*epoch).ok()?, read_ranges(slots)?);
    let position = Position { shard, lineage, index };
    // A history that has not begun has no positions.
    let begun = (lineage != 0).then_some(Subscribed { start, position, epoch, slots });
    Some((shard, begun))
}

/// The reply to STATUS: `shard => {lineage, floor, ...}`
fn read_offers(frame: &Frame) -> Option<Vec<(u32, Offer)>> {
    let Frame::Map(shards) = frame else { return None };
    let number = |fields: &[(Frame, Frame)], name: &[u8]| {
        let (_, value) = fields.iter().find(|(field, _)| field.as_bytes() == Some(name))?;
        let Frame::Integer(value) = value else { return None };
        u64::try_from(*value).ok()
    };
    let offer = |(shard, fields): &(Frame, Frame)| {
        let (Frame::Integer(shard), Frame::Map(fields)) = (shard, fields) else { return None };
        let (lineage, floor) = (number(fields, b"lineage")?, number(fields, b"floor")?);
        Some((u32::try_from(*shard).ok()?, Offer { lineage, floor }))
    };
    shards.iter().map(offer).collect()
}
