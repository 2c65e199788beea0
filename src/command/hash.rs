//! Hash commands on fields by name; those on the whole hash are in `hash_all`.

use slotcast_wire::args::Args;
use slotcast_wire::number::{parse_i64, write_i64};
use slotcast_wire::reply::Reply;

use crate::command::argument::integer;
use crate::command::error::{CommandError, Outcome};
use crate::command::long_double::LongDouble;
use crate::command::reply_limit::check;
use crate::command::spec::{Command, Flags, KeySpec, one_key};
use crate::keyspace::event::Class;
use crate::keyspace::locked::Locked;

const WRITE_FLAGS: Flags = Flags::DENYOOM.or(Flags::FAST);
const READ: &[KeySpec] = &[one_key("RO ACCESS")];
const UPDATED: &[KeySpec] = &[one_key("RW UPDATE")];

/// The rows of this file.
pub const ROWS: &[Command] = &[
    Command::write("hset", -4, hset).event(Class::Hash, "hset").flags(WRITE_FLAGS).keys(UPDATED).docs(
        "hash",
        "2.0.0",
        "O(N) where N is the number of field/value pairs.",
        "Creates or modifies the value of a field in a hash.",
    ),
    Command::write("hmset", -4, hmset).event(Class::Hash, "hset")
        .flags(WRITE_FLAGS)
        .keys(UPDATED)
        .docs(
            "hash",
            "2.0.0",
            "O(N) where N is the number of fields being set.",
            "Sets the values of multiple fields.",
        )
        .deprecated("4.0.0", "`HSET` with multiple field-value pairs"),
    Command::write("hsetnx", 4, hsetnx).event(Class::Hash, "hset").flags(WRITE_FLAGS).keys(&[one_key("RW INSERT")]).docs(
        "hash",
        "2.0.0",
        "O(1)",
        "Sets the value of a field in a hash only when the field doesn't exist.",
    ),
    Command::read("hget", 3, hget).flags(Flags::FAST).keys(READ).docs(
        "hash",
        "2.0.0",
        "O(1)",
        "Returns the value of a field in a hash.",
    ),
    Command::read("hmget", -3, hmget).flags(Flags::FAST).keys(READ).docs(
        "hash",
        "2.0.0",
        "O(N) where N is the number of fields being requested.",
        "Returns the values of one or more fields in a hash.",
    ),
    Command::write("hdel", -3, hdel).event(Class::Hash, "hdel").flags(Flags::FAST).keys(&[one_key("RW DELETE")]).docs(
        "hash",
        "2.0.0",
        "O(N) where N is the number of fields to be removed.",
        "Deletes one or more fields and their values from a hash. Deletes the hash if no fields remain.",
    ),
    Command::read("hexists", 3, hexists).flags(Flags::FAST).keys(&[one_key("RO")]).docs(
        "hash",
        "2.0.0",
        "O(1)",
        "Determines whether a field exists in a hash.",
    ),
    Command::read("hstrlen", 3, hstrlen).flags(Flags::FAST).keys(&[one_key("RO")]).docs(
        "hash",
        "3.2.0",
        "O(1)",
        "Returns the length of the value of a field.",
    ),
    Command::write("hincrby", 4, hincrby).event(Class::Hash, "hincrby").flags(WRITE_FLAGS).keys(&[one_key("RW ACCESS UPDATE")]).docs(
        "hash",
        "2.0.0",
        "O(1)",
        "Increments the integer value of a field in a hash by a number. Uses 0 as initial value if the field doesn't exist.",
    ),
    Command::write("hincrbyfloat", 4, hincrbyfloat).event(Class::Hash, "hincrbyfloat")
        .flags(WRITE_FLAGS)
        .keys(&[one_key("RW ACCESS UPDATE")])
        .docs(
            "hash",
            "2.6.0",
            "O(1)",
            "Increments the floating point value of a field by a number. Uses 0 as initial value if the field doesn't exist.",
        ),
];

fn hset(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let created = set_pairs(keys, args, "hset")?;
    reply.integer(created);
    Ok(())
}

fn hmset(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_pairs(keys, args, "hmset")?;
    reply.ok();
    Ok(())
}

/// Sets pairs of fields and values; how many fields are new.
fn set_pairs(keys: &mut Locked<'_>, args: Args<'_>, command: &str) -> Result<i64, CommandError> {
    if args.len() % 2 == 1 {
        return Err(CommandError::arity(command));
    }
    let created = keys.edit_hash(args.at(1), |hash| {
        let pairs = (2..args.len()).step_by(2);
        (true, pairs.filter(|at| hash.set(args.at(*at), args.at(*at + 1))).count())
    })?;
    Ok(created as i64)
}

fn hsetnx(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let created = keys.edit_hash(args.at(1), |hash| {
        let absent = hash.get(args.at(2)).is_none();
        if absent {
            hash.set(args.at(2), args.at(3));
        }
        (absent, absent)
    })?;
    reply.integer(created as i64);
    Ok(())
}

fn hget(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    match keys.hash(args.at(1))?.and_then(|hash| hash.get(args.at(2))) {
        Some(value) => reply.bulk(value),
        None => reply.null(),
    }
    Ok(())
}

fn hmget(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let hash = keys.hash(args.at(1))?;
    let start = reply.mark();
    reply.array(args.len() - 2);
    for field in args.from(2) {
        match hash.and_then(|hash| hash.get(field)) {
            Some(value) => reply.bulk(value),
            None => reply.null(),
        }
        check(reply, start)?;
    }
    Ok(())
}

fn hdel(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let removed = keys.edit_hash(args.at(1), |hash| {
        let removed = args.from(2).iter().filter(|field| hash.remove(field)).count();
        (removed > 0, removed)
    })?;
    reply.integer(removed as i64);
    Ok(())
}

fn hexists(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let value = keys.hash(args.at(1))?.and_then(|hash| hash.get(args.at(2)));
    reply.integer(value.is_some() as i64);
    Ok(())
}

fn hstrlen(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let value = keys.hash(args.at(1))?.and_then(|hash| hash.get(args.at(2)));
    reply.integer(value.map_or(0, <[u8]>::len) as i64);
    Ok(())
}

fn hincrby(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let by = integer(args.at(3))?;
    let sum = change(keys, args, |old, text| {
        let old = match old {
            Some(old) => parse_i64(old).ok_or(CommandError::text("ERR hash value is not an integer"))?,
            None => 0,
        };
        let sum = old.checked_add(by).ok_or(CommandError::OVERFLOW)?;
        write_i64(text, sum);
        Ok(sum)
    })?;
    reply.integer(sum);
    Ok(())
}

fn hincrbyfloat(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let by = LongDouble::parse(args.at(3)).ok_or(CommandError::NOT_FLOAT)?;
    if !by.is_finite() {
        return Err(CommandError::text("ERR value is NaN or Infinity"));
    }
    let text = change(keys, args, |old, text| {
        let old = match old {
            Some(old) => LongDouble::parse(old).ok_or(CommandError::text("ERR hash value is not a float"))?,
            None => LongDouble::ZERO,
        };
        old.plus(by).ok_or(CommandError::NOT_FINITE)?.write(text);
        Ok(text.clone())
    })?;
    reply.bulk(&text);
    Ok(())
}

/// Replaces a field's value by the text that `f` makes of the old one; `f`'s error leaves the hash alone.
fn change<R>(
    keys: &mut Locked<'_>,
    args: Args<'_>,
    f: impl FnOnce(Option<&[u8]>, &mut Vec<u8>) -> Result<R, CommandError>,
) -> Result<R, CommandError> {
    let field = args.at(2);
    keys.edit_hash(args.at(1), |hash| {
        let mut text = Vec::new();
        let result = f(hash.get(field), &mut text);
        if result.is_ok() {
            hash.set(field, &text);
        }
        (result.is_ok(), result)
    })?
}
