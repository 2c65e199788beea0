//! What CLIENT TRACKING costs: remembering a read, forgetting at a change, and a change of a key nobody has read.

#![expect(missing_docs, reason = "criterion_group! makes a function without documentation")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use slotcast::id::GroupId;
use slotcast::tracking::table::Table;

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

criterion_group!(benches, table);
criterion_main!(benches);
