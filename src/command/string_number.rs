//! Strings as numbers: INCR and its kin. The sum replaces the string and leaves its deadline.

use slotcast_wire::args::Args;
use slotcast_wire::number::{parse_i64, write_i64};
use slotcast_wire::reply::Reply;

use crate::command::argument::integer;
use crate::command::error::{CommandError, Outcome};
use crate::command::long_double::LongDouble;
use crate::command::spec::{Command, Flags, KeySpec, one_key};
use crate::keyspace::event::Class;
use crate::keyspace::locked::{Deadline, Locked};

const KEYS: &[KeySpec] = &[one_key("RW ACCESS UPDATE")];
const FLAGS: Flags = Flags::DENYOOM.or(Flags::FAST);

/// The rows of this file.
pub const ROWS: &[Command] = &[
    Command::write("incr", 2, incr).event(Class::String, "incrby").flags(FLAGS).keys(KEYS).docs(
        "string",
        "1.0.0",
        "O(1)",
        "Increments the integer value of a key by one. Uses 0 as initial value if the key doesn't exist.",
    ),
    Command::write("incrby", 3, incrby).event(Class::String, "incrby").flags(FLAGS).keys(KEYS).docs(
        "string",
        "1.0.0",
        "O(1)",
        "Increments the integer value of a key by a number. Uses 0 as initial value if the key doesn't exist.",
    ),
    Command::write("decr", 2, decr).event(Class::String, "incrby").flags(FLAGS).keys(KEYS).docs(
        "string",
        "1.0.0",
        "O(1)",
        "Decrements the integer value of a key by one. Uses 0 as initial value if the key doesn't exist.",
    ),
    Command::write("decrby", 3, decrby).event(Class::String, "incrby").flags(FLAGS).keys(KEYS).docs(
        "string",
        "1.0.0",
        "O(1)",
        "Decrements a number from the integer value of a key. Uses 0 as initial value if the key doesn't exist.",
    ),
    Command::write("incrbyfloat", 3, incrbyfloat).event(Class::String, "incrbyfloat").flags(FLAGS).keys(KEYS).docs(
        "string",
        "2.6.0",
        "O(1)",
        "Increment the floating point value of a key by a number. Uses 0 as initial value if the key doesn't exist.",
    ),
];

fn incr(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    add(keys, args.at(1), 1, reply)
}

fn incrby(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let by = integer(args.at(2))?;
    add(keys, args.at(1), by, reply)
}

fn decr(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    add(keys, args.at(1), -1, reply)
}

fn decrby(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let by = integer(args.at(2))?;
    let by = by.checked_neg().ok_or(CommandError::text("ERR decrement would overflow"))?;
    add(keys, args.at(1), by, reply)
}

fn add(keys: &mut Locked<'_>, key: &[u8], by: i64, reply: &mut Reply<'_>) -> Outcome {
    let old = match keys.string(key)? {
        Some(text) => parse_i64(text).ok_or(CommandError::NOT_INTEGER)?,
        None => 0,
    };
    let sum = old.checked_add(by).ok_or(CommandError::OVERFLOW)?;
    let mut text = Vec::with_capacity(20);
    write_i64(&mut text, sum);
    keys.put_bytes(key, &text, Deadline::Keep);
    reply.integer(sum);
    Ok(())
}

fn incrbyfloat(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let key = args.at(1);
    let old = match keys.string(key)? {
        Some(text) => LongDouble::parse(text).ok_or(CommandError::NOT_FLOAT)?,
        None => LongDouble::ZERO,
    };
    let by = LongDouble::parse(args.at(2)).ok_or(CommandError::NOT_FLOAT)?;
    let sum = old.plus(by).ok_or(CommandError::NOT_FINITE)?;
    let mut text = Vec::new();
    sum.write(&mut text);
    keys.put_bytes(key, &text, Deadline::Keep);
    reply.bulk(&text);
    Ok(())
}
