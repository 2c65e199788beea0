//! SAVE, BGSAVE and LASTSAVE: every shard copy of this node written to a snapshot file, from which a restart begins.
//!
//! No acknowledged write depends on them (the log holds it, and the copies do); they only make the next restart shorter.

use slotcast_wire::args::Args;
use slotcast_wire::reply::Reply;

use crate::command::error::CommandError;
use crate::command::spec::Flags;
use crate::session::Session;
use crate::session::context::Context;
use crate::session::row::Row;
use crate::session::verdict::Verdict;

const ADMIN: Flags = Flags::ADMIN.or(Flags::NOSCRIPT).or(Flags::NO_ASYNC_LOADING);

/// The rows of this file.
#[rustfmt::skip] // a row reads as a row
pub const ROWS: &[Row] = &[
    Row::new("save", 1, save).flags(ADMIN.or(Flags::NO_MULTI))
        .docs("server", "1.0.0", "O(N) where N is the number of keys the node holds", "Writes this node's copies to disk and waits for the end."),
    Row::new("bgsave", -1, save_in_background).flags(ADMIN)
        .docs("server", "1.0.0", "O(1)", "Begins to write this node's copies to disk."),
    Row::new("lastsave", 1, last_save).flags(Flags::LOADING.or(Flags::STALE).or(Flags::FAST))
        .categories(&["@admin", "@dangerous"])
        .tips(&["nondeterministic_output"])
        .docs("server", "1.0.0", "O(1)", "Returns the Unix time of the last SAVE or BGSAVE that succeeded."),
];

/// Asks for a save.
fn ask(context: &Context) -> Result<(), CommandError> {
    if let Some(why) = context.keeps_nothing() {
        return Err(CommandError(format!("ERR Nothing to save: {why}").into()));
    }
    match context.saves.ask(context.clock.now()) {
        true => Ok(()),
        false => Err(CommandError::text("ERR Background save already in progress")),
    }
}

fn save(_: &mut Session, context: &Context, _: Args<'_>, _: &mut Reply<'_>) -> Result<Verdict, CommandError> {
    ask(context).map(|()| Verdict::Saved)
}

/// SCHEDULE is accepted and changes nothing: there is nothing else that a save could have to wait for.
fn save_in_background(
    _: &mut Session,
    context: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    if args.len() > 2 || args.len() == 2 && !args.at(1).eq_ignore_ascii_case(b"schedule") {
        return Err(CommandError::SYNTAX);
    }
    ask(context)?;
    reply.simple("Background saving started");
    Ok(Verdict::Replied)
}

fn last_save(
    _: &mut Session,
    context: &Context,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    reply.integer((context.saves.status().succeeded / 1000) as i64);
    Ok(Verdict::Replied)
}
