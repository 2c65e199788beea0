//! What a request costs between its arguments and its reply: lookup, needs, lock, function, bytes. On a million keys
//! visited at random, so that a cache miss is part of it, as in a server; the staged prefetch that hides them is not.

#![expect(missing_docs, reason = "criterion_group! makes a function without documentation")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use slotcast::command::execute::execute;
use slotcast::command::lookup::NameTable;
use slotcast::command::needs::needs;
use slotcast::command::spec::Command;
use slotcast::command::table::rows;
use slotcast::keyspace::Keyspace;
use slotcast::keyspace::effect::Nobody;
use slotcast::keyspace::expiry::lapsed;
use slotcast::keyspace::locked::Locked;
use slotcast_wire::args::OwnedArgs;
use slotcast_wire::reply::{Proto, Reply};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: usize = 1_000_000;
/// Requests that a bench cycles through: enough that their keys don't stay in the processor's caches.
const REQUESTS: usize = 1 << 18;
const VALUE: &str = "a value of sixty-four bytes, as the comparison with others has it";
const NOW: u64 = 1_700_000_000_000;

struct Server {
    table: NameTable<&'static Command>,
    keyspace: Keyspace,
    out: Vec<u8>,
}

impl Server {
    fn new() -> Self {
        let table = NameTable::new(rows().map(|row| (row.name, row)));
        let mut server = Server { table, keyspace: Keyspace::new(), out: Vec::with_capacity(1 << 16) };
        for n in 0..KEYS {
            server.ask(&request(&["SET", &key("key", n), VALUE]));
        }
        server
    }

    fn ask(&mut self, request: &OwnedArgs) {
        let args = request.as_args();
        let Some(command) = self.table.find(args.name()) else { return };
        let Ok(needs) = needs(command, args) else { return };
        self.out.clear();
        let mut locked = Locked::new(&self.keyspace, &needs, NOW, 1, &Nobody);
        execute(command, &mut locked, args, &mut Reply::new(&mut self.out, Proto::Resp2));
    }
}

/// A key of 16 bytes.
fn key(prefix: &str, n: usize) -> String {
    format!("{prefix}:{n:012}")
}

fn request(words: &[&str]) -> OwnedArgs {
    words.iter().collect()
}

/// Requests on random keys.
fn requests(make: impl Fn(&str) -> OwnedArgs, prefix: &str) -> Vec<OwnedArgs> {
    let mut random = SmallRng::seed_from_u64(7);
    (0..REQUESTS).map(|_| make(&key(prefix, random.random_range(0..KEYS)))).collect()
}

fn commands(criterion: &mut Criterion) {
    let mut server = Server::new();
    let mut bench = |name: &str, prefix: &str, make: &dyn Fn(&str) -> OwnedArgs| {
        let requests = requests(make, prefix);
        let mut next = requests.iter().cycle();
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                server.ask(next.next().expect("a cycle"));
                black_box(&server.out);
            });
        });
    };
    bench("GET hit", "key", &|key| request(&["GET", key]));
    bench("GET miss", "non", &|key| request(&["GET", key]));
    bench("SET overwrite, same length", "key", &|key| request(&["SET", key, VALUE]));
    bench("SET overwrite, with a deadline", "key", &|key| request(&["SET", key, VALUE, "EX", "600"]));
    bench("INCR", "num", &|key| request(&["INCR", key]));
    bench("HSET", "has", &|key| request(&["HSET", key, "field", VALUE]));
    bench("HGET", "has", &|key| request(&["HGET", key, "field"]));
}

fn new_keys(criterion: &mut Criterion) {
    let mut server = Server::new();
    let sets = requests(|key| request(&["SET", key, VALUE]), "new");
    let deletes = requests(|key| request(&["DEL", key]), "new");
    let mut next = sets.iter().zip(&deletes).cycle();
    criterion.bench_function("SET new and DEL", |bencher| {
        bencher.iter(|| {
            let (set, delete) = next.next().expect("a cycle");
            server.ask(set);
            server.ask(delete);
        });
    });
}

fn expiry(criterion: &mut Criterion) {
    let mut server = Server::new();
    server.ask(&request(&["SET", "dated", VALUE, "EX", "600"]));
    let mut cursor = 0;
    criterion.bench_function("expiry walk over 1000 records, none due", |bencher| {
        bencher.iter(|| black_box(lapsed(&server.keyspace, NOW, &mut cursor, 1000, 100)));
    });
}

fn names(criterion: &mut Criterion) {
    let table = NameTable::new(rows().map(|row| (row.name, row)));
    for name in ["get", "SET", "INCRBYFLOAT", "unknown"] {
        criterion.bench_function(&format!("lookup {name}"), |bencher| {
            bencher.iter(|| table.find(black_box(name.as_bytes())).is_some());
        });
    }
}

criterion_group!(benches, names, commands, new_keys, expiry);
criterion_main!(benches);
