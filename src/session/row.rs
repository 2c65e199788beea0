//! What the session's part of the command table says: the same row as a data command's, and the function the session
//! runs for it. A row doesn't know who looks it up.

use slotcast_wire::args::Args;
use slotcast_wire::reply::Reply;

use crate::command::error::CommandError;
use crate::command::spec::{Command, Flags, KeySpec};
use crate::session::Session;
use crate::session::context::Context;
use crate::session::verdict::Verdict;

/// A session command's function. It gets the whole request, a subcommand's container name included.
pub type SessionFn = fn(&mut Session, &Context, Args<'_>, &mut Reply<'_>) -> Result<Verdict, CommandError>;

/// A row: a command of the session, or a container of such.
#[derive(Clone, Copy)]
pub struct Row {
    /// What COMMAND says of it.
    pub command: Command,
    /// Its function; `None`: it is nothing without a subcommand.
    pub run: Option<SessionFn>,
    /// Subcommands of a container (HELP is added by the table).
    pub subcommands: &'static [Row],
    /// Subcommands that a Redis has and slotcast refuses, with the reason. COMMAND doesn't list them.
    pub refused: &'static [Refused],
    /// Executed even between MULTI and EXEC, not queued.
    pub at_once: bool,
}

/// Subcommands that are refused with an explanation.
#[derive(Clone, Copy)]
pub struct Refused {
    /// Lower case.
    pub names: &'static [&'static str],
    /// What to do instead; completes "CLUSTER MEET is not supported: ".
    pub why: &'static str,
}

impl Row {
    /// A row for a command the session executes.
    pub const fn new(name: &'static str, arity: i32, run: SessionFn) -> Self {
        Self {
            command: Command::session(name, arity),
            run: Some(run),
            subcommands: &[],
            refused: &[],
            at_once: false,
        }
    }

    /// A row for a container.
    pub const fn container(name: &'static str, subcommands: &'static [Row]) -> Self {
        let command = Command::container(name, &[]);
        Self { command, run: None, subcommands, refused: &[], at_once: false }
    }

    /// Makes a command a container as well.
    pub const fn subcommands(mut self, subcommands: &'static [Row]) -> Self {
        self.subcommands = subcommands;
        self
    }

    /// Names subcommands that are refused.
    pub const fn refuses(mut self, refused: &'static [Refused]) -> Self {
        self.refused = refused;
        self
    }

    /// Executes it even between MULTI and EXEC.
    pub const fn at_once(mut self) -> Self {
        self.at_once = true;
        self
    }

    /// As [`Command::flags`].
    pub const fn flags(mut self, flags: Flags) -> Self {
        self.command = self.command.flags(flags);
        self
    }

    /// As [`Command::keys`].
    pub const fn keys(mut self, keys: &'static [KeySpec]) -> Self {
        self.command = self.command.keys(keys);
        self
    }

    /// As [`Command::docs`].
    pub const fn docs(
        mut self,
        group: &'static str,
        since: &'static str,
        complexity: &'static str,
        summary: &'static str,
    ) -> Self {
        self.command = self.command.docs(group, since, complexity, summary);
        self
    }

    /// As [`Command::categories`].
    pub const fn categories(mut self, categories: &'static [&'static str]) -> Self {
        self.command = self.command.categories(categories);
        self
    }

    /// As [`Command::tips`].
    pub const fn tips(mut self, tips: &'static [&'static str]) -> Self {
        self.command = self.command.tips(tips);
        self
    }
}
