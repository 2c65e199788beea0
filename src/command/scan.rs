//! Commands on all keys: walking them, counting them, removing them.
//!
//! SCAN's cursor is a slot and a position in it: `slot << 48 | position`. Within a slot records come in the order of a
//! fixed hash of their keys, so a cursor means the same on every node, however the table has grown meanwhile. A key that
//! is there throughout is returned at least once; records whose positions tie are returned together.

use slotcast_wire::args::Args;
use slotcast_wire::reply::Reply;
use slotcast_wire::slot::SLOTS;

use crate::command::argument::is_word;
use crate::command::error::{CommandError, Outcome};
use crate::command::scan_options::{ScanOptions, cursor};
use crate::command::spec::{Command, Flags};
use crate::glob::matches;
use crate::keyspace::locked::Locked;
use crate::keyspace::record::Record;

const EVERY_SHARD: &[&str] = &["request_policy:all_shards", "response_policy:all_succeeded"];

/// The rows of this file.
pub const ROWS: &[Command] = &[
    Command::read("scan", -2, scan)
        .tips(&["nondeterministic_output", "request_policy:special"])
        .docs(
            "generic",
            "2.8.0",
            "O(1) for every call. O(N) for a complete iteration, including enough command calls for the cursor to return back to 0. N is the number of elements inside the collection.",
            "Iterates over the key names in the database.",
        ),
    Command::read("keys", 2, keys)
        .tips(&["request_policy:all_shards", "nondeterministic_output_order"])
        .categories(&["@keyspace", "@dangerous"])
        .docs(
            "generic",
            "1.0.0",
            "O(N) with N being the number of keys in the database.",
            "Returns all key names that match a pattern.",
        ),
    Command::read("dbsize", 1, dbsize)
        .flags(Flags::FAST)
        .tips(&["request_policy:all_shards", "response_policy:agg_sum"])
        .categories(&["@keyspace"])
        .docs("server", "1.0.0", "O(1)", "Returns the number of keys in the database."),
    Command::read("randomkey", 1, randomkey)
        .tips(&["request_policy:all_shards", "nondeterministic_output"])
        .docs("generic", "1.0.0", "O(1)", "Returns a random key name from the database."),
    Command::write("flushall", -1, flush)
        .tips(EVERY_SHARD)
        .categories(&["@keyspace", "@dangerous"])
        .docs(
            "server",
            "1.0.0",
            "O(N) where N is the total number of keys in all databases.",
            "Removes all keys from all databases.",
        ),
    Command::write("flushdb", -1, flush)
        .tips(EVERY_SHARD)
        .categories(&["@keyspace", "@dangerous"])
        .docs(
            "server",
            "1.0.0",
            "O(N) where N is the number of keys in the selected database.",
            "Remove all keys from the current database.",
        ),
];

const POSITION_BITS: u32 = 48;
const POSITIONS: u64 = 1 << POSITION_BITS;

/// A slot of many keys (one hash tag for all) is walked in at most this many calls, because each call looks at all of
/// its records: such a call returns more than COUNT asks for.
const MAX_CALLS_PER_SLOT: usize = 64;

fn scan(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let start = cursor(args.at(1))?;
    let options = ScanOptions::parse(args.from(2), true)?;
    let (mut elements, mut found) = (Vec::new(), 0);
    let mut list = Reply::new(&mut elements, reply.proto());
    let next = scan_from(keys, start, options.count, |record| {
        if options.wants(record.key()) && options.wants_type(record.value().type_name()) {
            list.bulk(record.key());
            found += 1;
        }
    });
    reply.array(2);
    reply.bulk(next.to_string().as_bytes());
    reply.array(found);
    reply.raw(&elements);
    Ok(())
}

/// Visits about `count` records from a cursor on; the next cursor, 0 at the end.
fn scan_from(keys: &Locked<'_>, start: u64, count: usize, mut visit: impl FnMut(&Record)) -> u64 {
    let (mut slot, mut position) = (start >> POSITION_BITS, start % POSITIONS);
    let mut visited = 0;
    while slot < SLOTS as u64 {
        let next = keys.walk(slot as u16, |records| {
            let (seen, next) = scan_slot(records, position, count - visited, &mut visit);
            visited += seen;
            next
        });
        (slot, position) = next.map_or((slot + 1, 0), |next| (slot, next));
        if visited >= count && slot < SLOTS as u64 {
            return slot << POSITION_BITS | position;
        }
    }
    0
}

/// Visits a slot's records from a position on, `count` of them or as many as [`MAX_CALLS_PER_SLOT`] demands; how many,
/// and the position to go on from unless the slot is through.
fn scan_slot(
    records: &mut dyn Iterator<Item = &Record>,
    from: u64,
    count: usize,
    visit: &mut impl FnMut(&Record),
) -> (usize, Option<u64>) {
    let mut total = 0usize;
    let mut rest: Vec<(u64, &Record)> = records
        .inspect(|_| total += 1)
        .map(|record| (position_of(record.key()), record))
        .filter(|(position, _)| *position >= from)
        .collect();
    let count = count.max(total.div_ceil(MAX_CALLS_PER_SLOT));
    let mut next = None;
    if rest.len() > count {
        let (_, (last, _), _) = rest.select_nth_unstable_by_key(count - 1, |(position, _)| *position);
        let last = *last;
        next = rest.iter().map(|(position, _)| *position).filter(|position| *position > last).min();
        rest.retain(|(position, _)| *position <= last);
    }
    rest.sort_unstable_by_key(|(position, _)| *position);
    rest.iter().for_each(|(_, record)| visit(record));
    (rest.len(), next)
}

/// Where a key comes among those of its slot: FNV-1a, mixed and cut to 48 bits. Part of what a cursor means, so it must
/// be the same in every build.
fn position_of(key: &[u8]) -> u64 {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mixed = (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed >> (u64::BITS - POSITION_BITS)
}

fn keys(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let pattern = args.at(1);
    let mark = reply.mark();
    let mut found = 0;
    for slot in 0..SLOTS as u16 {
        keys.walk(slot, |records| {
            for record in records.filter(|record| pattern == b"*" || matches(pattern, record.key())) {
                reply.bulk(record.key());
                found += 1;
            }
        });
    }
    reply.array_at(mark, found);
    Ok(())
}

fn dbsize(keys: &Locked<'_>, _: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.integer(keys.count() as i64);
    Ok(())
}

fn randomkey(keys: &Locked<'_>, _: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    match keys.random_key() {
        Some(key) => reply.bulk(&key),
        None => reply.null(),
    }
    Ok(())
}

fn flush(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let mode = args.at(1);
    if args.len() > 2 || args.len() == 2 && !is_word(mode, "sync") && !is_word(mode, "async") {
        return Err(CommandError::SYNTAX);
    }
    keys.flush();
    reply.ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::Keyspace;
    use crate::keyspace::effect::Nobody;
    use crate::keyspace::locked::{Deadline, Needs};

    fn filled(keys: impl Iterator<Item = String>) -> Keyspace {
        let keyspace = Keyspace::new();
        let mut locked = Locked::new(&keyspace, &Needs::Everything, 0, 0, &Nobody);
        keys.for_each(|key| locked.put_bytes(key.as_bytes(), b"", Deadline::Never));
        drop(locked);
        keyspace
    }

    /// All keys that a scan returns, and its number of calls; `between` runs after each call.
    fn scanned(
        keyspace: &Keyspace,
        count: usize,
        between: impl Fn(&Keyspace, usize),
    ) -> (Vec<Vec<u8>>, usize) {
        let (mut cursor, mut calls, mut found) = (0, 0, Vec::new());
        loop {
            let locked = Locked::new(keyspace, &Needs::Nothing, 0, 0, &Nobody);
            cursor = scan_from(&locked, cursor, count, |record| found.push(record.key().to_vec()));
            calls += 1;
            between(keyspace, calls);
            if cursor == 0 {
                found.sort();
                return (found, calls);
            }
        }
    }

    #[test]
    fn a_scan_returns_every_key_once_while_nothing_changes() {
        for (tag, count) in [("", 7), ("{t}", 7), ("", 1), ("{t}", 1), ("{t}", 100_000)] {
            let mut expected: Vec<_> = (0..3000).map(|n| format!("{tag}{n}").into_bytes()).collect();
            expected.sort();
            let keyspace = filled((0..3000).map(|n| format!("{tag}{n}")));
            let (found, calls) = scanned(&keyspace, count, |_, _| ());
            assert!(found == expected, "{tag} {count}");
            assert!(tag.is_empty() || calls <= MAX_CALLS_PER_SLOT + 1, "{calls} calls for one slot");
        }
    }

    #[test]
    fn keys_that_come_and_go_hide_none_that_stay() {
        let keyspace = filled((0..500).map(|n| format!("{{t}}{n}")));
        let (found, _) = scanned(&keyspace, 10, |keyspace, call| {
            let mut locked = Locked::new(keyspace, &Needs::Everything, 0, 0, &Nobody);
            for n in 0..300 {
                locked.put_bytes(format!("{{t}}new{call}-{n}").as_bytes(), b"", Deadline::Never);
                locked.remove(format!("{{t}}new{}-{n}", call - 1).as_bytes());
            }
        });
        for n in 0..500 {
            let key = format!("{{t}}{n}").into_bytes();
            assert_eq!(found.iter().filter(|found| **found == key).count(), 1, "{n}");
        }
    }

    #[test]
    fn positions_never_change() {
        assert_eq!(position_of(b""), 146_719_880_041_931);
        assert!(position_of(b"a rather long key, longer than most of them") < POSITIONS);
    }
}
