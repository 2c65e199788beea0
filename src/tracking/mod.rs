//! Which connections may hold which keys in a cache of theirs, and which keys have changed lately.
//!
//! Two answers to one question, what a cache has to drop. A node remembers who has read what ([`table`]), or who is told
//! of all keys that begin in some way ([`prefixes`]), and tells them once ([`backlog`]). A shard remembers what has
//! changed ([`ring`]), and a cache that comes back is told from where it stood ([`feed`]). Bounded; pure bookkeeping: who
//! fills them (reads, effects) and how a connection is reached are the server's concern.

pub mod backlog;
pub mod excerpt;
pub mod feed;
pub mod filter;
pub mod frames;
pub mod prefixes;
pub mod ring;
pub mod rings;
pub mod segment;
pub mod slots;
pub mod table;
