//! CONFIG: reading and changing directives (`crate::config` knows which and how), and resetting the counters.

use slotcast_wire::args::Args;
use slotcast_wire::reply::Reply;

use crate::command::error::CommandError;
use crate::command::spec::Flags;
use crate::session::Session;
use crate::session::context::Context;
use crate::session::row::Row;
use crate::session::verdict::Verdict;

const ADMIN: Flags = Flags::ADMIN.or(Flags::NOSCRIPT).or(Flags::LOADING).or(Flags::STALE);

/// The rows of this file.
pub const ROWS: &[Row] = &[Row::container("config", SUBCOMMANDS).docs(
    "server",
    "2.0.0",
    "Depends on subcommand.",
    "A container for commands about the configuration.",
)];

#[rustfmt::skip] // a row reads as a row
const SUBCOMMANDS: &[Row] = &[
    Row::new("get", -3, get).flags(ADMIN)
        .docs("server", "2.0.0", "O(N) when N is the number of configuration parameters provided", "Returns directives that match patterns."),
    Row::new("set", -4, set).flags(ADMIN).tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .docs("server", "2.0.0", "O(N) when N is the number of configuration parameters provided", "Changes directives on this node, all or none."),
    Row::new("resetstat", 2, reset_statistics).flags(ADMIN)
        .docs("server", "2.0.0", "O(1)", "Sets INFO's counters back to zero."),
    Row::new("rewrite", 2, rewrite).flags(ADMIN)
        .docs("server", "2.8.0", "O(1)", "Answers an error: the file belongs to the operator."),
];

fn get(
    _: &mut Session,
    context: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let patterns: Vec<&[u8]> = args.from(2).iter().collect();
    let found = context.config.matching(&patterns);
    reply.map(found.len());
    for (name, value) in found {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    Ok(Verdict::Replied)
}

fn set(
    _: &mut Session,
    context: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    if !args.len().is_multiple_of(2) {
        return Err(CommandError::SYNTAX);
    }
    let pairs: Vec<(&[u8], &[u8])> =
        (2..args.len()).step_by(2).map(|at| (args.at(at), args.at(at + 1))).collect();
    context.config.set(&pairs).map_err(|error| CommandError(error.to_string().into()))?;
    reply.ok();
    Ok(Verdict::Replied)
}

fn reset_statistics(
    _: &mut Session,
    context: &Context,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    context.metrics.reset();
    reply.ok();
    Ok(Verdict::Replied)
}

fn rewrite(_: &mut Session, _: &Context, _: Args<'_>, _: &mut Reply<'_>) -> Result<Verdict, CommandError> {
    Err(CommandError::text(
        "ERR Rewriting config file is not supported: the file is the same on every node and belongs to the operator; edit it there",
    ))
}
