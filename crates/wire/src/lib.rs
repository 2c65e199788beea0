//! What a slotcast server and its clients must agree on, as bytes: the slot of a key, requests, replies, pushes and
//! redirects.
//!
//! Everything here is sans-I/O: functions over byte slices and growing buffers, so that the server, the near cache, the
//! tests and the fuzzers all run the very same code. The crate knows no sockets, no runtime, no commands and no topology.
//!
//! Requests (arrays of bulk strings: nearly all of what a server reads) have a parser of their own because it is an order
//! of magnitude faster than a general one; replies are written straight into the output buffer. Where a frame may be
//! anything, [`frame`] has the general, owned form.

pub mod args;
mod display;
pub mod frame;
pub mod inline;
pub mod invalidation;
pub mod number;
pub mod position;
pub mod push;
pub mod range;
pub mod redirect;
pub mod reply;
pub mod request;
pub mod slot;
