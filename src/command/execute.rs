//! Running one command's function and writing its reply: the same for a read on a connection's thread, a write at apply
//! and a golden script.

use slotcast_wire::args::Args;
use slotcast_wire::reply::Reply;

use crate::command::error::CommandError;
use crate::command::spec::{Command, Run};
use crate::keyspace::locked::Locked;

/// Executes a data command ([`Run::Read`], [`Run::Write`]) whose arity fits ([`Command::resolve`]) on the slots it needs
/// ([`crate::command::needs::needs`]). Writes exactly one reply: the command's, or its error alone.
#[inline]
pub fn execute(command: &Command, keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) {
    let mark = reply.mark();
    let outcome = match command.run {
        Run::Read(run) => run(keys, args, reply),
        Run::Write(run) => {
            keys.events.call_changes(command.event);
            run(keys, args, reply)
        }
        Run::Session | Run::Container => {
            Err(CommandError::text("ERR this command runs on a connection only"))
        }
    };
    if let Err(CommandError(text)) = outcome {
        reply.truncate(mark);
        reply.error(&text);
    }
}

/// Notes the keys that a command which only reads has looked for in vain.
pub fn note_misses(command: &Command, keys: &mut Locked<'_>, args: Args<'_>) {
    if command.is_write() || command.silent || !keys.events.are_noted() {
        return;
    }
    for position in command.key_positions(args).unwrap_or_default() {
        let key = args.at(position as usize);
        if keys.is_absent(key) {
            keys.events.missed(key);
        }
    }
}
