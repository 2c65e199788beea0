//! What a snapshot of two million keys does to the thread that applies entries: how long each slice of a cut takes, and
//! each chunk of one coming in, and what one SET costs with and without a cut running.
//!
//! `cargo bench --bench snapshot` prints one line each: count, then median, p99 and the longest in microseconds.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use slotcast::id::GroupId;
use slotcast::keyspace::effect::Nobody;
use slotcast::raft::machine::{Cut, Machine};
use slotcast::shard::Shard;
use slotcast::shard::machine::ShardMachine;
use slotcast::shard::proposal;
use slotcast::time::Clock;
use slotcast_wire::args::OwnedArgs;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: usize = 2_000_000;
const VALUE: &str = "a value of sixty-four bytes, as the comparison with others has it";
/// SETs between two slices: a millisecond's worth at 100,000 a second.
const BETWEEN: usize = 100;

fn machine() -> ShardMachine {
    ShardMachine::new(Arc::new(Shard::new(GroupId(1), Arc::new(Nobody), Clock::System, 1)))
}

fn set(key: usize) -> Bytes {
    let mut bytes = Vec::new();
    proposal::begin(1, 2, &mut bytes);
    let request: OwnedArgs =
        ["SET".to_owned(), format!("key:{key:012}"), VALUE.to_owned()].into_iter().collect();
    proposal::put_request(request.encoded(), &mut bytes);
    bytes.into()
}

/// Microseconds that `f` takes.
fn timed<T>(times: &mut Vec<f64>, f: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = f();
    times.push(begun.elapsed().as_secs_f64() * 1e6);
    result
}

fn print(what: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let at = |quantile: f64| times[((times.len() - 1) as f64 * quantile) as usize];
    println!("{what:44} {:8}  {:9.2} {:9.2} {:9.2}", times.len(), at(0.5), at(0.99), at(1.0));
}

/// Random SETs, with a slice of the cut after every [`BETWEEN`], until the cut has ended (or so many SETs are done).
fn write(machine: &mut ShardMachine, mut cut: Option<Cut>, most: usize) -> (Vec<f64>, Vec<f64>, Vec<Bytes>) {
    let mut random = SmallRng::seed_from_u64(7);
    let (mut sets, mut slices, mut chunks) = (Vec::new(), Vec::new(), Vec::new());
    while sets.len() < most {
        for _ in 0..BETWEEN {
            let entry = set(random.random_range(0..KEYS));
            timed(&mut sets, || machine.apply(1, 1, &entry, None));
        }
        if let Some(cut) = &mut cut {
            match timed(&mut slices, || cut.next()) {
                Some(chunk) => chunks.push(chunk.expect("nobody gives it up")),
                None => break,
            }
        }
    }
    (sets, slices, chunks)
}

fn main() {
    let mut machine = machine();
    (0..KEYS).for_each(|key| machine.apply(1, 1, &set(key), None));
    println!("{:44} {:>8}  {:>9} {:>9} {:>9}", format!("{KEYS} keys"), "count", "median", "p99", "longest");
    print("SET, no cut", write(&mut machine, None, 400_000).0);
    let mut begin = Vec::new();
    let cut = timed(&mut begin, || machine.snapshot()).expect("the only cut");
    print("beginning a cut", begin);
    let (sets, slices, chunks) = write(&mut machine, Some(cut), usize::MAX);
    print("SET while the cut is taken", sets);
    print("slice of the cut", slices);
    let copy = self::machine();
    let mut staged = copy.stager()();
    let mut taken = Vec::new();
    chunks.iter().for_each(|chunk| timed(&mut taken, || staged.take(chunk)).expect("a chunk"));
    print("chunk coming in", taken);
    let mut installed = Vec::new();
    timed(&mut installed, || staged.install()).expect("a whole snapshot");
    print("installing it", installed);
    black_box(copy);
}
