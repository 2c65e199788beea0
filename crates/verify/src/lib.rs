//! Whether what clients saw is what one object that does one thing at a time could have answered.
//!
//! [`linearizability`] is the search, for any object; [`register`] is the object that `scripts/verify` works on, with
//! what makes long histories with lost answers decidable; [`history`] is what clients note; [`staleness`] judges caches.
//! The campaign itself is the binary beside this. Nothing here knows sockets, nodes or faults, so the simulation's tests
//! use the same search.

pub mod history;
pub mod linearizability;
pub mod register;
pub mod staleness;
pub mod stalls;
