//! Sends GET or SET as fast as one core can and prints what came of it as one line of JSON.
//!
//! A closed loop: each connection writes a batch of `--pipeline` requests, waits for all their replies and goes on. Keys are
//! 16 bytes (`key:` and twelve digits), drawn uniformly from `--keys`. Unlike redis-benchmark it reports p99.9, counts error
//! replies and misses apart from successes, can fill a server with every key once, and spends little of its own core.

mod batch;
mod histogram;
mod replies;
mod track;
mod worker;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use tokio::task::LocalSet;

use crate::batch::Batch;
use crate::track::{Mode, Trackers};
use crate::worker::{KeySource, Outcome, Worker};

/// What to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Op {
    /// GET of a random key.
    Get,
    /// SET of a random key.
    Set,
    /// SET of every key once, in order; ends when all are written.
    Fill,
    /// Nothing: clients that track, until they are killed.
    Track,
}

/// The load generator of scripts/bench.
#[derive(Debug, Parser)]
struct Flags {
    /// Address of the server; with --cluster any of its nodes.
    #[arg(long, default_value = "127.0.0.1:6379")]
    server: SocketAddr,
    /// What to send.
    #[arg(long, value_enum)]
    op: Op,
    /// Number of distinct keys.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u32,
    /// Bytes of a value.
    #[arg(long, default_value_t = 64)]
    value: usize,
    /// Requests on the way per connection.
    #[arg(long, default_value_t = 1)]
    pipeline: usize,
    /// Connections, spread over the masters with --cluster.
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// How long to measure.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Ask CLUSTER SLOTS and send each key to its slot's master.
    #[arg(long)]
    cluster: bool,
    /// How clients track (--op track).
    #[arg(long, value_enum, default_value_t = Mode::Reads)]
    mode: Mode,
    /// How many keys they have read together.
    #[arg(long, default_value_t = 10_000)]
    tracked: u32,
    /// Number of the first of these keys: beyond --keys they are none that SET writes.
    #[arg(long, default_value_t = 0)]
    first: u32,
    /// They read again what they are told has changed.
    #[arg(long)]
    again: bool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let flags = Flags::parse();
    if flags.pipeline == 0 || flags.connections == 0 || flags.keys == 0 {
        return Err("--pipeline, --connections and --keys must be at least 1".into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if flags.op == Op::Track {
        let Flags { server, mode, connections, keys, tracked, first, again, .. } = flags;
        let trackers = Trackers { server, mode, connections, keys, tracked, first, again };
        return Ok(LocalSet::new().block_on(&runtime, trackers.run())?);
    }
    let line = LocalSet::new().block_on(&runtime, run(flags))?;
    println!("{line}");
    Ok(())
}

async fn run(flags: Flags) -> Result<String, Box<dyn std::error::Error>> {
    let sources = if flags.cluster {
        worker::split_by_master(flags.server, flags.keys).await?
    } else {
        vec![(flags.server, Rc::new(KeySource::All(flags.keys)))]
    };
    let connections = flags.connections.max(sources.len());
    let mut workers = Vec::new();
    for number in 0..connections {
        let source = number % sources.len();
        let (address, keys) = &sources[source];
        let sharers = (connections - source).div_ceil(sources.len());
        let batch = Batch::new(flags.op, flags.value, flags.pipeline);
        workers
            .push(Worker::connect(*address, keys.clone(), (number / sources.len(), sharers), batch).await?);
    }
    let start = Instant::now();
    let end = (flags.op != Op::Fill).then(|| start + Duration::from_secs_f64(flags.seconds));
    let tasks: Vec<_> = workers.into_iter().map(|worker| tokio::task::spawn_local(worker.run(end))).collect();
    let mut whole = Outcome::default();
    for task in tasks {
        whole.add(task.await??);
    }
    Ok(whole.to_json(start.elapsed()))
}
