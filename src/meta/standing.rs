//! This node's life: its incarnation, how far it has come, its member of the metadata group.
//!
//! All transitions are here. A life that ends takes its incarnation and its member id along; the next one has
//! others, so nothing that was lost can be mistaken for still being there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::RngCore;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::bus::Bus;
use crate::id::{GroupId, MemberId, NodeId};
use crate::meta::machine::{MetaMachine, Publisher};
use crate::meta::memory::Memory;
use crate::meta::message::{ClusterId, End, Hello, Phase, Plan, Remains};
use crate::raft::group::Group;
use crate::raft::groups::Groups;
use crate::raft::state::{GroupOptions, Member, Timing};
use crate::topology::{Node, Topology};
use crate::wal::disk::Disk;

/// Bytes of log that the metadata group keeps for members that lag, at most; a topology of many nodes is some kilobytes.
pub const LOG_BYTES: usize = 4 << 20;

/// A node that cannot go on says so this often.
const REMIND: Duration = Duration::from_secs(10);

/// What does not change from life to life.
#[derive(Clone, Debug)]
pub struct Site {
    /// This node.
    pub me: NodeId,
    /// Host that clients reach it at.
    pub host: String,
    /// Port that clients reach it at.
    pub port: u16,
    /// Where other nodes reach it.
    pub bus: SocketAddr,
    /// How fast groups fail over.
    pub timing: Timing,
    /// Bytes of log that the metadata group keeps for members that lag.
    pub log_bytes: usize,
    /// Where members keep their snapshots; `None`: nowhere.
    pub snapshots: Option<Arc<dyn Disk>>,
}

impl Site {
    /// This node in one of its lives.
    pub fn node(&self, incarnation: u64) -> Node {
        Node { host: self.host.clone(), port: self.port, bus: self.bus, incarnation }
    }
}

/// The current life of this node. Shared between those who ask and those who answer.
pub struct Standing {
    /// See there.
    pub site: Site,
    /// To the other nodes.
    pub bus: Bus,
    groups: Groups,
    publisher: Publisher,
    rng: Mutex<StdRng>,
    life: watch::Sender<Life>,
    /// Held by who ends a life.
    ending: tokio::sync::Mutex<()>,
    waits: watch::Sender<Option<String>>,
    /// Drawn when the process started.
    begun: u64,
    reunited: Mutex<Option<Reunited>>,
    /// Who has told of the loss of which group, by what its process had drawn; of the topology's nodes only.
    noted: Mutex<BTreeMap<(NodeId, GroupId), u64>>,
}

/// What was agreed on when logs were compared.
struct Reunited {
    /// Whose logs were, by what their processes had drawn.
    with: BTreeMap<NodeId, u64>,
    sources: Vec<(GroupId, MemberId)>,
}

/// See the module.
#[derive(Clone)]
pub struct Life {
    /// Never used before.
    pub incarnation: u64,
    /// How far it has come.
    pub phase: Phase,
    /// What the node agreed to, if it took part in forming the cluster.
    pub plan: Option<Arc<Plan>>,
    /// Its member of the metadata group, as soon as that runs.
    pub group: Option<Group>,
    /// The same member's id, if an earlier process began this life.
    pub resumed: Option<MemberId>,
}

impl Life {
    fn new(rng: &Mutex<StdRng>) -> Life {
        let incarnation = rng.lock().next_u64();
        Life { incarnation, phase: Phase::Empty, plan: None, group: None, resumed: None }
    }

    fn remembered(memory: Memory) -> Life {
        let (incarnation, phase) = (memory.node.incarnation, Phase::Member(memory.cluster));
        Life { incarnation, phase, plan: None, group: None, resumed: Some(memory.member) }
    }
}

impl Standing {
    /// The life that is remembered, or the first one, empty.
    pub fn new(
        site: Site,
        bus: Bus,
        groups: Groups,
        publisher: Publisher,
        rng: StdRng,
        memory: Option<Memory>,
    ) -> Standing {
        let rng = Mutex::new(rng);
        let begun = rng.lock().next_u64();
        let life = watch::Sender::new(memory.map_or_else(|| Life::new(&rng), Life::remembered));
        let (ending, waits) = (Default::default(), watch::Sender::new(None));
        let (reunited, noted) = (Mutex::default(), Mutex::default());
        Standing { site, bus, groups, publisher, rng, life, ending, waits, begun, reunited, noted }
    }

    /// The current life, and each change of it.
    pub fn life(&self) -> watch::Receiver<Life> {
        self.life.subscribe()
    }

    /// What the node waits for before it belongs to a cluster, in words for the operator.
    pub fn waits(&self) -> watch::Receiver<Option<String>> {
        self.waits.subscribe()
    }

    /// Says so.
    pub fn wait_for(&self, why: Option<&str>) {
        self.waits.send_if_modified(|waits| {
            let changed = waits.as_deref() != why;
            *waits = why.map(str::to_owned);
            changed
        });
    }

    /// The metadata group's state as this node has it.
    pub fn topology(&self) -> watch::Receiver<Arc<Topology>> {
        self.publisher.subscribe()
    }

    /// This node's member of the metadata group.
    pub fn group(&self) -> Option<Group> {
        self.life.borrow().group.clone()
    }

    /// A number out of this node's lots.
    pub fn draw(&self) -> u64 {
        self.rng.lock().next_u64()
    }

    /// Who this node says it is.
    pub fn hello(&self) -> Hello {
        let life = self.life.borrow();
        Hello { id: self.site.me, node: self.site.node(life.incarnation), phase: life.phase }
    }

    /// The metadata group's leader, as far as this node knows.
    pub fn leader(&self) -> Option<Member> {
        let state = self.group()?.state();
        let state = state.borrow();
        let (leader, _) = state.leader?;
        state.voters.get(&leader).cloned()
    }

    /// The metadata group's member here, if it leads and knows all that was ever committed.
    pub fn leading_group(&self) -> Option<Group> {
        let group = self.group()?;
        let leads = {
            let state = group.state();
            let state = state.borrow();
            state.am_leader && state.ready
        };
        leads.then_some(group)
    }

    /// A number that no other start of a node draws.
    pub fn begun(&self) -> u64 {
        self.begun
    }

    /// Logs were compared: these nodes', with this result.
    pub fn reunite(&self, with: BTreeMap<NodeId, u64>, sources: &BTreeMap<GroupId, MemberId>) {
        let sources = sources.iter().map(|(group, member)| (*group, *member)).collect();
        *self.reunited.lock() = Some(Reunited { with, sources });
    }

    /// What others had acknowledged of these groups may be lost, though nothing was here; so says, again and again, a node
    /// that started with the number `begun`. `false`: not all of the groups have opened here.
    pub fn note_loss(&self, from: NodeId, begun: u64, groups: &[GroupId]) -> bool {
        let open = groups.iter().map(|group| self.groups.group(*group)).collect::<Option<Vec<Group>>>();
        let Some(open) = open else { return false };
        let mut noted = self.noted.lock();
        let topology = self.topology().borrow().clone();
        noted.retain(|(node, _), _| topology.nodes.contains_key(node));
        for group in open {
            if noted.insert((from, group.id()), begun) != Some(begun) {
                group.note_loss();
            }
        }
        true
    }

    /// What is left of this node's logs, for a node that started with the number `begun` and knows a topology of `epoch`.
    pub fn remains(&self, asker: NodeId, begun: u64, epoch: u64) -> Remains {
        let leads = self.leading_group().is_some_and(|group| group.lease().is_valid(Instant::now()));
        let end = |((group, member), (term, index))| End { group, member, term, index };
        let reunited = self.reunited.lock();
        let counted_in = reunited.as_ref().filter(|it| it.with.get(&asker) == Some(&begun));
        // To who was not compared with, because it has lost its own end since, this node is one that was never in doubt.
        let is_over = reunited.is_some() && counted_in.is_none() && !self.groups.any_doubt();
        let is_sure = !self.groups.is_doubted() || is_over;
        let sources = counted_in.map(|it| it.sources.clone()).unwrap_or_default();
        let ends = self.groups.ends_now().into_iter().map(end).collect();
        let topology = self.topology().borrow().clone();
        let topology = (topology.epoch > epoch).then(|| Topology::clone(&topology));
        Remains { leads, doubted: !is_sure, ends, sources, begun: self.begun, topology }
    }

    /// Takes part in forming a cluster: Empty to Preparing, with a running member that waits for the others.
    /// `Err`: why not.
    pub async fn prepare(&self, plan: Plan) -> Result<(), String> {
        let Some(member) = plan.meta.get(&self.site.me).copied() else {
            return Err("the plan is without this node".into());
        };
        let planned = plan.nodes.get(&self.site.me).map(|node| node.incarnation);
        let cluster = plan.cluster;
        self.begin(planned, Phase::Preparing(cluster), Some(Arc::new(plan)))?;
        self.start(member).await
    }

    /// Was let into a cluster: Empty to Member, with a running member that the leader will bring up to date.
    /// `asked_as`: the incarnation it was let in with.
    pub async fn join(&self, asked_as: u64, cluster: ClusterId, member: MemberId) -> Result<(), String> {
        self.begin(Some(asked_as), Phase::Member(cluster), None)?;
        self.start(member).await
    }

    /// Goes on with a life that an earlier process began; nothing, if this is none.
    pub async fn resume(&self) -> Result<(), String> {
        let resumed = self.life.borrow().resumed.filter(|_| self.group().is_none());
        match resumed {
            Some(member) => self.start(member).await,
            None => Ok(()),
        }
    }

    /// Notes this life for the next process; waits until that is on the disk.
    pub async fn remember(&self, cluster: ClusterId) -> Result<(), String> {
        let (Some(wal), Some(group)) = (self.groups.wal(), self.group()) else { return Ok(()) };
        let memory = Memory { cluster, member: group.member(), node: self.hello().node };
        wal.note(&memory.encode()).await.map_err(|error| error.to_string())
    }

    fn begin(&self, incarnation: Option<u64>, phase: Phase, plan: Option<Arc<Plan>>) -> Result<(), String> {
        let mut refused = None;
        self.life.send_if_modified(|life| {
            if life.phase != Phase::Empty {
                refused = Some(format!("this node is not empty but {:?}", life.phase));
            } else if incarnation != Some(life.incarnation) {
                refused = Some("meant for an earlier life of this node".into());
            } else {
                *life = Life { phase, plan, ..life.clone() };
            }
            refused.is_none()
        });
        refused.map_or(Ok(()), Err)
    }

    async fn start(&self, member: MemberId) -> Result<(), String> {
        let incarnation = self.life.borrow().incarnation;
        let me = Member { node: self.site.me, addr: self.site.bus };
        let timing = self.site.timing;
        let options = GroupOptions {
            group: GroupId::META,
            member,
            me,
            timing,
            log_bytes: self.site.log_bytes,
            snapshots: self.site.snapshots.clone(),
        };
        let machine = MetaMachine::new(self.publisher.clone());
        match self.groups.start(options, Box::new(machine)).await {
            Ok(group) => {
                self.life.send_modify(|life| life.group = Some(group));
                Ok(())
            }
            Err(error) => {
                self.give_up(incarnation).await;
                Err(format!("its member of the metadata group cannot start: {error}"))
            }
        }
    }

    /// The cluster exists, and this node belongs to it: Preparing to Member.
    pub fn settle(&self) {
        self.life.send_if_modified(|life| match life.phase {
            Phase::Preparing(cluster) => {
                (life.phase, life.plan) = (Phase::Member(cluster), None);
                true
            }
            _ => false,
        });
    }

    /// Waits until nothing is left of this life on the disk: its members must never come back under their ids.
    pub async fn forget(&self) {
        let Some(wal) = self.groups.wal() else { return };
        while let Err(error) = wal.clear().await {
            let why = format!(
                "the disk below dir has failed this node ({error}), and it stays out of the cluster: see to the disk, \
                 then start the node again"
            );
            tracing::error!("{why}");
            self.wait_for(Some(&why));
            sleep(REMIND).await;
        }
    }

    /// Whether the member of the metadata group of this life runs; `None`: that life is over.
    pub fn runs(&self, incarnation: u64) -> Option<bool> {
        let life = self.life.borrow();
        (life.incarnation == incarnation).then_some(life.group.is_some())
    }

    /// Ends this life and begins the next, empty one; nothing, if it is over already (several may find a reason at once).
    pub async fn give_up(&self, incarnation: u64) {
        let _turn = self.ending.lock().await;
        if self.life.borrow().incarnation != incarnation {
            return;
        }
        if let Some(group) = self.group() {
            group.shutdown().await;
        }
        self.publisher.send_replace(Arc::default());
        self.forget().await;
        self.groups.end_doubt();
        self.life.send_replace(Life::new(&self.rng));
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::bus::memory::Network;

    #[tokio::test(start_paused = true)]
    async fn a_loss_is_noted_once_for_each_process_that_tells_of_it() {
        let (me, addr) = (NodeId::from_bytes([1; 20]), ([10, 0, 0, 1], 17001).into());
        let network = Network::new(1, (Duration::ZERO, Duration::from_millis(1)));
        let bus = Bus::start(me, addr, Arc::new(network.host(addr))).await.unwrap();
        let (groups, (publisher, _)) = (Groups::new(bus.clone()), watch::channel(Arc::default()));
        let (timing, host) = (Timing::default(), "h".to_owned());
        let site = Site { me, host, port: 7001, bus: addr, timing, log_bytes: 1 << 20, snapshots: None };
        let standing = Standing::new(site, bus, groups, publisher, StdRng::seed_from_u64(1), None);
        let tells = |begun| standing.note_loss(me, begun, &[GroupId::META]);
        assert!(!tells(7), "there is nobody yet who could begin another history");
        standing.start(1).await.unwrap();
        let node = standing.site.node(1);
        standing.publisher.send_modify(|it| Arc::make_mut(it).nodes = BTreeMap::from([(me, node)]));
        let group = standing.group().unwrap();
        assert!(tells(7) && group.has_lost());
        assert!(tells(7) && !group.has_lost(), "it says so again, in case this process has died meanwhile");
        assert!(tells(8) && group.has_lost());
    }
}
