//! OBJECT and MEMORY USAGE: what is known about a key besides its content.
//!
//! The encodings are Redis's names for how *it* would store the value; tools and tests look at them. They are told from
//! the value, so they needn't be remembered (nor stick as they do there).

use slotcast_wire::args::Args;
use slotcast_wire::number::parse_i64;
use slotcast_wire::reply::Reply;

use crate::command::error::{CommandError, Outcome};
use crate::command::spec::{Command, Find, Flags, KeySpec};
use crate::keyspace::hash::Hash;
use crate::keyspace::locked::Locked;
use crate::keyspace::record::Record;
use crate::keyspace::value::ValueRef;

const KEY: &[KeySpec] = &[KeySpec { flags: "RO", begin: 2, find: Find::Range { last: 0, step: 1 } }];
const VARIES: &[&str] = &["nondeterministic_output"];

/// The rows of this file.
pub const ROWS: &[Command] = &[
    MEMORY,
    Command::container(
        "object",
        &[
            Command::read("encoding", 3, encoding).silent().keys(KEY).tips(VARIES).docs(
                "generic",
                "2.2.3",
                "O(1)",
                "Returns the internal encoding of a Redis object.",
            ),
            Command::read("freq", 3, freq).silent().keys(KEY).tips(VARIES).docs(
                "generic",
                "4.0.0",
                "O(1)",
                "Returns the logarithmic access frequency counter of a Redis object.",
            ),
            Command::read("idletime", 3, idletime).silent().keys(KEY).tips(VARIES).docs(
                "generic",
                "2.2.3",
                "O(1)",
                "Returns the time since the last access to a Redis object.",
            ),
            Command::read("refcount", 3, refcount).silent().keys(KEY).tips(VARIES).docs(
                "generic",
                "2.2.3",
                "O(1)",
                "Returns the reference count of a value of a key.",
            ),
            Command::read("help", 2, help)
                .without(Flags::READONLY)
                .flags(Flags::LOADING.or(Flags::STALE))
                .docs("generic", "6.2.0", "O(1)", "Returns helpful text about the different subcommands."),
        ],
    )
    .docs("generic", "2.2.3", "Depends on subcommand.", "A container for object introspection commands."),
];

/// The session adds subcommands about the node (`session::server`).
const MEMORY: Command = Command::container(
    "memory",
    &[Command::read("usage", -3, usage).silent().keys(KEY).docs(
        "server",
        "4.0.0",
        "O(N) where N is the number of elements in the value.",
        "Returns the bytes a key and its value take.",
    )],
)
.docs("server", "4.0.0", "Depends on subcommand.", "A container for commands about memory.");

/// Redis's limits of its compact encodings (its defaults).
const EMBEDDED_STRING: usize = 44;
const LISTPACK_ENTRIES: usize = 512;
const LISTPACK_VALUE: usize = 64;

fn encoding(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    match keys.peek(args.at(2)) {
        Some(record) => reply.bulk(encoding_of(record).as_bytes()),
        None => reply.null(),
    }
    Ok(())
}

fn encoding_of(record: &Record) -> &'static str {
    match record.value() {
        ValueRef::Bytes(_) if record.is_boxed() => "raw",
        ValueRef::Bytes(bytes) if parse_i64(bytes).is_some() => "int",
        ValueRef::Bytes(bytes) if bytes.len() <= EMBEDDED_STRING => "embstr",
        ValueRef::Bytes(_) => "raw",
        ValueRef::Hash(hash) if is_compact(hash) => "listpack",
        ValueRef::Hash(_) => "hashtable",
    }
}

fn is_compact(hash: &Hash) -> bool {
    let fits = |bytes: &[u8]| bytes.len() <= LISTPACK_VALUE;
    hash.len() <= LISTPACK_ENTRIES && hash.iter().all(|(field, value)| fits(field) && fits(value))
}

fn freq(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    if keys.peek(args.at(2)).is_some() {
        return Err(CommandError::text(
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when \
             switching between policies at runtime LRU and LFU data will take some time to adjust.",
        ));
    }
    reply.null();
    Ok(())
}

fn idletime(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    match keys.peek(args.at(2)) {
        Some(record) => reply.integer(record.idle((keys.now() / 1000) as u32).into()),
        None => reply.null(),
    }
    Ok(())
}

fn refcount(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    match keys.peek(args.at(2)) {
        Some(_) => reply.integer(1),
        None => reply.null(),
    }
    Ok(())
}

/// Exact, so SAMPLES is checked and has no effect.
fn usage(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    match (args.get(3), args.len()) {
        (None, _) => {}
        (Some(option), 5) if option.eq_ignore_ascii_case(b"samples") => {
            parse_i64(args.at(4)).ok_or(CommandError::NOT_INTEGER)?;
        }
        _ => return Err(CommandError::SYNTAX),
    }
    match keys.peek(args.at(2)) {
        Some(record) => reply.integer(record.memory() as i64),
        None => reply.null(),
    }
    Ok(())
}

const HELP: &[&str] = &[
    "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "ENCODING <key>",
    "    Return the kind of internal representation used in order to store the value",
    "    associated with a <key>.",
    "FREQ <key>",
    "    Return the access frequency index of the <key>. The returned integer is",
    "    proportional to the logarithm of the recent access frequency of the key.",
    "IDLETIME <key>",
    "    Return the idle time of the <key>, that is the approximated number of",
    "    seconds elapsed since the last access to the key.",
    "REFCOUNT <key>",
    "    Return the number of references of the value associated with the specified",
    "    <key>.",
    "HELP",
    "    Prints this help.",
];

fn help(_: &Locked<'_>, _: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.array(HELP.len());
    HELP.iter().for_each(|line| reply.simple(line));
    Ok(())
}
