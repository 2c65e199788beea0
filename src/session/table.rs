//! All commands by name: the data commands' rows and the session's own, with what the dispatcher calls.

use slotcast_wire::args::Args;
use slotcast_wire::reply::Reply;

use crate::command::error::CommandError;
use crate::command::spec::Command;
use crate::session::Session;
use crate::session::context::Context;
use crate::session::verdict::Verdict;

/// A session command's function.
pub type SessionFn = fn(&mut Session, &Context, Args<'_>, &mut Reply<'_>) -> Result<Verdict, CommandError>;

/// A row as the dispatcher finds it.
#[derive(Clone, Copy)]
pub struct Entry {
    /// What the table says of the command.
    pub command: &'static Command,
    /// Its function if the session executes it; data commands carry theirs in the row.
    pub session: Option<SessionFn>,
}
