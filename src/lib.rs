//! slotcast, the server. Modules are rooms on floors; imports point downward only (see `ARCHITECTURE.md`;
//! `tests/tidy.rs` keeps it so). There is no re-export hub: paths name the room they come from.

#[cfg(feature = "broken")]
pub mod broken;
pub mod bus;
pub mod codec;
pub mod command;
pub mod config;
pub mod glob;
pub mod id;
pub mod keyspace;
pub mod meta;
pub mod metrics;
pub mod node;
pub mod pubsub;
pub mod raft;
pub mod server;
pub mod session;
pub mod shard;
pub mod time;
pub mod topology;
pub mod tracking;
pub mod wal;
