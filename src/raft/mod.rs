//! Raft groups: a replicated log under a [`machine::Machine`] of the caller's.
//!
//! The only room that names openraft. The rest of the server sees a [`group::Group`] handle, a
//! [`machine::Machine`] trait, bytes and member ids, so that openraft (an alpha that changes its API every few
//! weeks) can be upgraded, or replaced, here alone.
//!
//! Deliberately unknown here: slots, keys, requests, what the bytes of a proposal mean.

mod client;
pub mod doubt;
mod driver;
mod encoding;
pub mod freshness;
pub mod group;
pub mod groups;
mod inbox;
mod inside;
mod kept;
pub mod lease;
pub mod leaving;
mod log_store;
pub mod machine;
pub mod membership;
mod network;
mod pipeline;
pub mod proposal;
mod propose;
mod queue;
mod restore;
mod runtime;
mod saving;
mod snapshot_file;
pub mod state;
mod state_machine;
mod stored;
mod succession;
mod types;
mod watch;
mod wire;

/// What the log lines of the Raft library itself are marked with; it tells every step, so a log filter wants to
/// treat them apart.
pub const LOG_TARGET: &str = "openraft";
