//! Which connections may hold which keys in a cache of theirs.
//!
//! The invalidation tables of a node, whatever shard a key belongs to. Bounded; pure bookkeeping: who fills it
//! (reads), who empties it (effects) and how a connection is told are the server's concern.

pub mod ring;
pub mod rings;
pub mod segment;
pub mod table;
