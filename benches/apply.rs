//! What a committed entry costs a copy: decode, parse, lock, execute, effects. On a million keys visited at random;
//! entries of 1, 16 and 64 SETs, with and without somebody who listens to effects.

#![expect(missing_docs, reason = "criterion_group! makes a function without documentation")]

mod entries;

use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use slotcast::id::GroupId;
use slotcast::keyspace::effect::{Audience, Change, Effect};
use slotcast::keyspace::locked::Lookups;
use slotcast::raft::machine::Machine;
use slotcast::shard::Shard;
use slotcast::shard::machine::ShardMachine;
use slotcast::shard::observer::Observer;
use slotcast::time::Clock;
use slotcast::tracking::ring::Ring;
use slotcast::tracking::segment::Touched;

use crate::entries::entry;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: usize = 1_000_000;
/// Entries that a bench cycles through.
const ENTRIES: usize = 4096;

/// Does not listen, listens and does nothing about it, or keeps the invalidation log.
struct Listening(bool, Option<Ring>);

impl Audience for Listening {
    fn cares_for(&self, _key: &[u8]) -> bool {
        self.0
    }
}

impl Observer for Listening {
    fn observe(&self, index: u64, _author: Option<u64>, effects: &[Effect]) {
        let touched = effects.iter().map(|effect| match effect {
            Effect::Key { slot, key, .. } => Touched::Key(*slot, key),
            Effect::Flushed => Touched::All,
        });
        if let Some(ring) = &self.1 {
            ring.note(index, touched);
        }
    }

    fn applied(&self, index: u64) {
        if let Some(ring) = &self.1 {
            ring.publish(index);
        }
    }

    fn replaced(&self, _lineage: u64, _index: u64) {}

    fn removed(&self, _change: Change, _keys: usize) {}

    fn looked_up(&self, _lookups: Lookups) {}

    fn remember(&self, _reader: u64, _key: &[u8]) {}
}

fn applying(criterion: &mut Criterion) {
    let ring = || Some(Ring::new(32 << 20));
    for (name, listening) in [
        ("apply", Listening(false, None)),
        ("apply, listened to", Listening(true, None)),
        ("apply, with its invalidation log", Listening(true, ring())),
    ] {
        let shard = Arc::new(Shard::new(GroupId(1), Arc::new(listening), Clock::System, 1));
        let mut machine = ShardMachine::new(shard);
        let mut index = 0;
        for first in (0..KEYS).step_by(1000) {
            index += 1;
            machine.apply(index, 1, &entry(first..first + 1000), None);
        }
        let mut rng = SmallRng::seed_from_u64(1);
        let mut group = criterion.benchmark_group(name);
        for size in [1, 16, 64] {
            let entries: Vec<Bytes> =
                (0..ENTRIES).map(|_| entry((0..size).map(|_| rng.random_range(0..KEYS)))).collect();
            group.throughput(Throughput::Elements(size as u64));
            group.bench_function(format!("{size} SETs an entry"), |bencher| {
                bencher.iter(|| {
                    index += 1;
                    machine.apply(index, 1, &entries[index as usize % ENTRIES], None);
                });
            });
        }
    }
}

criterion_group!(benches, applying);
criterion_main!(benches);
