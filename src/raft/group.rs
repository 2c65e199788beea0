//! A group's handle on this node, and the directory of all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::bus::Bus;
use crate::id::{GroupId, MemberId, NodeId};
use crate::raft::lease::Lease;
use crate::raft::machine::Machine;
use crate::raft::proposal::{Done, Proposal};

/// Where a member lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its node.
    pub node: NodeId,
    /// That node's bus address.
    pub addr: SocketAddr,
}

/// How fast a group notices that its leader is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// A follower stands for election after the leader's lease (`election_max`) and a random time between these.
    pub election_min: Duration,
    /// See `election_min`; also the leader's lease.
    pub election_max: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(150),
            election_max: Duration::from_millis(300),
        }
    }
}

/// What a member is started with.
#[derive(Clone, Debug)]
pub struct GroupOptions {
    /// Which group.
    pub group: GroupId,
    /// This member's id: fresh, never used before in this group.
    pub member: MemberId,
    /// This node.
    pub me: Member,
    /// How fast it fails over.
    pub timing: Timing,
    /// Bytes of log kept in memory for followers that lag; one that lags more gets a snapshot.
    pub log_bytes: usize,
}

/// A follower as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follower {
    /// The last log index known to be the same on both.
    pub matched: Option<u64>,
    /// When it last answered.
    pub heard: Option<Instant>,
}

/// A group as this member sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupState {
    /// The Raft term.
    pub term: u64,
    /// Who leads, if known.
    pub leader: Option<(MemberId, NodeId)>,
    /// Whether that is this member.
    pub am_leader: bool,
    /// Leader, and an entry of its own term is applied: everything earlier leaders acknowledged is in the machine.
    pub ready: bool,
    /// The last applied log index.
    pub last_applied: u64,
    /// The last log index here.
    pub last_log: u64,
    /// Voting members.
    pub voters: BTreeMap<MemberId, Member>,
    /// Members that only receive the log.
    pub learners: BTreeMap<MemberId, Member>,
    /// On a leader: its followers and learners. Empty elsewhere.
    pub followers: BTreeMap<MemberId, Follower>,
    /// Why this member has stopped for good; it must be replaced by a new one.
    pub failed: Option<String>,
}

/// Why a group operation failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupError {
    /// Only the leader can do it; ask there.
    NotLeader {
        /// Who leads, if known.
        leader: Option<MemberId>,
    },
    /// Not possible now (another change is under way, no quorum answers in time): try again later.
    Unavailable(String),
    /// Not possible at all.
    Refused(String),
    /// The member has stopped.
    Stopped(String),
}

impl fmt::Display for GroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GroupError::NotLeader { leader: Some(leader) } => {
                write!(f, "member {leader} leads, not this one")
            }
            GroupError::NotLeader { leader: None } => {
                f.write_str("this member does not lead; who does is unknown")
            }
            GroupError::Unavailable(why) => write!(f, "not possible now: {why}"),
            GroupError::Refused(why) => write!(f, "refused: {why}"),
            GroupError::Stopped(why) => write!(f, "the member has stopped: {why}"),
        }
    }
}

impl std::error::Error for GroupError {}

/// All groups with a member on this node; delivers what the bus brings for them. A cheap handle.
#[derive(Clone)]
pub struct Groups {}

impl Groups {
    /// An empty directory that serves Raft's calls on `bus`.
    pub fn new(bus: Bus) -> Groups {
        let _ = bus;
        todo!()
    }

    /// Starts a member. Its tasks run on the calling runtime; a member that is new to its group does nothing
    /// until it is named in [`Group::initialize`] or added by the leader.
    pub async fn start(&self, options: GroupOptions, machine: Box<dyn Machine>) -> Result<Group, GroupError> {
        let _ = (options, machine);
        todo!()
    }

    /// This node's member of a group.
    pub fn group(&self, group: GroupId) -> Option<Group> {
        let _ = group;
        todo!()
    }
}

/// A member of a group on this node. A cheap handle, usable from every thread.
#[derive(Clone)]
pub struct Group {}

impl Group {
    /// Which group.
    pub fn id(&self) -> GroupId {
        todo!()
    }

    /// This member's id.
    pub fn member(&self) -> MemberId {
        todo!()
    }

    /// Forms the group out of `members` (this one among them), all new. To be called on one member, once in the
    /// group's life; on a second call: `Refused`.
    pub async fn initialize(&self, members: BTreeMap<MemberId, Member>) -> Result<(), GroupError> {
        let _ = members;
        todo!()
    }

    /// Proposes an entry and returns at once; `done` gets the outcome. Bound what you have in flight yourself:
    /// nothing here waits.
    pub fn propose(&self, proposal: Proposal, done: Done) {
        let _ = (proposal, done);
        todo!()
    }

    /// The group as this member sees it, now and after each change (progress figures lag up to 20 ms).
    pub fn state(&self) -> watch::Receiver<GroupState> {
        todo!()
    }

    /// The lease that tells whether a read was current.
    pub fn lease(&self) -> Lease {
        todo!()
    }

    /// Waits until the machine holds everything acknowledged before this call (ReadIndex, Raft thesis §6.4).
    pub async fn read_barrier(&self) -> Result<(), GroupError> {
        todo!()
    }

    /// Adds a member that receives the log and doesn't vote; returns when the addition is committed.
    pub async fn add_learner(&self, id: MemberId, member: Member) -> Result<(), GroupError> {
        let _ = (id, member);
        todo!()
    }

    /// Makes exactly these members (voters or learners now) the voters; voters left out leave the group.
    pub async fn change_voters(&self, voters: BTreeSet<MemberId>) -> Result<(), GroupError> {
        let _ = voters;
        todo!()
    }

    /// Removes a learner.
    pub async fn remove_learner(&self, id: MemberId) -> Result<(), GroupError> {
        let _ = id;
        todo!()
    }

    /// Hands the leadership to another voter: ends the lease, then asks it to stand for election at once. Returns
    /// when somebody else leads.
    pub async fn transfer_leader(&self, to: MemberId) -> Result<(), GroupError> {
        let _ = to;
        todo!()
    }

    /// Stops this member: ends the lease, leaves the directory, ends all its tasks.
    pub async fn shutdown(&self) {
        todo!()
    }
}
