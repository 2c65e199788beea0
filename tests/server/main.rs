//! The server as a client meets it: a real process, real sockets, one node.
//!
//! What a client can do wrong (and must not break), what it may rely on, and that a tracking client is never left
//! with a stale value. The commands themselves are in the golden scripts.

mod figures;
mod input;
mod limits;
mod node;
mod notifications;
mod pubsub;
mod script;
mod signals;
mod tracking;
mod transactions;
