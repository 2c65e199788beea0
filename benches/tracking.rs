//! What CLIENT TRACKING costs: remembering a read, forgetting at a change, a change of a key nobody has read; and what
//! a committed SET costs a copy while nobody tracks, while a thousand idle connections do, while all keys are broadcast
//! to one, and while each key that is set was read since it was set last.

#![expect(missing_docs, reason = "criterion_group! makes a function without documentation")]

mod entries;

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use slotcast::config::Config;
use slotcast::id::GroupId;
use slotcast::keyspace::effect::{Audience, Change, Effect};
use slotcast::keyspace::locked::Lookups;
use slotcast::raft::machine::Machine;
use slotcast::server::invalidation::Invalidation;
use slotcast::server::outbox::Outbox;
use slotcast::session::clients::Clients;
use slotcast::session::tracking::{Scope, Tracking};
use slotcast::shard::Shard;
use slotcast::shard::machine::ShardMachine;
use slotcast::shard::observer::Observer;
use slotcast::time::Clock;
use slotcast::tracking::backlog::Form;
use slotcast::tracking::table::Table;
use slotcast_wire::reply::Proto;

use crate::entries::entry;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: usize = 1 << 20;

fn remember(table: &Table, reader: u64, key: &[u8], limit: usize) -> bool {
    table.remember((GroupId(1), key), reader, limit, |_| true).is_empty()
}

fn table(criterion: &mut Criterion) {
    let keys: Vec<String> = (0..KEYS).map(|key| format!("key:{key:012}")).collect();
    // An odd stride visits all keys in an order the processor can't guess.
    let mut at = 0;
    let mut next = || {
        at = (at + 7_919_777) % KEYS;
        keys[at].as_bytes()
    };
    let table = Table::default();
    criterion.bench_function("change of a key while nothing is remembered", |bencher| {
        bencher.iter(|| table.take(black_box(next())));
    });
    criterion.bench_function("remember, then change", |bencher| {
        bencher.iter(|| {
            let key = next();
            remember(&table, 1, key, usize::MAX);
            table.take(key)
        });
    });
    for key in &keys {
        remember(&table, 1, key.as_bytes(), usize::MAX);
    }
    criterion.bench_function("remember again, a million keys in the table", |bencher| {
        bencher.iter(|| remember(&table, 1, next(), usize::MAX));
    });
    criterion.bench_function("remember a second reader, change, a million keys in the table", |bencher| {
        bencher.iter(|| {
            let key = next();
            remember(&table, 2, key, usize::MAX);
            let readers = table.take(key);
            remember(&table, 1, key, usize::MAX);
            readers
        });
    });
    criterion.bench_function("remember beyond the limit", |bencher| {
        let mut fresh = 0u64;
        bencher.iter(|| {
            fresh += 1;
            remember(&table, 1, format!("fresh:{fresh}").as_bytes(), KEYS)
        });
    });
}

const SETS_AN_ENTRY: usize = 16;
const ENTRIES: usize = 4096;

/// Tells of changes only those who track.
struct Told(Arc<Invalidation>);

impl Audience for Told {
    fn cares_for(&self, key: &[u8]) -> bool {
        self.0.cares_for(key)
    }
}

impl Observer for Told {
    fn observe(&self, _index: u64, author: Option<u64>, effects: &[Effect]) {
        self.0.observe(GroupId(1), author, effects);
    }

    fn applied(&self, _index: u64) {}

    fn replaced(&self, _lineage: u64, _index: u64) {}

    fn removed(&self, _change: Change, _keys: usize) {}

    fn looked_up(&self, _lookups: Lookups) {}

    fn remember(&self, reader: u64, key: &[u8]) {
        self.0.remember(GroupId(1), reader, key);
    }
}

/// A copy of a shard with all keys, and what tells its changes.
struct Copy {
    machine: ShardMachine,
    invalidation: Arc<Invalidation>,
    clients: Clients,
    index: u64,
}

impl Copy {
    fn new() -> Copy {
        let config = Arc::new(Config::from_text("bench", "").expect("no directives are right"));
        let invalidation = Arc::new(Invalidation::new(config));
        let told = Arc::new(Told(invalidation.clone()));
        let shard = Arc::new(Shard::new(GroupId(1), told, Clock::System, 1));
        let (machine, clients) = (ShardMachine::new(shard), Clients::default());
        let mut copy = Copy { machine, invalidation, clients, index: 0 };
        let keys: Vec<usize> = (0..KEYS).collect();
        keys.chunks(1_000).for_each(|keys| copy.apply(&entry(keys.iter().copied())));
        copy
    }

    fn apply(&mut self, entry: &Bytes) {
        self.index += 1;
        self.machine.apply(self.index, 1, entry, None);
    }

    fn listen(&self, prefixes: &[&str]) -> Arc<Outbox> {
        let nowhere = ([127, 0, 0, 1], 0).into();
        let outbox = Arc::new(Outbox::new(self.clients.register(nowhere, nowhere, 0)));
        let scope = if prefixes.is_empty() { Scope::Reads } else { Scope::Broadcast };
        let prefixes = prefixes.iter().map(|prefix| prefix.as_bytes().into()).collect();
        let tracking = Tracking { on: true, scope, prefixes, ..Tracking::default() };
        self.invalidation.follow(&outbox, &tracking, Proto::Resp3, |_| None);
        outbox
    }

    fn read(&self, outbox: &Outbox, key: usize) {
        self.invalidation.remember(GroupId(1), outbox.client().id, format!("key:{key:012}").as_bytes());
    }
}

fn sets(criterion: &mut Criterion) {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut draw = || (0..SETS_AN_ENTRY).map(|_| rng.random_range(0..KEYS)).collect();
    let keys: Vec<Vec<usize>> = (0..ENTRIES).map(|_| draw()).collect();
    let entries: Vec<Bytes> = keys.iter().map(|keys| entry(keys.iter().copied())).collect();
    let mut group = criterion.benchmark_group("16 SETs in an entry");
    group.throughput(Throughput::Elements(SETS_AN_ENTRY as u64));
    let mut bench = |name: &str, copy: &mut Copy, outboxes: &[Arc<Outbox>], reads_again: bool| {
        let (mut at, mut out) = (0, Vec::new());
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                at = (at + 1) % ENTRIES;
                if reads_again {
                    keys[at].iter().for_each(|key| copy.read(&outboxes[at % outboxes.len()], *key));
                }
                copy.apply(&entries[at]);
                if outboxes.len() < 100 {
                    out.clear();
                    for outbox in outboxes {
                        outbox.drain(Form::Push, &mut out);
                    }
                }
            });
        });
    };
    let mut copy = Copy::new();
    bench("nobody tracks", &mut copy, &[], false);
    let idle: Vec<_> = (0..1_000).map(|_| copy.listen(&[])).collect();
    for key in 0..100_000 {
        copy.read(&idle[key % 1_000], key * 7 % KEYS);
    }
    bench("1,000 idle connections have read a tenth of the keys", &mut copy, &idle, false);
    drop((copy, idle));
    let mut copy = Copy::new();
    let subscriber = [copy.listen(&["key:"])];
    bench("all are broadcast to one", &mut copy, &subscriber, false);
    let mut copy = Copy::new();
    let readers: Vec<_> = (0..10).map(|_| copy.listen(&[])).collect();
    bench("each key was read by one of ten, reading included", &mut copy, &readers, true);
}

criterion_group!(benches, table, sets);
criterion_main!(benches);
