//! SET and its kin: everything that replaces, removes or dates a whole string.

use slotcast_wire::args::Args;
use slotcast_wire::reply::Reply;

use crate::command::argument::{Moment, is_word, moment};
use crate::command::error::{CommandError, Outcome};
use crate::command::spec::{Command, Flags, KeySpec, all_keys, one_key};
use crate::keyspace::event::Class;
use crate::keyspace::locked::{Deadline, Locked};
use crate::time::Millis;

const ONE_READ_WRITE: &[KeySpec] = &[one_key("RW ACCESS UPDATE")];
const PER_KEY: &str = "O(N) where N is the number of keys to set.";

/// The rows of this file.
pub const ROWS: &[Command] = &[
    Command::write("set", -3, set).event(Class::String, "set")
        .flags(Flags::DENYOOM)
        .keys(&[one_key("RW ACCESS UPDATE VARIABLE_FLAGS")])
        .docs(
            "string",
            "1.0.0",
            "O(1)",
            "Sets the string value of a key, ignoring its type. The key is created if it doesn't exist.",
        ),
    Command::write("setnx", 3, setnx).event(Class::String, "set")
        .flags(Flags::DENYOOM.or(Flags::FAST))
        .keys(&[one_key("OW INSERT")])
        .docs("string", "1.0.0", "O(1)", "Set the string value of a key only when the key doesn't exist.")
        .deprecated("2.6.12", "`SET` with the `NX` argument"),
    Command::write("setex", 4, setex).event(Class::String, "set")
        .flags(Flags::DENYOOM)
        .keys(&[one_key("OW UPDATE")])
        .docs(
            "string",
            "2.0.0",
            "O(1)",
            "Sets the string value and expiration time of a key. Creates the key if it doesn't exist.",
        )
        .deprecated("2.6.12", "`SET` with the `EX` argument"),
    Command::write("psetex", 4, psetex).event(Class::String, "set")
        .flags(Flags::DENYOOM)
        .keys(&[one_key("OW UPDATE")])
        .docs(
            "string",
            "2.6.0",
            "O(1)",
            "Sets both string value and expiration time in milliseconds of a key. The key is created if it doesn't exist.",
        )
        .deprecated("2.6.12", "`SET` with the `PX` argument"),
    Command::write("getset", 3, getset).event(Class::String, "set")
        .flags(Flags::DENYOOM.or(Flags::FAST))
        .keys(ONE_READ_WRITE)
        .docs(
            "string",
            "1.0.0",
            "O(1)",
            "Returns the previous string value of a key after setting it to a new value.",
        )
        .deprecated("6.2.0", "`SET` with the `GET` argument"),
    Command::write("getex", -2, getex).flags(Flags::FAST).keys(ONE_READ_WRITE).docs(
        "string",
        "6.2.0",
        "O(1)",
        "Returns the string value of a key after setting its expiration time.",
    ),
    Command::write("getdel", 2, getdel).flags(Flags::FAST).keys(&[one_key("RW ACCESS DELETE")]).docs(
        "string",
        "6.2.0",
        "O(1)",
        "Returns the string value of a key after deleting the key.",
    ),
    Command::write("mset", -3, mset).event(Class::String, "set")
        .flags(Flags::DENYOOM)
        .keys(&[all_keys("OW UPDATE", 2)])
        .tips(&["request_policy:multi_shard", "response_policy:all_succeeded"])
        .docs(
            "string",
            "1.0.1",
            PER_KEY,
            "Atomically creates or modifies the string values of one or more keys.",
        ),
    Command::write("msetnx", -3, msetnx).event(Class::String, "set")
        .flags(Flags::DENYOOM)
        .keys(&[all_keys("OW INSERT", 2)])
        .tips(&["request_policy:multi_shard", "response_policy:agg_min"])
        .docs(
            "string",
            "1.0.1",
            PER_KEY,
            "Atomically modifies the string values of one or more keys only when all keys don't exist.",
        ),
];

/// Under which condition SET sets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Always,
    Absent,
    Present,
}

/// What follows the key and the value of SET.
struct SetOptions {
    condition: Condition,
    deadline: Deadline,
    old_value: bool,
}

fn set(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    if args.len() == 3 {
        keys.put_bytes(args.at(1), args.at(2), Deadline::Never);
        reply.ok();
        return Ok(());
    }
    let options = set_options(args, keys.now())?;
    set_with(keys, args, &options, reply)
}

fn set_options(args: Args<'_>, now: Millis) -> Result<SetOptions, CommandError> {
    let mut condition = Condition::Always;
    let mut old_value = false;
    let mut keep = false;
    let mut dated: Option<(Moment, &[u8])> = None;
    let mut at = 3;
    while let Some(word) = args.get(at) {
        at += 1;
        if is_word(word, "nx") && condition != Condition::Present {
            condition = Condition::Absent;
        } else if is_word(word, "xx") && condition != Condition::Absent {
            condition = Condition::Present;
        } else if is_word(word, "get") {
            old_value = true;
        } else if is_word(word, "keepttl") && dated.is_none() {
            keep = true;
        } else {
            dated = Some(dating(word, args.get(at), dated, keep)?);
            at += 1;
        }
    }
    let deadline = match dated {
        Some((moment, amount)) => Deadline::At(moment.deadline(amount, now, "set")?),
        None if keep => Deadline::Keep,
        None => Deadline::Never,
    };
    Ok(SetOptions { condition, deadline, old_value })
}

/// The moment that `word` and the next argument give: a word of dating, not after another one or what excludes it.
fn dating<'a>(
    word: &[u8],
    amount: Option<&'a [u8]>,
    before: Option<(Moment, &[u8])>,
    excluded: bool,
) -> Result<(Moment, &'a [u8]), CommandError> {
    let moment = moment(word).ok_or(CommandError::SYNTAX)?;
    let amount = amount.ok_or(CommandError::SYNTAX)?;
    if excluded || before.is_some_and(|(other, _)| other != moment) {
        return Err(CommandError::SYNTAX);
    }
    Ok((moment, amount))
}

fn set_with(keys: &mut Locked<'_>, args: Args<'_>, options: &SetOptions, reply: &mut Reply<'_>) -> Outcome {
    let key = args.at(1);
    if options.old_value {
        write_string(keys, key, reply)?;
    }
    let wanted = match options.condition {
        Condition::Always => true,
        Condition::Absent => keys.find(key).is_none(),
        Condition::Present => keys.find(key).is_some(),
    };
    if wanted {
        keys.put_bytes(key, args.at(2), options.deadline);
    }
    match (options.old_value, wanted) {
        (true, _) => {}
        (false, true) => reply.ok(),
        (false, false) => reply.null(),
    }
    Ok(())
}

/// Answers with a key's string; whether there is one.
fn write_string(keys: &mut Locked<'_>, key: &[u8], reply: &mut Reply<'_>) -> Result<bool, CommandError> {
    if let Some(value) = keys.string(key)? {
        reply.bulk(value);
        return Ok(true);
    }
    reply.null();
    keys.events.missed(key);
    Ok(false)
}

fn setnx(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let absent = keys.find(args.at(1)).is_none();
    if absent {
        keys.put_bytes(args.at(1), args.at(2), Deadline::Never);
    }
    reply.integer(absent as i64);
    Ok(())
}

fn setex(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_for(keys, args, reply, Moment::InSeconds, "setex")
}

fn psetex(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_for(keys, args, reply, Moment::InMillis, "psetex")
}

fn set_for(
    keys: &mut Locked<'_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
    moment: Moment,
    command: &str,
) -> Outcome {
    let deadline = moment.deadline(args.at(2), keys.now(), command)?;
    keys.put_bytes(args.at(1), args.at(3), Deadline::At(deadline));
    reply.ok();
    Ok(())
}

fn getset(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    write_string(keys, args.at(1), reply)?;
    keys.put_bytes(args.at(1), args.at(2), Deadline::Never);
    Ok(())
}

fn getdel(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    if write_string(keys, args.at(1), reply)? {
        keys.remove(args.at(1));
    }
    Ok(())
}

fn getex(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let mut persist = false;
    let mut dated: Option<(Moment, &[u8])> = None;
    let mut at = 2;
    while let Some(word) = args.get(at) {
        at += 1;
        if is_word(word, "persist") && dated.is_none() {
            persist = true;
        } else {
            dated = Some(dating(word, args.get(at), dated, persist)?);
            at += 1;
        }
    }
    let key = args.at(1);
    if !write_string(keys, key, reply)? {
        return Ok(());
    }
    if let Some((moment, amount)) = dated {
        let deadline = moment.deadline(amount, keys.now(), "getex")?;
        keys.set_deadline(key, Some(deadline));
    } else if persist && keys.peek(key).is_some_and(|record| record.expires_at().is_some()) {
        keys.set_deadline(key, None);
    }
    Ok(())
}

fn mset(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_pairs(keys, args, "mset")?;
    reply.ok();
    Ok(())
}

fn msetnx(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let absent = args.from(1).iter().step_by(2).all(|key| keys.find(key).is_none());
    if absent {
        set_pairs(keys, args, "msetnx")?;
    } else if args.len().is_multiple_of(2) {
        return Err(CommandError::arity("msetnx"));
    }
    reply.integer(absent as i64);
    Ok(())
}

fn set_pairs(keys: &mut Locked<'_>, args: Args<'_>, command: &str) -> Outcome {
    if args.len().is_multiple_of(2) {
        return Err(CommandError::arity(command));
    }
    for at in (1..args.len()).step_by(2) {
        keys.put_bytes(args.at(at), args.at(at + 1), Deadline::Never);
    }
    Ok(())
}
