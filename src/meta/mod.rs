//! The metadata group: how a cluster comes to be, who belongs to it, and how the topology changes.
//!
//! A node lives a sequence of *lives*, each with an incarnation of its own. A life begins *empty*; it becomes part of
//! a cluster either by *forming* one (`bootstrap` says when that is allowed: all seeds present and empty, the first
//! of them asks) or by *joining* (the metadata group's leader lets it in under fresh member ids). It ends when
//! the node learns that it is not part of the cluster any more, or starts with a log that is not to be believed; a
//! process that finds its log whole goes on with the life it had (`memory`). What decides is pure (`bootstrap`); `standing` is the life's state, `service` answers other nodes, `entry` and `proposer` ask them.
//!
//! Deliberately unknown here: shards' groups, keys, clients.

pub mod bootstrap;
pub mod entry;
pub mod machine;
pub mod memory;
pub mod message;
pub mod proposer;
pub mod reunion;
pub mod service;
pub mod standing;
