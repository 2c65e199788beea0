//! The write-ahead log: everything the Raft members of this node must not forget, in one sequence of records.
//!
//! ```text
//! append ─ encode ─ write (page cache) ─┬─ done            Sync::Background: the kernel has it
//!                                       └─ flusher: fdatasync ─ done   Sync::Always: the disk has it
//! segments   1 ─ 2 ─ 3 ─ 4 (written to)      deleted from the front, once snapshots cover all that is in them
//! restart    scan ─ trust? ─ a member's votes and entries, by (group, member)
//! ```
//!
//! One log for all groups of a node, because then one fdatasync covers whatever all of them have waiting, and because
//! one order of records is the order Raft wants votes and entries kept in. A record is written by whoever has it, under
//! one lock, straight into the page cache (a few microseconds); only waiting for the disk is the flusher's.
//!
//! What decides is pure and tested without a disk ([`record`], [`scan`], [`ledger`], [`trust`]); what does is behind
//! the [`disk::Disk`] trait, which has a simulated disk beside the real one. Deliberately unknown here: what entries
//! mean, what a snapshot is, who leads.

pub mod disk;
pub mod flush;
pub mod ledger;
pub mod log;
mod pages;
pub mod record;
pub mod recovery;
pub mod scan;
pub mod segment;
pub mod simulated;
pub mod trust;
pub mod writer;

use crate::id::{GroupId, MemberId};

/// Whose record it is: one member of one group.
pub type Key = (GroupId, MemberId);

/// The key of records that belong to the node, not to a member.
pub const NODE: Key = (GroupId(u32::MAX), 0);
