//! What COMMAND prints of a row: details, documentation, a request's keys. The rows say it all; this only gives it
//! Redis's shapes, in both protocol versions. It doesn't know which rows there are (`session::table` does).

pub mod categories;
pub mod details;
pub mod docs;
pub mod keys;
