//! All commands by name: the data commands' rows and the session's own, with what the dispatcher calls.
//!
//! Built once, from the families' rows. A container may have subcommands of both kinds (MEMORY USAGE is about a key,
//! MEMORY STATS about the node). HELP is the same for every container and is added here.

use std::collections::HashMap;
use std::sync::LazyLock;

use slotcast_wire::args::Args;
use slotcast_wire::reply::Reply;
use smallvec::SmallVec;

use crate::command::error::CommandError;
use crate::command::spec::{Command, Flags};
use crate::session::context::Context;
use crate::session::row::{Refused, Row, SessionFn};
use crate::session::verdict::Verdict;
use crate::session::{
    Session, client, cluster, config, connection, info, introspection, server, transaction,
};

/// The families' rows.
const FAMILIES: &[&[Row]] = &[
    connection::ROWS,
    client::ROWS,
    transaction::ROWS,
    cluster::ROWS,
    info::ROWS,
    introspection::ROWS,
    config::ROWS,
    server::ROWS,
];

/// A row as the dispatcher finds it.
#[derive(Clone, Copy)]
pub struct Entry {
    /// The whole name in lower case: `get`, `cluster|slots`.
    pub name: &'static str,
    /// What the table says of the command.
    pub command: &'static Command,
    /// Its function if the session executes it; data commands carry theirs in the row.
    pub session: Option<SessionFn>,
    /// Executed even between MULTI and EXEC, not queued.
    pub at_once: bool,
    /// Of a container; HELP is among them.
    pub subcommands: &'static [Entry],
    refused: &'static [Refused],
}

/// Names longer than any command; a longer one is unknown without a look.
const LONGEST_NAME: usize = 32;

struct Table {
    entries: Vec<Entry>,
    by_name: HashMap<&'static [u8], usize, foldhash::fast::FixedState>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let session: Vec<&'static Row> = FAMILIES.iter().flat_map(|rows| rows.iter()).collect();
    let mut entries: Vec<Entry> = crate::command::table::rows()
        .filter(|data| !session.iter().any(|row| row.command.name == data.name))
        .map(|data| data_entry("", data))
        .collect();
    entries.extend(session.iter().map(|row| {
        let data = crate::command::table::rows().find(|data| data.name == row.command.name);
        session_entry("", row, data.map_or(&[], |data| data.subcommands))
    }));
    entries.sort_by_key(|entry| entry.name);
    let by_name = entries.iter().enumerate().map(|(at, entry)| (entry.name.as_bytes(), at)).collect();
    Table { entries, by_name }
});

/// Finds a command by its first word, in any case.
pub fn find(name: &[u8]) -> Option<&'static Entry> {
    if name.len() > LONGEST_NAME {
        return None;
    }
    let mut lower: SmallVec<[u8; LONGEST_NAME]> = SmallVec::from_slice(name);
    lower.make_ascii_lowercase();
    TABLE.by_name.get(&lower[..]).and_then(|at| TABLE.entries.get(*at))
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
    &TABLE.entries
}

/// The row that executes this request: of the command, or of the subcommand. The number of arguments fits.
#[inline]
pub fn resolve(args: Args<'_>) -> Result<&'static Entry, CommandError> {
    let Some(mut entry) = find(args.name()) else {
        return Err(unknown_command(args));
    };
    if !entry.subcommands.is_empty() && args.len() > 1 {
        entry = entry.subcommand(args.at(1)).ok_or_else(|| unknown_subcommand(entry, args.at(1)))?;
    }
    if entry.command.accepts(args.len()) { Ok(entry) } else { Err(CommandError::arity(entry.name)) }
}

impl Entry {
    /// A container's subcommand, in any case.
    pub fn subcommand(&self, name: &[u8]) -> Option<&'static Entry> {
        self.subcommands.iter().find(|entry| entry.command.name.as_bytes().eq_ignore_ascii_case(name))
    }
}

/// Bytes of a name, and of all arguments together, that error texts repeat.
const REPEATED: usize = 128;

/// The answer to a request whose first word is no command.
#[cold]
pub fn unknown_command(args: Args<'_>) -> CommandError {
    let mut beginning = String::new();
    for arg in args.from(1) {
        if beginning.len() >= REPEATED {
            break;
        }
        let room = REPEATED - beginning.len();
        beginning += &format!("'{}' ", shown(arg, room));
    }
    let name = shown(args.name(), REPEATED);
    CommandError(format!("ERR unknown command '{name}', with args beginning with: {beginning}").into())
}

#[cold]
fn unknown_subcommand(container: &Entry, name: &[u8]) -> CommandError {
    let upper = container.name.to_uppercase();
    let lower = shown(name, REPEATED).to_ascii_lowercase();
    if let Some(refused) = container.refused.iter().find(|refused| refused.names.contains(&lower.as_str())) {
        let text = format!("ERR {upper} {} is not supported: {}", lower.to_uppercase(), refused.why);
        return CommandError(text.into());
    }
    CommandError(format!("ERR unknown subcommand '{}'. Try {upper} HELP.", shown(name, REPEATED)).into())
}

/// What a client sent, as an error text repeats it: like C, up to the first NUL.
fn shown(bytes: &[u8], room: usize) -> String {
    let bytes = &bytes[..bytes.len().min(room)];
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn data_entry(container: &str, command: &'static Command) -> Entry {
    let subcommands: Vec<Entry> =
        command.subcommands.iter().map(|sub| data_entry(command.name, sub)).collect();
    entry(container, command, None, false, subcommands, &[])
}

fn session_entry(container: &str, row: &'static Row, data: &'static [Command]) -> Entry {
    let mut subcommands: Vec<Entry> =
        row.subcommands.iter().map(|sub| session_entry(row.command.name, sub, &[])).collect();
    subcommands.extend(data.iter().map(|sub| data_entry(row.command.name, sub)));
    entry(container, &row.command, row.run, row.at_once, subcommands, row.refused)
}

/// The table lives as long as the process, so its parts are leaked, once.
fn entry(
    container: &str,
    command: &'static Command,
    session: Option<SessionFn>,
    at_once: bool,
    mut subcommands: Vec<Entry>,
    refused: &'static [Refused],
) -> Entry {
    let name = match container {
        "" => command.name,
        container => format!("{container}|{}", command.name).leak(),
    };
    if !subcommands.is_empty() && !subcommands.iter().any(|sub| sub.command.name == "help") {
        let row: &'static Command = Box::leak(Box::new(help_row(command.group)));
        subcommands.push(entry(name, row, Some(help), false, Vec::new(), &[]));
    }
    subcommands.sort_by_key(|sub| sub.name);
    Entry { name, command, session, at_once, subcommands: subcommands.leak(), refused }
}

const fn help_row(group: &'static str) -> Command {
    Command::session("help", 2).flags(Flags::LOADING.or(Flags::STALE)).docs(
        group,
        "5.0.0",
        "O(1)",
        "Shows what the subcommands are for.",
    )
}

/// HELP of any container, from its rows.
fn help(
    _: &mut Session,
    _: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let Some(container) = find(args.name()) else { return Err(unknown_command(args)) };
    let upper = container.name.to_uppercase();
    reply.array(1 + 2 * container.subcommands.len());
    reply.simple(&format!("{upper} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    for sub in container.subcommands {
        reply.simple(&sub.command.name.to_uppercase());
        reply.simple(&format!("    {}", sub.command.summary));
    }
    Ok(Verdict::Replied)
}
