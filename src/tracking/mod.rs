//! Which connections may hold which keys in a cache of theirs.
//!
//! The invalidation tables of a node, whatever shard a key belongs to: [`table`] remembers who has read what,
//! [`prefixes`] who is told of all keys that begin in some way, and [`backlog`] what one connection has still to be
//! told. Bounded; pure bookkeeping: who fills it (reads), who empties it (effects) and how a connection is reached are
//! the server's concern.

pub mod backlog;
pub mod prefixes;
pub mod ring;
pub mod rings;
pub mod segment;
pub mod table;
