//! MULTI, EXEC, DISCARD, WATCH, UNWATCH: they only move the session's transaction; what takes the keyspace, the
//! verdict leaves to the dispatcher.

use slotcast_wire::args::{Args, OwnedArgs};
use slotcast_wire::reply::Reply;

use crate::command::error::CommandError;
use crate::command::spec::{Flags, all_keys};
use crate::session::Session;
use crate::session::context::Context;
use crate::session::row::Row;
use crate::session::transaction::Exec;
use crate::session::verdict::Verdict;

const QUICK: Flags =
    Flags::NOSCRIPT.or(Flags::LOADING).or(Flags::STALE).or(Flags::FAST).or(Flags::ALLOW_BUSY);
const EXEC: Flags = Flags::NOSCRIPT.or(Flags::LOADING).or(Flags::STALE).or(Flags::SKIP_SLOWLOG);

/// The rows of this file.
#[rustfmt::skip] // a row reads as a row
pub const ROWS: &[Row] = &[
    Row::new("multi", 1, multi).flags(QUICK).at_once()
        .docs("transactions", "1.2.0", "O(1)", "Starts a transaction."),
    Row::new("exec", 1, exec).flags(EXEC).at_once()
        .docs("transactions", "1.2.0", "Depends on commands in the transaction", "Executes the transaction's requests as one."),
    Row::new("discard", 1, discard).flags(QUICK).at_once()
        .docs("transactions", "2.0.0", "O(N), when N is the number of queued commands", "Drops the transaction's requests."),
    Row::new("watch", -2, watch).flags(QUICK).at_once().keys(&[all_keys("RO", 1)])
        .docs("transactions", "2.2.0", "O(1) for every key.", "Makes EXEC depend on the keys staying as they are."),
    Row::new("unwatch", 1, unwatch).flags(QUICK)
        .docs("transactions", "2.2.0", "O(1)", "Forgets all watched keys."),
];

fn multi(
    session: &mut Session,
    _: &Context,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    if !session.transaction.begin() {
        return Err(CommandError::text("ERR MULTI calls can not be nested"));
    }
    reply.ok();
    Ok(Verdict::Replied)
}

fn exec(session: &mut Session, _: &Context, _: Args<'_>, _: &mut Reply<'_>) -> Result<Verdict, CommandError> {
    let exec = session.transaction.exec();
    match exec {
        Exec::Batch(batch) => Ok(Verdict::Execute(batch)),
        Exec::NotOpen => Err(CommandError::text("ERR EXEC without MULTI")),
        Exec::Aborted => {
            Err(CommandError::text("EXECABORT Transaction discarded because of previous errors."))
        }
    }
}

fn discard(
    session: &mut Session,
    _: &Context,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    if !session.transaction.discard() {
        return Err(CommandError::text("ERR DISCARD without MULTI"));
    }
    reply.ok();
    Ok(Verdict::Replied)
}

/// Noting the keys' state takes the keyspace, which the dispatcher reaches.
fn watch(
    session: &mut Session,
    _: &Context,
    args: Args<'_>,
    _: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    if session.transaction.is_open() {
        return Err(CommandError::text("ERR WATCH inside MULTI is not allowed"));
    }
    Ok(Verdict::Watch(OwnedArgs::from(args)))
}

fn unwatch(
    session: &mut Session,
    _: &Context,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    session.transaction.unwatch();
    reply.ok();
    Ok(Verdict::Replied)
}
