//! All data commands, by name. Sessions add theirs (`session::table`).

use crate::command::spec::Command;
use crate::command::{hash, keys, scan, string, string_set};

/// The families' rows.
pub const FAMILIES: &[&[Command]] = &[string::ROWS, string_set::ROWS, keys::ROWS, scan::ROWS, hash::ROWS];

/// The rows of all families.
pub fn rows() -> impl Iterator<Item = &'static Command> {
    FAMILIES.iter().flat_map(|rows| rows.iter())
}
