//! Commands on keys, whatever they hold: removing, looking, renaming, copying.

use slotcast_wire::args::Args;
use slotcast_wire::reply::Reply;

use crate::command::argument::{integer, is_word};
use crate::command::error::{CommandError, Outcome};
use crate::command::spec::{Command, Find, Flags, KeySpec, all_keys, one_key};
use crate::keyspace::locked::Locked;

const SUM_OF_SHARDS: &[&str] = &["request_policy:multi_shard", "response_policy:agg_sum"];

/// The second argument.
const fn second_key(flags: &'static str) -> KeySpec {
    KeySpec { flags, begin: 2, find: Find::Range { last: 0, step: 1 } }
}

/// The rows of this file.
pub const ROWS: &[Command] = &[
    Command::write("del", -2, del).keys(&[all_keys("RM DELETE", 1)]).tips(SUM_OF_SHARDS).docs(
        "generic",
        "1.0.0",
        "O(N) where N is the number of keys that will be removed, and of the elements they hold.",
        "Deletes one or more keys.",
    ),
    Command::write("unlink", -2, del)
        .flags(Flags::FAST)
        .keys(&[all_keys("RM DELETE", 1)])
        .tips(SUM_OF_SHARDS)
        .docs(
            "generic",
            "4.0.0",
            "O(N) where N is the number of keys that will be removed, and of the elements they hold.",
            "Deletes one or more keys; here the same as DEL.",
        ),
    Command::read("exists", -2, exists)
        .flags(Flags::FAST)
        .keys(&[all_keys("RO", 1)])
        .tips(SUM_OF_SHARDS)
        .docs(
            "generic",
            "1.0.0",
            "O(N) where N is the number of keys to check.",
            "Determines whether one or more keys exist.",
        ),
    Command::read("touch", -2, exists)
        .flags(Flags::FAST)
        .keys(&[all_keys("RO", 1)])
        .tips(SUM_OF_SHARDS)
        .docs(
            "generic",
            "3.2.1",
            "O(N) where N is the number of keys that will be touched.",
            "Returns the number of existing keys out of those specified after updating the time they were last accessed.",
        ),
    Command::read("type", 2, type_of).flags(Flags::FAST).keys(&[one_key("RO")]).docs(
        "generic",
        "1.0.0",
        "O(1)",
        "Determines the type of value stored at a key.",
    ),
    Command::write("rename", 3, rename)
        .keys(&[one_key("RW ACCESS DELETE"), second_key("OW UPDATE")])
        .docs("generic", "1.0.0", "O(1)", "Renames a key and overwrites the destination."),
    Command::write("renamenx", 3, renamenx)
        .flags(Flags::FAST)
        .keys(&[one_key("RW ACCESS DELETE"), second_key("OW INSERT")])
        .docs("generic", "1.0.0", "O(1)", "Renames a key only when the target key name doesn't exist."),
    Command::write("copy", -3, copy)
        .flags(Flags::DENYOOM)
        .keys(&[one_key("RO ACCESS"), second_key("OW UPDATE")])
        .docs(
            "generic",
            "6.2.0",
            "O(N) worst case for collections, where N is the number of nested items. O(1) for string values.",
            "Copies the value of a key to a new key.",
        ),
];

fn del(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let removed = args.from(1).iter().filter(|key| keys.remove(key)).count();
    reply.integer(removed as i64);
    Ok(())
}

fn exists(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let present = args.from(1).iter().filter(|key| keys.find(key).is_some()).count();
    reply.integer(present as i64);
    Ok(())
}

fn type_of(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.simple(keys.peek(args.at(1)).map_or("none", |record| record.value().type_name()));
    Ok(())
}

fn rename(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    rename_if(keys, args, |_| true)?;
    reply.ok();
    Ok(())
}

fn renamenx(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let renamed = rename_if(keys, args, |keys| keys.find(args.at(2)).is_none())?;
    reply.integer(renamed as i64);
    Ok(())
}

/// Renames unless `allowed` says no; whether it did. A key that gets its own name is left alone.
fn rename_if(
    keys: &mut Locked<'_>,
    args: Args<'_>,
    allowed: impl Fn(&Locked<'_>) -> bool,
) -> Result<bool, CommandError> {
    let (from, to) = (args.at(1), args.at(2));
    if keys.find(from).is_none() {
        return Err(CommandError::NO_SUCH_KEY);
    }
    if from == to || !allowed(keys) {
        return Ok(false);
    }
    Ok(keys.rename(from, to))
}

fn copy(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let replace = copy_options(args)?;
    let (from, to) = (args.at(1), args.at(2));
    if from == to {
        return Err(CommandError::text("ERR source and destination objects are the same"));
    }
    let found = keys.find(from).is_some();
    if !found {
        keys.events.missed(from);
    }
    let copied = found && (replace || keys.find(to).is_none()) && keys.copy(from, to);
    reply.integer(copied as i64);
    Ok(())
}

/// Whether REPLACE is among the options. There is one database, as in any cluster.
fn copy_options(args: Args<'_>) -> Result<bool, CommandError> {
    let mut replace = false;
    let mut at = 3;
    while let Some(word) = args.get(at) {
        at += 1;
        if is_word(word, "replace") {
            replace = true;
        } else if let Some(number) = args.get(at).filter(|_| is_word(word, "db")) {
            at += 1;
            match integer(number)? {
                0 => {}
                other if i32::try_from(other).is_err() => {
                    return Err(CommandError::not_between(i32::MIN.into(), i32::MAX.into()));
                }
                _ => return Err(CommandError::text("ERR DB index is out of range")),
            }
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    Ok(replace)
}
