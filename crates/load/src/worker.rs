//! One connection's closed loop, where its keys come from, and what all connections' counts add up to.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use slotcast_wire::frame::{Frame, FrameDecoder};
use slotcast_wire::range::slot_range;
use slotcast_wire::slot::slot_of;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Op;
use crate::batch::{self, Batch};
use crate::histogram::Histogram;
use crate::replies;

/// Room for the replies of one read.
const READ_BYTES: usize = 64 * 1024;

/// The key numbers a connection draws from.
pub enum KeySource {
    /// All numbers below this one.
    All(u32),
    /// Only these: the keys whose slots one master owns.
    Listed(Vec<u32>),
}

impl KeySource {
    fn len(&self) -> usize {
        match self {
            KeySource::All(count) => *count as usize,
            KeySource::Listed(numbers) => numbers.len(),
        }
    }

    fn at(&self, index: usize) -> u32 {
        match self {
            KeySource::All(_) => index as u32,
            KeySource::Listed(numbers) => numbers[index],
        }
    }
}

/// What connections saw.
#[derive(Default)]
pub struct Outcome {
    replies: u64,
    errors: u64,
    misses: u64,
    first_error: Option<String>,
    latencies: Histogram,
}

impl Outcome {
    /// Adds another connection's counts.
    pub fn add(&mut self, other: Outcome) {
        self.replies += other.replies;
        self.errors += other.errors;
        self.misses += other.misses;
        self.first_error = self.first_error.take().or(other.first_error);
        self.latencies.merge(&other.latencies);
    }

    /// One line for the program that started this one.
    pub fn to_json(&self, elapsed: Duration) -> String {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|quantile| self.latencies.quantile_us(quantile));
        let first = self.first_error.as_deref().unwrap_or("").replace(['"', '\\'], "'");
        format!(
            "{{\"operations\": {}, \"errors\": {}, \"misses\": {}, \"first_error\": \"{first}\", \"seconds\": {:.6}, \
             \"p50_us\": {p50:.1}, \"p99_us\": {p99:.1}, \"p999_us\": {p999:.1}}}",
            self.replies,
            self.errors,
            self.misses,
            elapsed.as_secs_f64()
        )
    }
}

/// One connection.
pub struct Worker {
    stream: TcpStream,
    keys: Rc<KeySource>,
    batch: Batch,
    random: u64,
    /// Filling: the next index to write, and how far apart a connection's indices are.
    next: usize,
    step: usize,
}

impl Worker {
    /// Connects. `share` is this connection's number among those with the same keys, and how many these are.
    pub async fn connect(
        address: SocketAddr,
        keys: Rc<KeySource>,
        share: (usize, usize),
        batch: Batch,
    ) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let random =
            0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(share.0 as u64 * 2 + u64::from(address.port()) + 1) | 1;
        Ok(Self { stream, keys, batch, random, next: share.0, step: share.1 })
    }

    /// Sends batch after batch until `end` (filling: until its share of the keys is written).
    pub async fn run(mut self, end: Option<Instant>) -> io::Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut received = Vec::with_capacity(2 * READ_BYTES);
        loop {
            let sent = Instant::now();
            if end.is_some_and(|end| sent >= end) {
                return Ok(outcome);
            }
            let count = self.send().await?;
            if count == 0 {
                return Ok(outcome);
            }
            self.receive(count, &mut received, &mut outcome).await?;
            outcome.latencies.add(sent.elapsed().as_nanos() as u64, count as u64);
        }
    }

    /// Writes one batch; gives the number of requests in it.
    async fn send(&mut self) -> io::Result<usize> {
        let Worker { keys, random, next, step, .. } = self;
        let total = keys.len();
        let (bytes, count) = if self.batch.op == Op::Fill {
            let left = total.saturating_sub(*next).div_ceil(*step);
            self.batch.fill(left, || keys.at(std::mem::replace(next, *next + *step)))
        } else {
            self.batch.fill(usize::MAX, || keys.at(draw(random, total)))
        };
        self.stream.write_all(bytes).await?;
        Ok(count)
    }

    async fn receive(
        &mut self,
        mut missing: usize,
        received: &mut Vec<u8>,
        outcome: &mut Outcome,
    ) -> io::Result<()> {
        while missing > 0 {
            received.reserve(READ_BYTES);
            if self.stream.read_buf(received).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed a connection"));
            }
            let seen = replies::scan(received, &mut outcome.first_error).map_err(io::Error::other)?;
            missing = missing
                .checked_sub(seen.replies)
                .ok_or_else(|| io::Error::other("more replies than requests"))?;
            outcome.replies += seen.replies as u64;
            outcome.errors += seen.errors as u64;
            outcome.misses += seen.misses as u64;
            if seen.used == received.len() {
                received.clear();
            } else {
                received.drain(..seen.used);
            }
        }
        Ok(())
    }
}

/// xorshift64*, spread over `0..total` by multiplication.
fn draw(state: &mut u64, total: usize) -> usize {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    let random = state.wrapping_mul(0x2545_F491_4F6C_DD1D);
    ((u128::from(random) * total as u128) >> 64) as usize
}

/// Asks one node for CLUSTER SLOTS and lists, for each master, the numbers of the keys that are its.
pub async fn split_by_master(node: SocketAddr, keys: u32) -> io::Result<Vec<(SocketAddr, Rc<KeySource>)>> {
    let owners = slot_owners(node).await?;
    let mut lists: BTreeMap<SocketAddr, Vec<u32>> = BTreeMap::new();
    for number in 0..keys {
        let slot = slot_of(&batch::key(number));
        let owner = owners[usize::from(slot)]
            .ok_or_else(|| io::Error::other(format!("nobody serves slot {slot}")))?;
        lists.entry(owner).or_default().push(number);
    }
    Ok(lists.into_iter().map(|(owner, list)| (owner, Rc::new(KeySource::Listed(list)))).collect())
}

async fn slot_owners(node: SocketAddr) -> io::Result<Vec<Option<SocketAddr>>> {
    let mut stream = TcpStream::connect(node).await?;
    stream.write_all(b"*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n").await?;
    let (mut received, mut decoder, mut start) = (Vec::new(), FrameDecoder::default(), 0);
    let reply = loop {
        if stream.read_buf(&mut received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (used, frame) =
            decoder.decode(&received[start..]).map_err(|error| io::Error::other(format!("{error:?}")))?;
        start += used;
        if let Some(frame) = frame {
            break frame;
        }
    };
    let mut owners = vec![None; 16384];
    let Frame::Array(ranges) = reply else {
        return Err(io::Error::other(format!("CLUSTER SLOTS answered {reply:?}")));
    };
    for range in &ranges {
        let (slots, owner) = slot_range(range, node)
            .ok_or_else(|| io::Error::other(format!("not a slot range: {range:?}")))?;
        owners[usize::from(*slots.start())..=usize::from(*slots.end())].fill(Some(owner));
    }
    Ok(owners)
}
