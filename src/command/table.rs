//! All data commands, by name. Sessions add theirs (`session::table`).

use crate::command::spec::Command;
use crate::command::{expire, hash, hash_all, keys, lcs, object, scan, string, string_number, string_set};

/// The families' rows.
pub const FAMILIES: &[&[Command]] = &[
    string::ROWS,
    string_set::ROWS,
    string_number::ROWS,
    lcs::ROWS,
    keys::ROWS,
    expire::ROWS,
    object::ROWS,
    scan::ROWS,
    hash::ROWS,
    hash_all::ROWS,
];

/// The rows of all families.
pub fn rows() -> impl Iterator<Item = &'static Command> {
    FAMILIES.iter().flat_map(|rows| rows.iter())
}
