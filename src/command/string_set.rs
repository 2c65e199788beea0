//! SET and its kin: everything that replaces a whole string.

use slotcast_wire::args::Args;
use slotcast_wire::reply::Reply;

use crate::command::error::{CommandError, Outcome};
use crate::command::spec::{Command, Flags, one_key};
use crate::keyspace::locked::{Deadline, Locked};

/// The rows of this file.
pub const ROWS: &[Command] = &[Command::write("set", -3, set)
    .flags(Flags::DENYOOM)
    .keys(&[one_key("RW ACCESS UPDATE VARIABLE_FLAGS")])
    .docs(
        "string",
        "1.0.0",
        "O(1)",
        "Sets the string value of a key, ignoring its type. The key is created if it doesn't exist.",
    )];

fn set(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    if args.len() > 3 {
        return Err(CommandError::SYNTAX);
    }
    keys.put_bytes(args.at(1), args.at(2), Deadline::Never);
    reply.ok();
    Ok(())
}
