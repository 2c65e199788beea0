//! Opens and closes this node's members of the shards' groups, as the topology says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::bus::call::Peer;
use crate::id::{GroupId, MemberId};
use crate::meta::entry::names;
use crate::meta::proposer::propose;
use crate::meta::standing::{Life, Standing};
use crate::node::cluster::founders::found;
use crate::node::cluster::observer::observe;
use crate::node::cluster::outlook::Outlook;
use crate::node::cluster::upkeep::{announce, keep_members};
use crate::raft::group::Group;
use crate::raft::groups::Groups;
use crate::raft::machine::Machine;
use crate::raft::state::{GroupError, GroupOptions, Member};
use crate::topology::change::Change;
use crate::topology::{Shard, Topology};

/// Looks for members that have stopped, and tries again what failed.
const GLANCE: Duration = Duration::from_millis(500);

/// Makes the machine for a copy of a shard; called anew each time this node comes to hold one.
pub type Factory = Arc<dyn Fn(GroupId) -> Box<dyn Machine> + Send + Sync>;
/// The members of shards' groups that run here.
pub type OpenShards = Arc<BTreeMap<GroupId, Group>>;

/// This node's members of shards during one life.
pub(super) struct Shards {
    pub standing: Arc<Standing>,
    pub groups: Groups,
    pub outlook: Arc<Outlook>,
    pub factory: Factory,
    pub log_bytes: usize,
    pub opened: watch::Sender<OpenShards>,
    pub open: BTreeMap<GroupId, Open>,
    pub peers: BTreeSet<SocketAddr>,
}

/// A running member and those who look after it.
pub(super) struct Open {
    group: Group,
    _tasks: JoinSet<()>,
}

impl Shards {
    /// Follows the topology until it names this life of the node no more, or cannot be followed any more. Returns
    /// why; all members are closed then.
    pub async fn follow(&mut self, life: &Life) -> String {
        let Some(meta) = life.group.clone() else { return "its member of the metadata group is gone".into() };
        let mut upkeep = JoinSet::new();
        upkeep.spawn(keep_members(meta.clone(), self.standing.clone()));
        let mut topology = self.standing.topology();
        let why = loop {
            let now = topology.borrow_and_update().clone();
            if !names(&now, &self.standing, life) {
                break "the cluster has given this node's place to another".into();
            }
            if let Some(failed) = failure(&meta) {
                break format!("its member of the metadata group has stopped: {failed}");
            }
            self.meet(&now);
            self.close_unwanted(&now).await;
            self.open_wanted(&now).await;
            self.renew_stopped().await;
            tokio::select! {
                biased;
                _ = topology.changed() => {}
                _ = sleep(GLANCE) => {}
            }
        };
        self.close_unwanted(&Topology::default()).await;
        why
    }

    /// Keeps a connection to every node of the topology, and to no other.
    fn meet(&mut self, topology: &Topology) {
        let others = topology.nodes.iter().filter(|(id, _)| **id != self.standing.site.me);
        let peers = others.map(|(id, node)| Peer { node: Some(*id), addr: node.bus }).collect::<Vec<_>>();
        let addresses: BTreeSet<SocketAddr> = peers.iter().map(|peer| peer.addr).collect();
        self.peers.difference(&addresses).for_each(|gone| self.standing.bus.forget(*gone));
        peers.into_iter().for_each(|peer| self.standing.bus.watch_peer(peer));
        self.peers = addresses;
    }

    async fn close_unwanted(&mut self, topology: &Topology) {
        let wanted = self.wanted(topology);
        let closing: Vec<GroupId> = self
            .open
            .iter()
            .filter(|(id, open)| wanted.get(id) != Some(&open.group.member()))
            .map(|(id, _)| *id)
            .collect();
        for id in closing {
            let Some(open) = self.open.remove(&id) else { continue };
            tracing::info!("{id}: this node gives up its copy (member {})", open.group.member());
            self.publish();
            self.outlook.observe(id, None);
            open.group.shutdown().await;
        }
    }

    async fn open_wanted(&mut self, topology: &Topology) {
        for (id, member) in self.wanted(topology) {
            let Some(shard) = topology.shards.get(&id).filter(|_| !self.open.contains_key(&id)) else {
                continue;
            };
            match self.start(id, member, shard).await {
                Ok(open) => {
                    self.open.insert(id, open);
                    self.publish();
                }
                // What it had on disk is not all there: it must not come back as the same member.
                Err(GroupError::Stopped(why)) => self.renew(id, member, &why).await,
                Err(why) => tracing::error!("{id}: this node's copy cannot be opened: {why}"),
            }
        }
    }

    fn wanted(&self, topology: &Topology) -> BTreeMap<GroupId, MemberId> {
        let held = topology.shards.iter().map(|(id, shard)| (*id, shard.copies.get(&self.standing.site.me)));
        held.filter_map(|(id, member)| member.map(|member| (id, *member))).collect()
    }

    async fn start(&self, group: GroupId, member: MemberId, shard: &Shard) -> Result<Open, GroupError> {
        let site = &self.standing.site;
        let me = Member { node: site.me, addr: site.bus };
        let options = GroupOptions {
            group,
            member,
            me,
            timing: site.timing,
            log_bytes: self.log_bytes,
            snapshots: site.snapshots.clone(),
        };
        let group = self.groups.start(options, (self.factory)(group)).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(found(group.clone(), shard.clone()));
        tasks.spawn(observe(group.clone(), self.outlook.clone(), site.timing));
        tasks.spawn(keep_members(group.clone(), self.standing.clone()));
        tasks.spawn(announce(group.clone(), self.standing.clone()));
        Ok(Open { group, _tasks: tasks })
    }

    fn publish(&self) {
        let open = self.open.iter().map(|(id, open)| (*id, open.group.clone())).collect();
        self.opened.send_replace(Arc::new(open));
    }

    /// A member that has stopped (its store failed, a snapshot did not fit) needs a fresh id to begin anew.
    async fn renew_stopped(&self) {
        for (group, open) in &self.open {
            let Some(failed) = failure(&open.group) else { continue };
            self.renew(*group, open.group.member(), &failed).await;
        }
    }

    async fn renew(&self, group: GroupId, member: MemberId, why: &str) {
        tracing::error!("{group}: this node's copy has stopped and is replaced: {why}");
        let change = Change::Renew { group, id: self.standing.site.me, member };
        if let Err(why) = propose(&self.standing, &change).await {
            tracing::warn!("{group}: no fresh member id for this node's copy yet: {why}");
        }
    }
}

fn failure(group: &Group) -> Option<String> {
    group.state().borrow().failed.clone()
}
