//! String commands that read, and the simple ones that write; SET and its kin have a file of their own.

use slotcast_wire::args::Args;
use slotcast_wire::reply::Reply;

use crate::command::error::Outcome;
use crate::command::spec::{Command, Flags, one_key};
use crate::keyspace::locked::Locked;

/// The rows of this file.
pub const ROWS: &[Command] = &[Command::read("get", 2, get)
    .flags(Flags::FAST)
    .keys(&[one_key("RO ACCESS")])
    .docs("string", "1.0.0", "O(1)", "Returns the string value of a key.")];

fn get(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    match keys.string(args.at(1))? {
        Some(value) => reply.bulk(value),
        None => reply.null(),
    }
    Ok(())
}
