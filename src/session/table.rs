//! All commands by name: the data commands' rows and the session's own, with what the dispatcher calls.
//!
//! Built once, from the families' rows. A container may have subcommands of both kinds (MEMORY USAGE is about a key,
//! MEMORY STATS about the node). COMMAND and HELP have their rows here, because they are about the table itself.

use std::sync::LazyLock;

use slotcast_wire::args::Args;
use slotcast_wire::reply::Reply;

use crate::command::error::CommandError;
use crate::command::lookup::NameTable;
use crate::command::spec::{Command, Flags};
use crate::session::context::Context;
use crate::session::entry::Entry;
use crate::session::introspection::categories::categories;
use crate::session::introspection::{details, docs, keys};
use crate::session::row::{Refused, Row};
use crate::session::verdict::Verdict;
use crate::session::{
    Session, client, cluster, config, connection, info, invalidations, log_stream, multi, persistence,
    pubsub, server,
};

/// The families' rows.
const FAMILIES: &[&[Row]] = &[
    connection::ROWS,
    client::ROWS,
    multi::ROWS,
    persistence::ROWS,
    pubsub::ROWS,
    cluster::ROWS,
    info::ROWS,
    invalidations::ROWS,
    log_stream::ROWS,
    COMMAND,
    config::ROWS,
    server::ROWS,
];

struct Table {
    entries: &'static [Entry],
    by_name: NameTable<&'static Entry>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let session: Vec<&'static Row> = FAMILIES.iter().flat_map(|rows| rows.iter()).collect();
    let on_keys: Vec<&'static Command> = crate::command::table::rows().collect();
    let shared = |row: &Row| on_keys.iter().find(|command| command.name == row.command.name);
    let mut entries: Vec<Entry> = session
        .iter()
        .map(|row| Entry::of_row(row, shared(row).map_or(&[], |command| command.subcommands), &HELP))
        .collect();
    let only_on_keys =
        on_keys.iter().filter(|command| session.iter().all(|row| row.command.name != command.name));
    entries.extend(only_on_keys.map(|command| Entry::of_command(command, &HELP)));
    entries.sort_by_key(|entry| entry.name);
    let entries: &'static [Entry] = entries.leak();
    Table { entries, by_name: NameTable::new(entries.iter().map(|entry| (entry.name, entry))) }
});

/// Finds a command by its first word, in any case.
#[inline]
pub fn find(name: &[u8]) -> Option<&'static Entry> {
    TABLE.by_name.find(name).copied()
}

/// Finds a command by its whole name: `get`, `cluster|slots`.
pub fn find_full(name: &[u8]) -> Option<&'static Entry> {
    match name.iter().position(|byte| *byte == b'|') {
        None => find(name),
        Some(bar) => find(&name[..bar])?.subcommand(&name[bar + 1..]),
    }
}

/// All commands, containers once, by name.
pub fn entries() -> &'static [Entry] {
    TABLE.entries
}

/// The row that executes this request: of the command, or of the subcommand. The number of arguments fits.
#[inline]
pub fn resolve(args: Args<'_>) -> Result<&'static Entry, CommandError> {
    let Some(mut entry) = find(args.name()) else {
        return Err(CommandError::unknown_command(args));
    };
    if !entry.subcommands.is_empty() && args.len() > 1 {
        entry = entry.subcommand(args.at(1)).ok_or_else(|| unknown_subcommand(entry, args.at(1)))?;
    }
    if entry.command.accepts(args.len()) { Ok(entry) } else { Err(CommandError::arity(entry.name)) }
}

#[cold]
fn unknown_subcommand(container: &Entry, word: &[u8]) -> CommandError {
    let refused = |row: &&Refused| row.names.iter().any(|name| word.eq_ignore_ascii_case(name.as_bytes()));
    match container.refused.iter().find(refused) {
        Some(refused) => {
            let (container, word) = (container.name.to_uppercase(), word.to_ascii_uppercase());
            let word = String::from_utf8_lossy(&word);
            CommandError(format!("ERR {container} {word} is not supported: {}", refused.why).into())
        }
        None => CommandError::unknown_subcommand(container.name, word),
    }
}

/// HELP of any container.
static HELP: Row =
    Row::new("help", 2, help).flags(ALWAYS).docs("", "5.0.0", "O(1)", "Shows what the subcommands are for.");

fn help(
    _: &mut Session,
    _: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let Some(container) = find(args.name()) else { return Err(CommandError::unknown_command(args)) };
    let upper = container.name.to_uppercase();
    reply.array(1 + 2 * container.subcommands.len());
    reply.simple(&format!("{upper} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    for sub in container.subcommands {
        reply.simple(&sub.command.name.to_uppercase());
        reply.simple(&format!("    {}", sub.command.summary));
    }
    Ok(Verdict::Replied)
}

const ALWAYS: Flags = Flags::LOADING.or(Flags::STALE);
const CONNECTION: &[&str] = &["@connection"];
const UNORDERED: &[&str] = &["nondeterministic_output_order"];

/// COMMAND stands here, because it is about this table.
const COMMAND: &[Row] = &[Row::new("command", -1, all)
    .flags(ALWAYS)
    .categories(CONNECTION)
    .tips(UNORDERED)
    .subcommands(SUBCOMMANDS)
    .docs(
        "server",
        "2.8.13",
        "O(N) where N is the total number of commands",
        "Returns what is known about all commands.",
    )];

#[rustfmt::skip] // a row reads as a row
const SUBCOMMANDS: &[Row] = &[
    Row::new("count", 2, count).flags(ALWAYS).categories(CONNECTION)
        .docs("server", "2.8.13", "O(1)", "Returns the number of commands."),
    Row::new("docs", -2, documentation).flags(ALWAYS).categories(CONNECTION).tips(UNORDERED)
        .docs("server", "7.0.0", "O(N) where N is the number of commands to look up", "Returns commands' documentation."),
    Row::new("info", -2, some).flags(ALWAYS).categories(CONNECTION).tips(UNORDERED)
        .docs("server", "2.8.13", "O(N) where N is the number of commands to look up", "Returns what is known about some commands, or all."),
    Row::new("getkeys", -4, request_keys).flags(ALWAYS).categories(CONNECTION)
        .docs("server", "2.8.13", "O(N) where N is the number of arguments to the command", "Returns a request's keys."),
    Row::new("getkeysandflags", -4, keys_and_flags).flags(ALWAYS).categories(CONNECTION)
        .docs("server", "7.0.0", "O(N) where N is the number of arguments to the command", "Returns a request's keys, each with what is done to it."),
    Row::new("list", -2, list).flags(ALWAYS).categories(CONNECTION).tips(UNORDERED)
        .docs("server", "7.0.0", "O(N) where N is the total number of commands", "Returns commands' names."),
];

fn all(_: &mut Session, _: &Context, _: Args<'_>, reply: &mut Reply<'_>) -> Result<Verdict, CommandError> {
    let entries = entries();
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
        match find_full(name) {
            Some(entry) => details::write(entry, reply),
            None => reply.null_array(),
        }
    }
    Ok(Verdict::Replied)
}

fn count(_: &mut Session, _: &Context, _: Args<'_>, reply: &mut Reply<'_>) -> Result<Verdict, CommandError> {
    reply.integer(entries().len() as i64);
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
        docs::write_all(entries().iter(), reply);
    } else {
        docs::write_all(names.iter().filter_map(find_full), reply);
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
    let top = entries().iter();
    if args.len() == 2 {
        return write_names(top, reply);
    }
    if args.len() != 5 || !args.at(2).eq_ignore_ascii_case(b"filterby") {
        return Err(CommandError::SYNTAX);
    }
    let deep = top.flat_map(|entry| std::iter::once(entry).chain(entry.subcommands));
    let wanted = args.at(4);
    match args.at(3).to_ascii_lowercase().as_slice() {
        b"module" => write_names(std::iter::empty(), reply),
        b"aclcat" => write_names(
            deep.filter(|entry| {
                let mut categories = categories(entry.command).into_iter();
                categories.any(|category| category.as_bytes()[1..].eq_ignore_ascii_case(wanted))
            }),
            reply,
        ),
        b"pattern" => write_names(
            deep.filter(|entry| crate::glob::matches_ignore_case(wanted, entry.name.as_bytes())),
            reply,
        ),
        _ => Err(CommandError::SYNTAX),
    }
}

fn write_names<'a>(
    entries: impl Iterator<Item = &'a Entry>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let names: Vec<&str> = entries.map(|entry| entry.name).collect();
    reply.array(names.len());
    names.iter().for_each(|name| reply.bulk(name.as_bytes()));
    Ok(Verdict::Replied)
}

fn request_keys(
    _: &mut Session,
    _: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let request = args.from(2);
    let keys = keys::of(request_row(request)?, request)?;
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
    let keys = keys::of(request_row(request)?, request)?;
    reply.array(keys.len());
    for (at, flags) in keys {
        reply.array(2);
        reply.bulk(request.at(at));
        details::write_words(flags, reply);
    }
    Ok(Verdict::Replied)
}

/// The row that a request given to GETKEYS means.
fn request_row(request: Args<'_>) -> Result<&'static Command, CommandError> {
    let entry = find(request.name());
    let entry = match request.get(1) {
        Some(word) if entry.is_some_and(|entry| !entry.subcommands.is_empty()) => {
            entry.and_then(|entry| entry.subcommand(word))
        }
        _ => entry,
    };
    entry.map(|entry| entry.command).ok_or(CommandError::text("ERR Invalid command specified"))
}
