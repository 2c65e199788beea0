//! COMMAND and its subcommands: the table, told to clients. Cluster clients find a request's keys by it, redis-cli
//! its hints. Everything is read off the rows; nothing is listed a second time.

mod categories;
mod details;
mod docs;

use slotcast_wire::args::Args;
use slotcast_wire::reply::Reply;

use crate::command::error::CommandError;
use crate::command::spec::Flags;
use crate::session::Session;
use crate::session::context::Context;
use crate::session::row::Row;
use crate::session::table::{self, Entry};
use crate::session::verdict::Verdict;

pub use categories::{categories, legacy_range};

const FLAGS: Flags = Flags::LOADING.or(Flags::STALE);
const UNORDERED: &[&str] = &["nondeterministic_output_order"];

/// The rows of this room.
pub const ROWS: &[Row] =
    &[Row::new("command", -1, all).flags(FLAGS).tips(UNORDERED).subcommands(SUBCOMMANDS).docs(
        "server",
        "2.8.13",
        "O(N) where N is the total number of commands",
        "Returns what is known about all commands.",
    )];

#[rustfmt::skip] // a row reads as a row
const SUBCOMMANDS: &[Row] = &[
    Row::new("count", 2, count).flags(FLAGS)
        .docs("server", "2.8.13", "O(1)", "Returns the number of commands."),
    Row::new("docs", -2, documentation).flags(FLAGS).tips(UNORDERED)
        .docs("server", "7.0.0", "O(N) where N is the number of commands to look up", "Returns commands' documentation."),
    Row::new("info", -2, some).flags(FLAGS).tips(UNORDERED)
        .docs("server", "2.8.13", "O(N) where N is the number of commands to look up", "Returns what is known about some commands, or all."),
    Row::new("getkeys", -4, keys).flags(FLAGS)
        .docs("server", "2.8.13", "O(N) where N is the number of arguments to the command", "Returns a request's keys."),
    Row::new("getkeysandflags", -4, keys_and_flags).flags(FLAGS)
        .docs("server", "7.0.0", "O(N) where N is the number of arguments to the command", "Returns a request's keys, each with what is done to it."),
    Row::new("list", -2, list).flags(FLAGS).tips(UNORDERED)
        .docs("server", "7.0.0", "O(N) where N is the total number of commands", "Returns commands' names."),
];

fn all(_: &mut Session, _: &Context, _: Args<'_>, reply: &mut Reply<'_>) -> Result<Verdict, CommandError> {
    let entries = table::entries();
    reply.array(entries.len());
    entries.iter().for_each(|entry| details::write(entry, reply));
    Ok(Verdict::Replied)
}

fn some(
    session: &mut Session,
    context: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let names = args.from(2);
    if names.is_empty() {
        return all(session, context, args, reply);
    }
    reply.array(names.len());
    for name in names {
        match table::find_full(name) {
            Some(entry) => details::write(entry, reply),
            None => reply.null_array(),
        }
    }
    Ok(Verdict::Replied)
}

fn count(_: &mut Session, _: &Context, _: Args<'_>, reply: &mut Reply<'_>) -> Result<Verdict, CommandError> {
    reply.integer(table::entries().len() as i64);
    Ok(Verdict::Replied)
}

fn documentation(
    _: &mut Session,
    _: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let names = args.from(2);
    if names.is_empty() {
        docs::write_all(table::entries().iter(), reply);
    } else {
        docs::write_all(names.iter().filter_map(table::find_full), reply);
    }
    Ok(Verdict::Replied)
}

/// COMMAND LIST [FILTERBY MODULE name | ACLCAT category | PATTERN pattern]; a filter also sees subcommands.
fn list(
    _: &mut Session,
    _: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let top = table::entries().iter();
    if args.len() == 2 {
        return names(top, reply);
    }
    if args.len() != 5 || !args.at(2).eq_ignore_ascii_case(b"filterby") {
        return Err(CommandError::SYNTAX);
    }
    let deep = top.flat_map(|entry| std::iter::once(entry).chain(entry.subcommands));
    let wanted = args.at(4);
    match args.at(3).to_ascii_lowercase().as_slice() {
        b"module" => names(std::iter::empty(), reply),
        b"aclcat" => names(
            deep.filter(|entry| {
                let mut categories = categories(entry).into_iter();
                categories.any(|category| category.as_bytes()[1..].eq_ignore_ascii_case(wanted))
            }),
            reply,
        ),
        b"pattern" => {
            names(deep.filter(|entry| crate::glob::matches_ignore_case(wanted, entry.name.as_bytes())), reply)
        }
        _ => Err(CommandError::SYNTAX),
    }
}

fn names<'a>(
    entries: impl Iterator<Item = &'a Entry>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let names: Vec<&str> = entries.map(|entry| entry.name).collect();
    reply.array(names.len());
    names.iter().for_each(|name| reply.bulk(name.as_bytes()));
    Ok(Verdict::Replied)
}

fn keys(
    _: &mut Session,
    _: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let request = args.from(2);
    let keys = keys_of(request)?;
    reply.array(keys.len());
    keys.iter().for_each(|(at, _)| reply.bulk(request.at(*at)));
    Ok(Verdict::Replied)
}

fn keys_and_flags(
    _: &mut Session,
    _: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let request = args.from(2);
    let keys = keys_of(request)?;
    reply.array(keys.len());
    for (at, flags) in keys {
        reply.array(2);
        reply.bulk(request.at(at));
        details::write_words(flags, reply);
    }
    Ok(Verdict::Replied)
}

/// Positions of a request's keys and what is done to them.
fn keys_of(request: Args<'_>) -> Result<Vec<(usize, &'static str)>, CommandError> {
    let entry = table::find(request.name()).ok_or(CommandError::text("ERR Invalid command specified"))?;
    let entry = match entry.subcommands {
        [] => entry,
        _ => {
            let sub = request.get(1).and_then(|name| entry.subcommand(name));
            sub.ok_or(CommandError::text("ERR Invalid command specified"))?
        }
    };
    if entry.command.keys.is_empty() {
        return Err(CommandError::text("ERR The command has no key arguments"));
    }
    if !entry.command.accepts(request.len()) {
        return Err(CommandError::text("ERR Invalid number of arguments specified for command"));
    }
    let mut keys = Vec::new();
    for spec in entry.command.keys {
        let one = crate::command::spec::Command { keys: std::slice::from_ref(spec), ..*entry.command };
        let positions = one
            .key_positions(request)
            .map_err(|_| CommandError::text("ERR Invalid arguments specified for command"))?;
        keys.extend(positions.iter().map(|position| (*position as usize, spec.flags)));
    }
    Ok(keys)
}
