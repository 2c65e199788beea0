//! The commands on data: one family a file, one row a command, beside its function and its tests.
//!
//! A row ([`spec::Command`]) says everything about a command that others need: arity, flags, where its keys are, its
//! documentation, and the function with its permission (`Run::Read` sees `&Locked`, `Run::Write` `&mut Locked`).
//! Arity check, routing, COMMAND, COMMAND DOCS, COMMAND GETKEYS and the README's table read the rows; so adding a
//! command touches one place.
//!
//! A command's function is deterministic: its time and randomness come from `Locked`. It doesn't know of sessions,
//! connections, shards, the log or tracking.

pub mod argument;
pub mod error;
pub mod execute;
pub mod expire;
pub mod hash;
pub mod hash_all;
pub mod keys;
pub mod lcs;
pub mod long_double;
pub mod lookup;
pub mod needs;
pub mod object;
pub mod reply_limit;
pub mod scan;
pub mod scan_options;
pub mod spec;
pub mod string;
pub mod string_number;
pub mod string_set;
pub mod table;
