//! What nodes say to each other about the cluster: one question, one answer, JSON, over one bus service.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::bus::Bus;
use crate::bus::call::{Lane, Peer};
use crate::id::{GroupId, MemberId, NodeId};
use crate::raft::state::Member;
use crate::topology::change::Change;
use crate::topology::{Node, Topology};

/// The bus service of this room.
pub const META_SERVICE: u8 = 2;

/// A cluster, from its forming on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterId(pub u64);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// How far a node's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It holds nothing and belongs nowhere.
    Empty,
    /// It has agreed to form this cluster, which does not exist yet.
    Preparing(ClusterId),
    /// It belongs to this cluster.
    Member(ClusterId),
}

/// Who a node is and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Its id.
    pub id: NodeId,
    /// Its addresses and incarnation.
    pub node: Node,
    /// See there.
    pub phase: Phase,
}

/// A cluster about to be formed. Every node gets all of it, so that whoever comes to lead the metadata group can
/// finish what the first node began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Its name.
    pub cluster: ClusterId,
    /// All its nodes.
    pub nodes: BTreeMap<NodeId, Node>,
    /// Their members in the metadata group.
    pub meta: BTreeMap<NodeId, MemberId>,
    /// Number of shards.
    pub shards: usize,
    /// Copies of each.
    pub copies: usize,
}

impl Plan {
    /// The change that makes it the topology.
    pub fn change(&self) -> Change {
        let Plan { nodes, meta, shards, copies, .. } = self.clone();
        Change::Form { nodes, meta, shards, copies }
    }

    /// The members of the metadata group.
    pub fn members(&self) -> BTreeMap<MemberId, Member> {
        let member = |(id, member): (&NodeId, &MemberId)| {
            self.nodes.get(id).map(|node| (*member, Member { node: *id, addr: node.bus }))
        };
        self.meta.iter().filter_map(member).collect()
    }
}

/// A question to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Who are you? Answered by [`Answer::Hello`].
    Hello,
    /// Take part in forming this cluster. Answered by [`Answer::Prepared`].
    Prepare(Plan),
    /// Let me in. For the metadata group's leader; answered by [`Answer::Joined`].
    Join {
        /// Who asks.
        id: NodeId,
        /// Where it is, and which incarnation.
        node: Node,
    },
    /// What have you left of your log? Answered by [`Answer::Remains`].
    Remains {
        /// The number that the asker's process drew when it started.
        begun: u64,
        /// Of the newest topology it has heard of.
        epoch: u64,
    },
    /// What others had acknowledged of these groups may be lost: another history has to begin. Said again until the doubt
    /// is over. Answered by [`Answer::Noted`].
    Lost {
        /// The number that the process of who says so drew when it started.
        begun: u64,
        /// Which groups.
        groups: Vec<GroupId>,
    },
    /// Put this change into the log. For the metadata group's leader; answered by [`Answer::Applied`].
    Propose(Change),
}

/// A node's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// This is me.
    Hello(Hello),
    /// My member of the metadata group is running.
    Prepared,
    /// You belong to the cluster.
    Joined {
        /// Its name.
        cluster: ClusterId,
        /// Your member's id in the metadata group.
        member: MemberId,
    },
    /// Answers [`Request::Remains`].
    Remains(Remains),
    /// Answers [`Request::Lost`].
    Noted,
    /// The change is committed and applied here.
    Applied,
    /// Ask the leader: this one, as far as I know.
    NotLeader(Option<Member>),
    /// Not now.
    Unavailable(String),
    /// No; asking again is of no use until something changes.
    Refused(String),
}

/// What a node knows of its logs after it has started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remains {
    /// It leads the metadata group, with a majority behind it.
    pub leads: bool,
    /// It was not sure at its start to have all that it had acknowledged.
    pub doubted: bool,
    /// Where its members' logs end now; they do not grow while it is in doubt and has not compared.
    pub ends: Vec<End>,
    /// Which copies lead first, if it has compared logs already, the asker's among them.
    pub sources: Vec<(GroupId, MemberId)>,
    /// A number that its process drew when it started.
    pub begun: u64,
    /// What it knows of the cluster: who was replaced last, a node that starts again may not have in what it knows to be
    /// committed. Only if that is newer than what the asker has heard of.
    pub topology: Option<Topology>,
}

/// Where a member's log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Which group.
    pub group: GroupId,
    /// Which member.
    pub member: MemberId,
    /// The last entry's term.
    pub term: u64,
    /// The last entry's index.
    pub index: u64,
}

/// A request or an answer as bytes.
pub fn encode(message: &impl Serialize) -> Bytes {
    // These types have string keys and finite numbers only, so it cannot fail; an empty message would be refused.
    serde_json::to_vec(message).unwrap_or_default().into()
}

/// Asks a node and waits at most `limit`. `Err`: why there is no answer, in words.
pub async fn ask(bus: &Bus, peer: Peer, request: &Request, limit: Duration) -> Result<Answer, String> {
    let answer = bus.call(peer, Lane::Control, META_SERVICE, encode(request), limit).await;
    let answer = answer.map_err(|error| error.to_string())?;
    serde_json::from_slice(&answer).map_err(|error| format!("an answer that cannot be read: {error}"))
}

/// How long a HELLO may take: less than a round of the seeds, so that a dead one does not delay the living.
const HELLO_TIMEOUT: Duration = Duration::from_millis(500);

/// Asks whoever is at `addr` who it is.
pub async fn hello(bus: &Bus, addr: SocketAddr) -> Result<Hello, String> {
    match ask(bus, Peer { node: None, addr }, &Request::Hello, HELLO_TIMEOUT).await? {
        Answer::Hello(hello) => Ok(hello),
        other => Err(format!("an answer that does not fit: {other:?}")),
    }
}
