//! String commands that read, and those that change a part of a string.

use slotcast_wire::args::Args;
use slotcast_wire::reply::Reply;

use crate::command::argument::{MAX_STRING, integer};
use crate::command::error::{CommandError, Outcome};
use crate::command::reply_limit::check;
use crate::command::spec::{Command, Flags, all_keys, one_key};
use crate::keyspace::event::Class;
use crate::keyspace::locked::{Deadline, Locked};

const RANGE_COMPLEXITY: &str = "O(N) where N is the length of the returned string. The complexity is ultimately determined by the returned length, but because creating a substring from an existing string is very cheap, it can be considered O(1) for small strings.";

/// The rows of this file.
pub const ROWS: &[Command] = &[
    Command::read("get", 2, get).flags(Flags::FAST).keys(&[one_key("RO ACCESS")]).docs(
        "string",
        "1.0.0",
        "O(1)",
        "Returns the string value of a key.",
    ),
    Command::read("mget", -2, mget)
        .flags(Flags::FAST)
        .keys(&[all_keys("RO ACCESS", 1)])
        .tips(&["request_policy:multi_shard"])
        .docs(
            "string",
            "1.0.0",
            "O(N) where N is the number of keys to retrieve.",
            "Atomically returns the string values of one or more keys.",
        ),
    Command::read("strlen", 2, strlen).flags(Flags::FAST).keys(&[one_key("RO")]).docs(
        "string",
        "2.2.0",
        "O(1)",
        "Returns the length of a string value.",
    ),
    Command::read("getrange", 4, getrange).keys(&[one_key("RO ACCESS")]).docs(
        "string",
        "2.4.0",
        RANGE_COMPLEXITY,
        "Returns a substring of the string stored at a key.",
    ),
    Command::read("substr", 4, getrange)
        .keys(&[one_key("RO ACCESS")])
        .docs("string", "1.0.0", RANGE_COMPLEXITY, "Returns a substring from a string value.")
        .deprecated("2.0.0", "`GETRANGE`"),
    Command::write("append", 3, append).event(Class::String, "append")
        .flags(Flags::DENYOOM.or(Flags::FAST))
        .keys(&[one_key("RW INSERT")])
        .docs(
            "string",
            "2.0.0",
            "O(1), amortized over the appends to a key.",
            "Appends a string to the value of a key. Creates the key if it doesn't exist.",
        ),
    Command::write("setrange", 4, setrange).event(Class::String, "setrange").flags(Flags::DENYOOM).keys(&[one_key("RW UPDATE")]).docs(
        "string",
        "2.2.0",
        "O(M) where M is the length of the value and of the gap before it.",
        "Overwrites a part of a string value with another by an offset. Creates the key if it doesn't exist.",
    ),
];

fn get(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    match keys.string(args.at(1))? {
        Some(value) => reply.bulk(value),
        None => reply.null(),
    }
    Ok(())
}

fn mget(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let start = reply.mark();
    reply.array(args.len() - 1);
    for key in args.from(1) {
        match keys.string(key) {
            Ok(Some(value)) => reply.bulk(value),
            _ => reply.null(),
        }
        check(reply, start)?;
    }
    Ok(())
}

fn strlen(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.integer(keys.string(args.at(1))?.map_or(0, <[u8]>::len) as i64);
    Ok(())
}

fn getrange(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (first, last) = (integer(args.at(2))?, integer(args.at(3))?);
    let value = keys.string(args.at(1))?.unwrap_or_default();
    reply.bulk(range(value, first, last));
    Ok(())
}

/// The bytes from `first` to `last`, both included; negative positions count from the end.
fn range(value: &[u8], first: i64, last: i64) -> &[u8] {
    let len = value.len() as i64;
    if first < 0 && last < 0 && first > last {
        return &[];
    }
    let from_start =
        |position: i64| if position < 0 { position.saturating_add(len).max(0) } else { position };
    let (first, end) = (from_start(first), from_start(last).min(len - 1) + 1);
    value.get(first as usize..end as usize).unwrap_or_default()
}

fn append(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, tail) = (args.at(1), args.at(2));
    let len = match keys.string(key)?.map(<[u8]>::len) {
        None => {
            keys.put_bytes(key, tail, Deadline::Never);
            tail.len()
        }
        Some(len) if tail.is_empty() => len,
        Some(len) if len + tail.len() > MAX_STRING => return Err(CommandError::STRING_TOO_LONG),
        Some(_) => keys.edit_bytes(key, |value| {
            value.extend_from_slice(tail);
            value.len()
        })?,
    };
    reply.integer(len as i64);
    Ok(())
}

fn setrange(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, part) = (args.at(1), args.at(3));
    let offset = usize::try_from(integer(args.at(2))?)
        .map_err(|_| CommandError::text("ERR offset is out of range"))?;
    let mut len = keys.string(key)?.map_or(0, <[u8]>::len);
    if !part.is_empty() {
        let end = offset.checked_add(part.len()).filter(|end| *end <= MAX_STRING);
        let end = end.ok_or(CommandError::STRING_TOO_LONG)?;
        len = keys.edit_bytes(key, |value| {
            if value.len() < end {
                value.resize(end, 0);
            }
            value[offset..end].copy_from_slice(part);
            value.len()
        })?;
    }
    reply.integer(len as i64);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_count_from_both_ends() {
        for (first, last, expected) in [
            (0, 3, "This"),
            (-3, -1, "ing"),
            (0, -1, "This is a string"),
            (10, 100, "string"),
            (-1, -3, ""),
            (5, 3, ""),
            (20, 30, ""),
            (i64::MIN, i64::MAX, "This is a string"),
            (i64::MAX, i64::MIN, ""),
        ] {
            assert_eq!(range(b"This is a string", first, last), expected.as_bytes(), "{first} {last}");
        }
        assert_eq!(range(b"", 0, -1), b"");
    }
}
