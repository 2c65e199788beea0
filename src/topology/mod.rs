//! The topology: which nodes there are, which shards, which slots each owns, which nodes hold a copy of it.
//!
//! It is the metadata group's state: a [`change::Change`] goes through that group's log, every node applies it and
//! publishes the new [`Topology`], whose `epoch` is the log index. Pure data and functions: who proposes a change,
//! and what a node does about one, is `meta`'s and `node`'s concern; who leads a shard *right now* is known best by
//! that shard's own group, and the view that a node routes by ([`view::View`]) puts the two together.

pub mod change;
pub mod route;
pub mod slot_map;
pub mod view;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{GroupId, MemberId, NodeId};
use crate::topology::slot_map::SlotMap;

/// The metadata group's state. Cloned and published whole on each change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// Log index of the last change.
    pub epoch: u64,
    /// All nodes that belong to the cluster.
    pub nodes: BTreeMap<NodeId, Node>,
    /// All shards.
    pub shards: BTreeMap<GroupId, Shard>,
    /// Which shard owns which slot.
    pub slots: SlotMap,
    /// Members of the metadata group.
    pub meta: BTreeMap<NodeId, MemberId>,
    /// The next member id to hand out; ids are never used twice, in any group.
    pub next_member: MemberId,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Host that clients reach it at.
    pub host: String,
    /// Port that clients reach it at.
    pub port: u16,
    /// Where other nodes reach it (`ip:port`).
    pub bus: std::net::SocketAddr,
    /// Drawn when a node begins anew: another one means that what it held is gone.
    pub incarnation: u64,
}

/// One Raft group and the slots it serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// The node that leads it when all is well.
    pub home: NodeId,
    /// The nodes with a copy, and their members' ids in the group.
    pub copies: BTreeMap<NodeId, MemberId>,
    /// The members its group began with. Each of them that still is itself may initialise the group, with exactly
    /// these; a member that came later never does.
    pub founders: BTreeMap<MemberId, Founder>,
    /// Who was last published to lead it.
    pub leadership: Option<Leadership>,
}

/// Where one of a group's first members lived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founder {
    /// Its node.
    pub node: NodeId,
    /// That node's bus address.
    pub bus: std::net::SocketAddr,
}

/// A leader and its term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leadership {
    /// The group's term.
    pub term: u64,
    /// Who leads in it.
    pub node: NodeId,
}
