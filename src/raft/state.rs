//! What a member is told and what it tells: options, membership, progress, errors.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::id::{GroupId, MemberId, NodeId};
use crate::wal::disk::Disk;

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
    /// Where the node keeps its snapshots; `None`: nothing is kept on disk.
    pub snapshots: Option<Arc<dyn Disk>>,
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
    /// Whom this member has given its vote in that term, until it knows who leads.
    pub voted_for: Option<MemberId>,
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
    /// Bytes of log kept here.
    pub log_bytes: usize,
    /// Whether a change of voters has begun and not ended; `voters` are then those before and after it.
    pub joint: bool,
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
