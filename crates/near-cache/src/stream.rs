//! The stream of invalidations: one connection of its own to one node at a time, whichever answers.
//!
//! Every node with a copy of a shard streams its changes. When the connection ends, or a node has nothing to vouch with
//! for longer than the cache may trust it, another is asked to go on from where the cache stands.
//!
//! A heartbeat says how long ago a quorum stood behind the stream, by the server's clock, as of when it was *written*; it
//! may have been on its way for long. So the cache asks now and then (INVALIDATIONS ACK) and counts a heartbeat's age
//! from when it asked the last question that was answered before it: then no delay makes old news look new.

use std::collections::VecDeque;
use std::io::{Error as IoError, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use slotcast_wire::frame::{Frame, FrameDecoder};
use slotcast_wire::invalidation::{Push, read_push, read_ranges};
use slotcast_wire::position::Position;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep, timeout};

use crate::cluster::{Cluster, jittered};
use crate::connection::{Socket, dial, request};
use crate::l1::L1;
use crate::options::Options;
use crate::told::{Start, Subscribed};

/// Of the pauses between attempts: the first is up to this, each may be twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// A node must have answered SUBSCRIBE within this.
const ANSWER: Duration = Duration::from_secs(2);
/// So many heartbeats in a row may be missing, and a moment, before the connection is taken for dead.
const MISSING_HEARTBEATS: u32 = 3;
const MOMENT: Duration = Duration::from_millis(250);
/// Changed keys that are worth naming after an absence; beyond it the server names slots. Its own limit is a million.
const NAMED_KEYS: usize = 100_000;

/// How subscriptions began, counted by shard, since the cache was made.
#[derive(Debug, Default)]
pub struct Starts {
    /// Without a position.
    pub fresh: AtomicU64,
    /// Where the cache stood.
    pub resumed: AtomicU64,
    /// It could not be: the shard's slots were dropped.
    pub flushed: AtomicU64,
    /// Subscriptions made.
    pub connected: AtomicU64,
}

/// What the stream's task needs.
#[derive(Debug)]
pub struct Stream {
    /// What is told.
    pub l1: Arc<L1>,
    /// Where nodes are.
    pub cluster: Arc<Cluster>,
    /// Seeds, prefixes, times.
    pub options: Options,
    /// What durations are counted from.
    pub origin: Instant,
    /// What has happened.
    pub starts: Arc<Starts>,
}

/// A subscription that stands.
struct Following {
    socket: Socket,
    /// When each question was asked that isn't answered yet.
    asked: VecDeque<Duration>,
    /// When the last one was that is.
    answered: Duration,
    since: Instant,
}

impl Stream {
    /// Follows the stream for ever, from node to node.
    pub async fn run(self) {
        let (mut pause, mut last) = (FIRST_PAUSE, String::new());
        loop {
            let mut addresses = self.cluster.addresses();
            // Rather another than the one that was just lost.
            addresses.sort_by_key(|address| *address == last);
            for address in addresses {
                last = address;
                if let Ok(following) = self.subscribe(&last).await {
                    pause = FIRST_PAUSE;
                    self.starts.connected.fetch_add(1, Ordering::Relaxed);
                    // Why it ended doesn't matter: what was missed comes from the next node.
                    let _ = self.follow(following).await;
                    break;
                }
            }
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            let _ = self.cluster.refresh(Instant::now() + ANSWER).await; // or it tries those it knows
        }
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    async fn subscribe(&self, address: &str) -> std::io::Result<Following> {
        let stream = dial(&self.options.reached(address)).await.map_err(IoError::other)?;
        let mut socket = Socket { stream, input: BytesMut::new(), decoder: FrameDecoder::default() };
        let asked_at = self.now();
        let mut requests = request(&["HELLO", "3"]);
        requests.extend(self.request());
        socket.stream.write_all(&requests).await?;
        for _ in 0..2 {
            let frame = timeout(ANSWER, socket.frame()).await??;
            if let Some(error) = frame.as_error() {
                return Err(IoError::other(error.into_owned()));
            }
            let Frame::Map(shards) = frame else { return Err(ErrorKind::InvalidData.into()) };
            // HELLO's is a map too, whose keys are no numbers.
            shards.iter().filter(|(shard, _)| matches!(shard, Frame::Integer(_))).try_for_each(
                |(shard, begun)| self.begin(shard, begun).ok_or(IoError::from(ErrorKind::InvalidData)),
            )?;
        }
        Ok(Following { socket, asked: VecDeque::new(), answered: asked_at, since: Instant::now() })
    }

    fn request(&self) -> Vec<u8> {
        let Options { prefixes, heartbeat, max_entries, .. } = &self.options;
        let mut words: Vec<Vec<u8>> = vec![b"INVALIDATIONS".into(), b"SUBSCRIBE".into()];
        for prefix in prefixes {
            words.extend([b"PREFIX".to_vec(), prefix.to_vec()]);
        }
        words.extend([b"L1SIZE".to_vec(), (*max_entries).clamp(1, NAMED_KEYS).to_string().into()]);
        words.extend([b"HEARTBEAT".to_vec(), heartbeat.as_millis().to_string().into()]);
        let cursors = self.l1.cursors();
        if !cursors.is_empty() {
            words.push(b"FROM".into());
            words.extend(cursors.iter().map(|cursor| cursor.to_string().into()));
        }
        request(&words)
    }

    /// `shard => [status, lineage, index, epoch, [first last ...], address]`
    fn begin(&self, shard: &Frame, begun: &Frame) -> Option<()> {
        let (Frame::Integer(shard), Frame::Array(parts)) = (shard, begun) else { return None };
        let [status, Frame::Integer(lineage), Frame::Integer(index), Frame::Integer(epoch), slots, ..] =
            parts.as_slice()
        else {
            return None;
        };
        let (start, count) = match status.as_bytes()? {
            b"fresh" => (Start::Fresh, &self.starts.fresh),
            b"resumed" | b"behind" => (Start::Resumed, &self.starts.resumed),
            b"flush" => (Start::Flush, &self.starts.flushed),
            // This node has no copy of it: nobody vouches for its entries, and reads go to the cluster.
            _ => return Some(()),
        };
        let position = Position {
            shard: u32::try_from(*shard).ok()?,
            lineage: u64::try_from(*lineage).ok()?,
            index: u64::try_from(*index).ok()?,
        };
        let (epoch, slots) = (u64::try_from(*epoch).ok()?, read_ranges(slots)?);
        self.l1.subscribed(&Subscribed { start, position, epoch, slots });
        count.fetch_add(1, Ordering::Relaxed);
        Some(())
    }

    async fn follow(&self, mut following: Following) -> std::io::Result<()> {
        let silence = self.options.heartbeat * MISSING_HEARTBEATS + MOMENT;
        loop {
            let frame = timeout(silence, following.socket.frame()).await??;
            match read_push(&frame) {
                Some(push) => {
                    let taken = self.l1.take(&push, Some(following.answered));
                    taken.map_err(|_| IoError::other("the stream has left something out"))?;
                    if matches!(push, Push::Heartbeat(_)) {
                        self.heartbeat(&mut following).await?;
                    }
                }
                None if matches!(frame, Frame::Push(_)) => {}
                None => {
                    if let Some(error) = frame.as_error() {
                        return Err(IoError::other(error.into_owned()));
                    }
                    following.answered = following.asked.pop_front().unwrap_or(following.answered);
                }
            }
        }
    }

    /// Asks the next question; leaves a node that has had nothing to vouch with for too long.
    async fn heartbeat(&self, following: &mut Following) -> std::io::Result<()> {
        let (now, cursors) = (self.now(), self.l1.cursors());
        let patience = self.options.max_staleness.max(MOMENT * 2);
        let stale = |cursor: &Position| {
            self.l1.verified_at(cursor.shard).is_none_or(|at| now.saturating_sub(at) > patience)
        };
        if following.since.elapsed() > patience && cursors.iter().any(stale) {
            return Err(IoError::other("the node is cut off from the others"));
        }
        if following.asked.is_empty() && !cursors.is_empty() {
            let mut words = vec!["INVALIDATIONS".to_owned(), "ACK".to_owned()];
            words.extend(cursors.iter().map(Position::to_string));
            following.asked.push_back(now);
            following.socket.stream.write_all(&request(&words)).await?;
        }
        Ok(())
    }
}
