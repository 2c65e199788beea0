//! (to be written)

use crate::command::spec::Command;

/// The rows of this file.
pub const ROWS: &[Command] = &[];
