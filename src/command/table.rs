//! All data commands, by name. Sessions add theirs (`session::table`).

use std::sync::LazyLock;

use slotcast_wire::args::Args;

use crate::command::lookup::NameTable;
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

static BY_NAME: LazyLock<NameTable<&'static Command>> =
    LazyLock::new(|| NameTable::new(rows().map(|row| (row.name, row))));

/// The row of a data request that was accepted once (a log entry's): none if it isn't one of this version's.
pub fn resolve(args: Args<'_>) -> Option<&'static Command> {
    BY_NAME.find(args.name()).and_then(|row| row.resolve(args).ok())
}
