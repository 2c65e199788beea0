//! A row as the dispatcher finds it: a data command's or a session command's, with its whole name.

use crate::command::spec::Command;
use crate::session::row::{Refused, Row, SessionFn};

/// See the module.
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
    /// Subcommands that are refused with an explanation.
    pub refused: &'static [Refused],
}

impl Entry {
    /// Of a data command. Entries live as long as the process, so their parts are leaked, once each.
    pub fn of_command(command: &'static Command, help: &Row) -> Self {
        let subcommands = command.subcommands.iter().map(|sub| Self::subcommand_of(command, sub)).collect();
        Self::new(command.name, command, None).with_subcommands(subcommands, help)
    }

    /// Of a session command; `shared` are the subcommands that a container has among the data commands.
    pub fn of_row(row: &'static Row, shared: &'static [Command], help: &Row) -> Self {
        let own = row
            .subcommands
            .iter()
            .map(|sub| Self { session: sub.run, ..Self::subcommand_of(&row.command, &sub.command) });
        let shared = shared.iter().map(|sub| Self::subcommand_of(&row.command, sub));
        let subcommands = own.chain(shared).collect();
        let entry = Self {
            at_once: row.at_once,
            refused: row.refused,
            ..Self::new(row.command.name, &row.command, row.run)
        };
        entry.with_subcommands(subcommands, help)
    }

    fn new(name: &'static str, command: &'static Command, session: Option<SessionFn>) -> Self {
        Self { name, command, session, at_once: false, subcommands: &[], refused: &[] }
    }

    fn subcommand_of(container: &Command, command: &'static Command) -> Self {
        Self::new(format!("{}|{}", container.name, command.name).leak(), command, None)
    }

    /// Every container has HELP, which belongs to its group.
    fn with_subcommands(self, mut subcommands: Vec<Self>, help: &Row) -> Self {
        if !subcommands.is_empty() && !subcommands.iter().any(|sub| sub.command.name == "help") {
            let Command { group, categories, .. } = *self.command;
            let command = Box::leak(Box::new(Command { group, categories, ..help.command }));
            subcommands.push(Self { session: help.run, ..Self::subcommand_of(self.command, command) });
        }
        subcommands.sort_by_key(|sub| sub.name);
        Self { subcommands: subcommands.leak(), ..self }
    }

    /// A container's subcommand, in any case.
    pub fn subcommand(&self, word: &[u8]) -> Option<&'static Self> {
        self.subcommands.iter().find(|entry| word.eq_ignore_ascii_case(entry.command.name.as_bytes()))
    }
}
