//! Three nodes with a member each, over loopback sockets or a simulated network.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use slotcast::bus::Bus;
use slotcast::bus::memory::Network;
use slotcast::bus::transport::{Tcp, Transport};
use slotcast::id::{GroupId, MemberId, NodeId};
use slotcast::raft::group::Group;
use slotcast::raft::groups::Groups;
use slotcast::raft::machine::{Cut, Machine, Stager, gathering};
use slotcast::raft::proposal::{Outcome, Proposal};
use slotcast::raft::state::{GroupOptions, GroupState, Member, Timing};
use slotcast::wal::disk::{Directory, Disk};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

pub const PATIENCE: Duration = Duration::from_secs(20);
pub const GROUP: GroupId = GroupId(1);

/// Remembers every applied payload, in order.
#[derive(Clone, Default)]
pub struct Journal(pub Arc<Mutex<Vec<Bytes>>>, Arc<AtomicUsize>);

impl Journal {
    pub fn installed(&self) -> usize {
        self.1.load(Ordering::Relaxed)
    }
}

impl Machine for Journal {
    fn apply(&mut self, _index: u64, _term: u64, bytes: &Bytes, local: Option<Arc<dyn Any + Send + Sync>>) {
        if let Some(seen) = local.and_then(|local| local.downcast::<Mutex<u32>>().ok()) {
            *seen.lock() += 1;
        }
        self.0.lock().push(Bytes::copy_from_slice(bytes));
    }

    fn snapshot(&mut self) -> Option<Cut> {
        Some(Box::new(self.0.lock().clone().into_iter().map(Ok)))
    }

    fn stager(&self) -> Stager {
        let journal = self.clone();
        gathering(move |chunks| {
            *journal.0.lock() = chunks;
            journal.1.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
    }
}

/// Where node `n` lives in a simulated network.
pub fn host(n: u8) -> SocketAddr {
    ([10, 0, 0, n], 17000).into()
}

/// Where the node of one of the first members lives.
pub fn host_of(member: MemberId) -> SocketAddr {
    host(member as u8 - 10)
}

pub fn network(seed: u64) -> Network {
    Network::new(seed, (Duration::from_micros(200), Duration::from_millis(2)))
}

pub struct Node {
    pub id: NodeId,
    pub bus: Bus,
    pub groups: Groups,
}

impl Node {
    pub async fn start(n: u8, network: Option<&Network>) -> Node {
        let id = NodeId::from_bytes([n; 20]);
        let (addr, transport): (SocketAddr, Arc<dyn Transport>) = match network {
            Some(network) => (host(n), Arc::new(network.host(host(n)))),
            None => (([127, 0, 0, 1], 0).into(), Arc::new(Tcp)),
        };
        let bus = Bus::start(id, addr, transport).await.unwrap();
        let groups = Groups::new(bus.clone());
        Node { id, bus, groups }
    }

    pub fn as_member(&self) -> Member {
        Member { node: self.id, addr: self.bus.local_addr() }
    }

    pub async fn join(&self, member: MemberId, log_bytes: usize) -> (Group, Journal) {
        self.join_in(None, member, log_bytes).await
    }

    /// Starts a member that keeps its snapshots below `dir`.
    pub async fn join_in(&self, dir: Option<&Path>, member: MemberId, log_bytes: usize) -> (Group, Journal) {
        let journal = Journal::default();
        let timing = Timing::default();
        let options = GroupOptions {
            group: GROUP,
            member,
            me: self.as_member(),
            timing,
            log_bytes,
            snapshots: snapshots(dir),
        };
        (self.groups.start(options, Box::new(journal.clone())).await.unwrap(), journal)
    }
}

pub struct Cluster {
    pub nodes: Vec<Node>,
    pub members: Vec<(Group, Journal)>,
}

impl Cluster {
    /// Nodes 1 to 3 with members 11 to 13.
    pub async fn start(log_bytes: usize) -> Cluster {
        Cluster::start_on(None, log_bytes).await
    }

    pub async fn start_on(network: Option<&Network>, log_bytes: usize) -> Cluster {
        let (mut nodes, mut members) = (Vec::new(), Vec::new());
        for n in 1..=3 {
            nodes.push(Node::start(n, network).await);
            members.push(nodes[n as usize - 1].join(10 + n as u64, log_bytes).await);
        }
        let all = (0..3).map(|i| (11 + i as u64, nodes[i].as_member())).collect::<BTreeMap<_, _>>();
        members[0].0.initialize(all).await.unwrap();
        Cluster { nodes, members }
    }

    pub fn group(&self, member: MemberId) -> &Group {
        self.members.iter().map(|(group, _)| group).find(|group| group.member() == member).unwrap()
    }

    /// The leader that all of `among` agree on and that may read.
    pub async fn leader(&self, among: &[MemberId]) -> Group {
        eventually("a leader", || {
            let leader = self.group(among[0]).state().borrow().leader?.0;
            let agreed =
                among.iter().all(|id| self.group(*id).state().borrow().leader.is_some_and(|l| l.0 == leader));
            let group = among.contains(&leader).then(|| self.group(leader))?;
            (agreed && group.lease().is_valid(Instant::now())).then(|| group.clone())
        })
        .await
    }

    pub fn journal(&self, member: MemberId) -> Vec<Bytes> {
        let (_, journal) = self.members.iter().find(|(group, _)| group.member() == member).unwrap();
        journal.0.lock().clone()
    }
}

pub async fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} in vain for {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

pub async fn becomes(group: &Group, what: &str, condition: impl FnMut(&GroupState) -> bool) {
    let mut state = group.state();
    let waited = timeout(PATIENCE, state.wait_for(condition)).await;
    assert!(
        waited.is_ok_and(|found| found.is_ok()),
        "in vain: {what}; the state is {:?}",
        *group.state().borrow()
    );
}

pub fn propose(group: &Group, bytes: Bytes) -> oneshot::Receiver<Outcome> {
    let (tell, outcome) = oneshot::channel();
    let done = Box::new(move |outcome| drop(tell.send(outcome)));
    group.propose(Proposal { bytes, local: None }, done);
    outcome
}

pub async fn write(group: &Group, text: impl Into<Bytes>) -> Outcome {
    timeout(PATIENCE, propose(group, text.into()))
        .await
        .expect("an outcome in time")
        .expect("told exactly once")
}

/// Writes with 64 proposals in flight; all must be applied.
pub async fn write_all(group: &Group, payloads: impl Iterator<Item = Bytes>) {
    let mut outcomes = VecDeque::new();
    for bytes in payloads {
        if outcomes.len() == 64 {
            let oldest: oneshot::Receiver<Outcome> = outcomes.pop_front().unwrap();
            assert!(matches!(timeout(PATIENCE, oldest).await.unwrap().unwrap(), Outcome::Applied { .. }));
        }
        outcomes.push_back(propose(group, bytes));
    }
    for outcome in outcomes {
        assert!(matches!(timeout(PATIENCE, outcome).await.unwrap().unwrap(), Outcome::Applied { .. }));
    }
}

pub fn numbered(n: usize, padding: usize) -> Bytes {
    Bytes::from(format!("{n:08}{}", "x".repeat(padding)))
}

/// Runs a future on a runtime of its own whose clock is virtual.
pub fn in_virtual_time<T>(future: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(future)
}

/// Where members keep their snapshots below a node's directory.
pub fn snapshots(dir: Option<&Path>) -> Option<Arc<dyn Disk>> {
    dir.map(|dir| Arc::new(Directory::open(&dir.join("snapshots")).unwrap()) as Arc<dyn Disk>)
}

/// A directory of a test's own, gone with it.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("slotcast-raft-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
