//! COMMAND GETKEYS: which of a request's arguments are keys, and what is done to them.

use slotcast_wire::args::Args;

use crate::command::error::CommandError;
use crate::command::spec::Command;

/// Positions of the keys, each with its flags (as in `KeySpec::flags`).
pub fn of(command: &Command, request: Args<'_>) -> Result<Vec<(usize, &'static str)>, CommandError> {
    if command.keys.is_empty() {
        return Err(CommandError::text("ERR The command has no key arguments"));
    }
    if !command.accepts(request.len()) {
        return Err(CommandError::text("ERR Invalid number of arguments specified for command"));
    }
    let mut keys = Vec::new();
    for spec in command.keys {
        let with_one_spec = Command { keys: std::slice::from_ref(spec), ..*command };
        let positions = with_one_spec
            .key_positions(request)
            .map_err(|_| CommandError::text("ERR Invalid arguments specified for command"))?;
        keys.extend(positions.iter().map(|position| (*position as usize, spec.flags)));
    }
    Ok(keys)
}
