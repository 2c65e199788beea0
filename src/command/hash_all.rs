//! Hash commands on all fields: reading them, walking them, drawing from them.

use slotcast_wire::args::Args;
use slotcast_wire::reply::{Proto, Reply};

use crate::command::argument::{integer, is_word};
use crate::command::error::{CommandError, Outcome};
use crate::command::reply_limit::check;
use crate::command::scan_options::{ScanOptions, cursor};
use crate::command::spec::{Command, Flags, KeySpec, one_key};
use crate::keyspace::hash::Hash;
use crate::keyspace::locked::Locked;

const READ: &[KeySpec] = &[one_key("RO ACCESS")];
const UNORDERED: &[&str] = &["nondeterministic_output_order"];
const VARIES: &[&str] = &["nondeterministic_output"];
const PER_FIELD: &str = "O(N) where N is the size of the hash.";

/// The rows of this file.
pub const ROWS: &[Command] = &[
    Command::read("hlen", 2, hlen).flags(Flags::FAST).keys(&[one_key("RO")]).docs(
        "hash",
        "2.0.0",
        "O(1)",
        "Returns the number of fields in a hash.",
    ),
    Command::read("hgetall", 2, hgetall).keys(READ).tips(UNORDERED).docs(
        "hash",
        "2.0.0",
        PER_FIELD,
        "Returns all fields and values in a hash.",
    ),
    Command::read("hkeys", 2, hkeys).keys(READ).tips(UNORDERED).docs(
        "hash",
        "2.0.0",
        PER_FIELD,
        "Returns all fields in a hash.",
    ),
    Command::read("hvals", 2, hvals).keys(READ).tips(UNORDERED).docs(
        "hash",
        "2.0.0",
        PER_FIELD,
        "Returns all values in a hash.",
    ),
    Command::read("hscan", -3, hscan).keys(READ).tips(VARIES).docs(
        "hash",
        "2.8.0",
        "O(1) for every call. O(N) for a complete iteration, including enough command calls for the cursor to return back to 0. N is the number of elements inside the collection.",
        "Iterates over fields and values of a hash.",
    ),
    Command::read("hrandfield", -2, hrandfield).keys(READ).tips(VARIES).docs(
        "hash",
        "6.2.0",
        "O(N) where N is the number of fields returned",
        "Returns one or more random fields from a hash.",
    ),
];

fn hlen(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.integer(keys.hash(args.at(1))?.map_or(0, Hash::len) as i64);
    Ok(())
}

fn hgetall(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let hash = keys.hash(args.at(1))?;
    reply.map(hash.map_or(0, Hash::len));
    for (field, value) in hash.iter().flat_map(|hash| hash.iter()) {
        reply.bulk(field);
        reply.bulk(value);
    }
    Ok(())
}

fn hkeys(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let hash = keys.hash(args.at(1))?;
    reply.array(hash.map_or(0, Hash::len));
    hash.iter().flat_map(|hash| hash.iter()).for_each(|(field, _)| reply.bulk(field));
    Ok(())
}

fn hvals(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let hash = keys.hash(args.at(1))?;
    reply.array(hash.map_or(0, Hash::len));
    hash.iter().flat_map(|hash| hash.iter()).for_each(|(_, value)| reply.bulk(value));
    Ok(())
}

/// The cursor is the number of positions still to visit, from the last down: a field's position never grows (a removal
/// moves the last field into the gap, a new one comes last), so none that stays is passed over.
fn hscan(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let cursor = cursor(args.at(2))?;
    let Some(hash) = keys.hash(args.at(1))? else {
        write_cursor(reply, 0);
        reply.array(0);
        return Ok(());
    };
    let options = ScanOptions::parse(args.from(3), false)?;
    let end = match cursor {
        0 => hash.len(),
        left => hash.len().min(left.try_into().unwrap_or(usize::MAX)),
    };
    let start = end.saturating_sub(options.count);
    write_cursor(reply, start);
    let (mark, mut found) = (reply.mark(), 0);
    for (field, value) in (start..end).filter_map(|position| hash.at(position)) {
        if options.wants(field) {
            reply.bulk(field);
            reply.bulk(value);
            found += 2;
        }
    }
    reply.array_at(mark, found);
    Ok(())
}

fn write_cursor(reply: &mut Reply<'_>, cursor: usize) {
    reply.array(2);
    reply.bulk(cursor.to_string().as_bytes());
}

fn hrandfield(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let Some(count) = args.get(2) else {
        let hash = keys.hash(args.at(1))?;
        match hash.and_then(|hash| hash.at(draw(keys, hash.len()))) {
            Some((field, _)) => reply.bulk(field),
            None => reply.null(),
        }
        return Ok(());
    };
    let count = integer(count)?;
    let with_values = args.len() > 3;
    if args.len() > 4 || with_values && !is_word(args.at(3), "withvalues") {
        return Err(CommandError::SYNTAX);
    }
    check_range(count, with_values)?;
    let Some(hash) = keys.hash(args.at(1))?.filter(|_| count != 0) else {
        reply.array(0);
        return Ok(());
    };
    if count < 0 {
        let repeats = count.unsigned_abs() as usize;
        let positions = (0..repeats).map(|_| draw(keys, hash.len()));
        write_fields(hash, positions, with_values, reply)
    } else {
        write_fields(hash, distinct(keys, hash.len(), count as usize).into_iter(), with_values, reply)
    }
}

fn check_range(count: i64, with_values: bool) -> Outcome {
    if count == i64::MIN {
        return Err(CommandError::not_between(-i64::MAX, i64::MAX));
    }
    if with_values && count.unsigned_abs() > i64::MAX as u64 / 2 {
        return Err(CommandError::OUT_OF_RANGE);
    }
    Ok(())
}

/// A position below `len`, which is not 0.
fn draw(keys: &Locked<'_>, len: usize) -> usize {
    (keys.random() % len.max(1) as u64) as usize
}

/// `count` distinct positions below `len`, or all of them: a partial Fisher–Yates shuffle.
fn distinct(keys: &Locked<'_>, len: usize, count: usize) -> Vec<usize> {
    let mut positions: Vec<usize> = (0..len).collect();
    if count < len {
        for at in 0..count {
            positions.swap(at, at + draw(keys, len - at));
        }
        positions.truncate(count);
    }
    positions
}

fn write_fields(
    hash: &Hash,
    positions: impl ExactSizeIterator<Item = usize>,
    with_values: bool,
    reply: &mut Reply<'_>,
) -> Outcome {
    let start = reply.mark();
    let paired = with_values && reply.proto() == Proto::Resp3;
    let per_field = if with_values && !paired { 2 } else { 1 };
    reply.array(positions.len() * per_field);
    for (field, value) in positions.filter_map(|position| hash.at(position)) {
        if paired {
            reply.array(2);
        }
        reply.bulk(field);
        if with_values {
            reply.bulk(value);
        }
        check(reply, start)?;
    }
    Ok(())
}
