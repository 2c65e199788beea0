//! CLIENT: what a connection says about itself, and what it may know of the others.

use slotcast_wire::args::Args;
use slotcast_wire::number::parse_i64;
use slotcast_wire::reply::{Proto, Reply};

use crate::command::error::CommandError;
use crate::command::spec::Flags;
use crate::session::client_line::{Filter, Kind, line};
use crate::session::client_tracking::{caching, on_or_off, redirection, tracking, tracking_state};
use crate::session::context::Context;
use crate::session::row::{Refused, Row};
use crate::session::verdict::Verdict;
use crate::session::{Replies, Session};

const OWN: Flags = Flags::NOSCRIPT.or(Flags::LOADING).or(Flags::STALE);
const ADMIN: Flags = OWN.or(Flags::ADMIN);

/// The rows of this file.
pub const ROWS: &[Row] = &[Row::container("client", SUBCOMMANDS)
    .refuses(&[Refused { names: &["pause", "unpause"], why: "no connection holds others back" }])
    .docs("connection", "2.4.0", "Depends on subcommand.", "A container for commands about connections.")];

#[rustfmt::skip] // a row reads as a row
const SUBCOMMANDS: &[Row] = &[
    Row::new("id", 2, id).flags(OWN)
        .docs("connection", "5.0.0", "O(1)", "Returns the connection's id."),
    Row::new("setname", 3, set_name).flags(OWN)
        .docs("connection", "2.6.9", "O(1)", "Names the connection."),
    Row::new("getname", 2, name).flags(OWN)
        .docs("connection", "2.6.9", "O(1)", "Returns the connection's name."),
    Row::new("setinfo", 4, set_library).flags(OWN)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .docs("connection", "7.2.0", "O(1)", "Tells the client library's name (LIB-NAME) or version (LIB-VER)."),
    Row::new("info", 2, own_line).flags(OWN).tips(&["nondeterministic_output"])
        .docs("connection", "6.2.0", "O(1)", "Returns what CLIENT LIST says about this connection."),
    Row::new("list", -2, list).flags(ADMIN).tips(&["nondeterministic_output"])
        .docs("connection", "2.4.0", "O(N) where N is the number of client connections", "Lists open connections."),
    Row::new("kill", -3, kill).flags(ADMIN)
        .docs("connection", "2.4.0", "O(N) where N is the number of client connections", "Closes open connections."),
    Row::new("reply", 3, replies).flags(OWN)
        .docs("connection", "3.2.0", "O(1)", "Says whether requests are answered: ON, OFF, or SKIP the next."),
    Row::new("no-evict", 3, no_evict).flags(ADMIN)
        .docs("connection", "7.0.0", "O(1)", "Marks the connection as one not to close when memory is short."),
    Row::new("no-touch", 3, no_touch).flags(OWN)
        .docs("connection", "7.2.0", "O(1)", "Makes the connection's reads not count as uses of keys."),
    Row::new("reads", 3, reads).flags(OWN)
        .docs("connection", "8.0.0", "O(1)",
            "Says how the connection's reads know that they are current: by the leader's LEASE, or LINEARIZABLE by a quorum."),
    Row::new("stamp", 3, stamp).flags(OWN)
        .docs("connection", "8.0.0", "O(1)",
            "Puts an attribute in front of replies: the position in its shard's log as of which they are true, and the key's remaining time."),
    Row::new("tracking", -3, tracking).flags(OWN)
        .docs("connection", "6.0.0", "O(1). Some options may introduce additional complexity.",
            "Controls server-assisted client-side caching for the connection."),
    Row::new("trackinginfo", 2, tracking_state).flags(OWN)
        .docs("connection", "6.2.0", "O(1)", "Returns the connection's tracking mode."),
    Row::new("getredir", 2, redirection).flags(OWN)
        .docs("connection", "6.0.0", "O(1)", "Returns the id that invalidations are redirected to: 0 for none."),
    Row::new("caching", 3, caching).flags(OWN)
        .docs("connection", "6.0.0", "O(1)", "Says whether the next request's keys are tracked (OPTIN, OPTOUT)."),
];

/// CLIENT STAMP ON|OFF.
fn stamp(
    session: &mut Session,
    context: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let on = on_or_off(args.at(2))?;
    if on && session.proto != Proto::Resp3 {
        return Err(CommandError::text("ERR Stamps are RESP3 attributes: send HELLO 3 first"));
    }
    if on {
        context.rings.want();
    }
    session.stamped = on;
    reply.ok();
    Ok(Verdict::Replied)
}

/// Longest name, library name or version a connection may give itself; they are repeated for everyone who asks.
const LONGEST_LABEL: usize = 512;

/// Checks a connection's name.
pub fn client_name(name: &[u8]) -> Result<String, CommandError> {
    label(name, "Client names")
}

/// Only printable ASCII without blanks: CLIENT LIST's lines are split at blanks.
fn label(text: &[u8], what: &str) -> Result<String, CommandError> {
    if text.len() > LONGEST_LABEL {
        return Err(CommandError(format!("ERR {what} cannot be longer than {LONGEST_LABEL} bytes.").into()));
    }
    match std::str::from_utf8(text) {
        Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(text.to_owned()),
        _ => Err(CommandError(
            format!("ERR {what} cannot contain spaces, newlines or special characters.").into(),
        )),
    }
}

fn id(
    session: &mut Session,
    _: &Context,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    reply.integer(session.client.id as i64);
    Ok(Verdict::Replied)
}

fn set_name(
    session: &mut Session,
    _: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    session.client.profile.lock().name = client_name(args.at(2))?;
    reply.ok();
    Ok(Verdict::Replied)
}

fn name(
    session: &mut Session,
    _: &Context,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let profile = session.client.profile.lock();
    if profile.name.is_empty() {
        reply.null()
    } else {
        reply.bulk(profile.name.as_bytes())
    }
    Ok(Verdict::Replied)
}

fn set_library(
    session: &mut Session,
    _: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let option = String::from_utf8_lossy(args.at(2)).to_ascii_lowercase();
    let mut profile = session.client.profile.lock();
    match option.as_str() {
        "lib-name" => profile.lib_name = label(args.at(3), "lib-name")?,
        "lib-ver" => profile.lib_version = label(args.at(3), "lib-ver")?,
        _ => {
            let option = String::from_utf8_lossy(args.at(2));
            return Err(CommandError(format!("ERR Unrecognized option '{option}'").into()));
        }
    }
    reply.ok();
    Ok(Verdict::Replied)
}

fn own_line(
    session: &mut Session,
    context: &Context,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    session.show();
    reply.verbatim("txt", line(&session.client, context.clock.now()).as_bytes());
    Ok(Verdict::Replied)
}

fn list(
    session: &mut Session,
    context: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let filter = match (args.get(2), args.len()) {
        (None, _) => Filter::default(),
        (Some(option), 4) if option.eq_ignore_ascii_case(b"type") => {
            Filter { kind: Some(Kind::parse(args.at(3))?), ..Filter::default() }
        }
        (Some(option), 4..) if option.eq_ignore_ascii_case(b"id") => {
            let id = |arg| parse_i64(arg).ok_or(CommandError::text("ERR Invalid client ID"));
            Filter { ids: args.from(3).iter().map(id).collect::<Result<_, _>>()?, ..Filter::default() }
        }
        _ => return Err(CommandError::SYNTAX),
    };
    session.show();
    let now = context.clock.now();
    let clients = context.clients.list();
    let lines: String =
        clients.iter().filter(|client| filter.admits(client, now)).map(|client| line(client, now)).collect();
    reply.verbatim("txt", lines.as_bytes());
    Ok(Verdict::Replied)
}

/// `CLIENT KILL ip:port` answers OK or an error; with options, the number of connections closed.
fn kill(
    session: &mut Session,
    context: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let address_only = args.len() == 3;
    let filter = if address_only {
        Filter { address: Some(String::from_utf8_lossy(args.at(2)).into_owned()), ..Filter::default() }
    } else {
        Filter::for_kill(args.from(2), session.client.id)?
    };
    let now = context.clock.now();
    let clients = context.clients.list();
    let mut verdict = Verdict::Replied;
    let mut killed = 0;
    for client in clients.iter().filter(|client| filter.admits(client, now)) {
        killed += 1;
        if client.id == session.client.id {
            verdict = Verdict::Close;
        } else {
            client.kill();
        }
    }
    match (address_only, killed) {
        (true, 0) => return Err(CommandError::text("ERR No such client")),
        (true, _) => reply.ok(),
        (false, killed) => reply.integer(killed),
    }
    Ok(verdict)
}

/// The dispatcher reads `Session::replies` after this, so that OFF and SKIP go unanswered and ON is answered.
fn replies(
    session: &mut Session,
    _: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let mode = args.at(2);
    if mode.eq_ignore_ascii_case(b"on") {
        session.replies = Replies::On;
        reply.ok();
    } else if mode.eq_ignore_ascii_case(b"off") {
        session.replies = Replies::Off;
    } else if mode.eq_ignore_ascii_case(b"skip") {
        if session.replies != Replies::Off {
            session.replies = Replies::SkipNext;
        }
    } else {
        return Err(CommandError::SYNTAX);
    }
    Ok(Verdict::Replied)
}

fn no_evict(
    session: &mut Session,
    _: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    session.client.profile.lock().no_evict = on_or_off(args.at(2))?;
    reply.ok();
    Ok(Verdict::Replied)
}

fn no_touch(
    session: &mut Session,
    _: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    session.no_touch = on_or_off(args.at(2))?;
    session.client.profile.lock().no_touch = session.no_touch;
    reply.ok();
    Ok(Verdict::Replied)
}

/// slotcast's own: LEASE relies on clocks running at about the same rate, LINEARIZABLE on nothing, and costs a round
/// trip to a quorum for each batch of reads (Raft thesis §6.4).
fn reads(
    session: &mut Session,
    _: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    session.linearizable = match args.at(2).to_ascii_lowercase().as_slice() {
        b"lease" => false,
        b"linearizable" => true,
        _ => return Err(CommandError::SYNTAX),
    };
    reply.ok();
    Ok(Verdict::Replied)
}
