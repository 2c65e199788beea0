//! Who has subscribed to what, and what a message looks like.
//!
//! The node's register of channels, patterns and shard channels, what one connection holds of it, and messages as
//! clients and as other nodes get them. Pure bookkeeping: a subscriber is a number here. Who delivers (outboxes, the
//! bus) and which node takes a shard channel's subscribers is the concern of the floors above.

pub mod message;
pub mod registry;
pub mod subscriptions;
