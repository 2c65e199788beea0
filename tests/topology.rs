//! Three nodes over loopback, each a thread of its own with a machine that keeps what is written to it: a cluster
//! forms, loses a node without a word of warning, takes it back, and never becomes two.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{SeedableRng, TryRngCore};
use slotcast::bus::Bus;
use slotcast::bus::call::Peer;
use slotcast::bus::transport::Tcp;
use slotcast::id::{GroupId, NodeId};
use slotcast::meta::bootstrap::plan;
use slotcast::meta::message::{Answer, ClusterId, Hello, Phase, Request, ask, hello};
use slotcast::node::cluster::Cluster;
use slotcast::node::cluster::options::{ClusterOptions, Durable, SeedAddress};
use slotcast::node::cluster::shards::Factory;
use slotcast::raft::machine::{Cut, Local, Machine, Stager, gathering};
use slotcast::raft::proposal::{Outcome, Proposal};
use slotcast::raft::state::Timing;
use slotcast::topology::{Node as TopologyNode, Topology};
use slotcast::wal::recovery::WalOptions;
use slotcast::wal::simulated::SimulatedDisk;
use slotcast::wal::trust::{Boot, Sync};
use slotcast::wal::writer::Sizes;
use tokio::sync::oneshot;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// A condition that does not come true within this time never will.
const LIMIT: Duration = Duration::from_secs(30);

/// Bytes of log a shard keeps.
const LOG_BYTES: usize = 1 << 20;

/// All that was written to the shards' copies on one node.
type Written = Arc<Mutex<BTreeMap<GroupId, Vec<Bytes>>>>;

/// Keeps each entry.
struct Ledger {
    group: GroupId,
    written: Written,
}

impl Machine for Ledger {
    fn apply(&mut self, _index: u64, _term: u64, bytes: &Bytes, _local: Option<Local>) {
        self.written.lock().entry(self.group).or_default().push(bytes.clone());
    }

    fn snapshot(&mut self) -> Option<Cut> {
        let entries = self.written.lock().get(&self.group).cloned().unwrap_or_default();
        Some(Box::new(entries.into_iter().map(Ok)))
    }

    fn stager(&self) -> Stager {
        let (group, written) = (self.group, self.written.clone());
        gathering(move |chunks| {
            written.lock().insert(group, chunks);
            Ok(())
        })
    }
}

/// A running node.
struct Node {
    cluster: Arc<Cluster>,
    written: Written,
    kill: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Node {
    fn start(id: NodeId, bus: SocketAddr, seeds: &[SocketAddr]) -> Node {
        Node::start_on(None, id, bus, seeds)
    }

    fn start_on(durable: Option<Durable>, id: NodeId, bus: SocketAddr, seeds: &[SocketAddr]) -> Node {
        let written = Written::default();
        let ledgers = written.clone();
        let factory: Factory = Arc::new(move |group| {
            ledgers.lock().remove(&group);
            Box::new(Ledger { group, written: ledgers.clone() })
        });
        let seed = |addr: &SocketAddr| SeedAddress { host: addr.ip().to_string(), port: addr.port() };
        let options = ClusterOptions {
            me: id,
            host: bus.ip().to_string(),
            port: bus.port() - 10_000,
            listen: bus,
            announce: None,
            seeds: seeds.iter().map(seed).collect(),
            shards: 3,
            copies: 3,
            timing: Timing::default(),
            log_bytes: LOG_BYTES,
            transport: Arc::new(Tcp),
            durable,
            seed: rand::rngs::OsRng.try_next_u64().unwrap(),
        };
        let (kill, killed) = oneshot::channel();
        let (started, start) = mpsc::channel();
        let thread = thread::Builder::new().name(format!("node {}", id.short())).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                started.send(Cluster::start(options, factory).await.map(Arc::new)).unwrap();
                let _ = killed.await;
            });
            // Dropping the runtime drops every task and socket where it stands: a crash.
        });
        let thread = thread.unwrap();
        let cluster = start.recv().unwrap().unwrap_or_else(|error| panic!("no node at {bus}: {error}"));
        Node { cluster, written, kill, thread }
    }

    fn crash(self) {
        drop(self.kill);
        self.thread.join().unwrap();
    }

    fn topology(&self) -> Arc<Topology> {
        self.cluster.topology().borrow().clone()
    }

    fn serves(&self, shard: GroupId) -> bool {
        self.cluster.view().load().serves(shard)
    }

    fn leader(&self, shard: GroupId) -> Option<NodeId> {
        self.cluster.view().load().leader(shard)
    }

    fn written(&self, shard: GroupId) -> Vec<Bytes> {
        self.written.lock().get(&shard).cloned().unwrap_or_default()
    }

    fn write(&self, shard: GroupId, text: impl Into<Bytes>) -> Outcome {
        let group = self.cluster.opened().borrow()[&shard].clone();
        let (done, outcome) = mpsc::channel();
        let proposal = Proposal { bytes: text.into(), local: None };
        group.propose(proposal, Box::new(move |outcome| done.send(outcome).unwrap()));
        outcome.recv_timeout(LIMIT).unwrap()
    }

    fn waits_for(&self, text: &str) -> bool {
        self.cluster.waits().borrow().as_ref().is_some_and(|why| why.contains(text))
    }
}

#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Bus addresses with free ports; ascending, as homes follow the addresses. They lie below the ports that the
/// system gives to outgoing connections: a node that is down must find its own again.
fn addresses<const N: usize>() -> [SocketAddr; N] {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + (std::process::id() % 100) as u16 * 100;
    let address = || loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener.local_addr().unwrap();
        }
    };
    std::array::from_fn(|_| address())
}

fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 20])
}

const SHARDS: [GroupId; 3] = [GroupId(1), GroupId(2), GroupId(3)];

/// The nodes' logs are shown when a test fails.
fn start_three(seeds: &[SocketAddr; 3]) -> Vec<Node> {
    let own = Targets::new().with_target("slotcast", tracing::Level::INFO);
    let lines =
        tracing_subscriber::fmt::layer().with_test_writer().with_thread_names(true).with_target(false);
    let _ = tracing_subscriber::registry().with(own).with(lines.with_ansi(false)).try_init();
    let nodes: Vec<Node> = (1..).zip(seeds).map(|(n, addr)| Node::start(id(n), *addr, seeds)).collect();
    all_at_home(&nodes, &[id(1), id(2), id(3)]);
    nodes
}

/// Shard n is led by the n-th of `homes`, which serves it, and every node knows.
#[track_caller]
fn all_at_home(nodes: &[Node], homes: &[NodeId; 3]) {
    eventually("each shard is led by its home", || {
        nodes.iter().all(|node| (0..3).all(|n| node.leader(SHARDS[n]) == Some(homes[n])))
            && (0..3).all(|n| nodes.iter().filter(|node| node.serves(SHARDS[n])).count() == 1)
    });
}

/// The group's voters are exactly the copies of the topology.
fn settled(node: &Node, shard: GroupId) -> bool {
    let copies: BTreeSet<_> = node.topology().shards[&shard].copies.values().copied().collect();
    let group = node.cluster.opened().borrow().get(&shard).cloned();
    group.is_some_and(|group| {
        let state = group.state();
        let state = state.borrow();
        state.learners.is_empty() && state.voters.keys().copied().collect::<BTreeSet<_>>() == copies
    })
}

#[test]
fn a_cluster_forms_survives_a_crash_and_takes_the_node_back() {
    let seeds = addresses();
    let mut nodes = start_three(&seeds);
    let phases: Vec<Phase> = nodes.iter().map(|node| node.cluster.phase()).collect();
    assert!(matches!(phases[0], Phase::Member(_)) && phases.iter().all(|phase| *phase == phases[0]));
    assert!(nodes.iter().all(|node| node.topology().slots.assigned() == 16384));
    assert!(matches!(nodes[1].write(SHARDS[1], "before"), Outcome::Applied { .. }));
    eventually("leaders are published", || {
        nodes.iter().all(|node| node.topology().shards.values().all(|shard| shard.leadership.is_some()))
    });

    let before = nodes[0].topology();
    nodes.remove(1).crash();
    eventually("another node serves the shard", || nodes.iter().any(|node| node.serves(SHARDS[1])));
    let heir = nodes.iter().find(|node| node.serves(SHARDS[1])).unwrap();
    assert!(matches!(heir.write(SHARDS[1], "meanwhile"), Outcome::Applied { .. }));
    let leads = heir.cluster.view().load().me;
    eventually("all know, by their view and by the topology", || {
        nodes.iter().all(|node| {
            let published = node.topology().shards[&SHARDS[1]].leadership;
            node.leader(SHARDS[1]) == Some(leads) && published.is_some_and(|known| known.node == leads)
        })
    });

    nodes.insert(1, Node::start(id(2), seeds[1], &seeds));
    all_at_home(&nodes, &[id(1), id(2), id(3)]);
    assert_eq!(nodes[1].written(SHARDS[1]), ["before", "meanwhile"]);
    assert!(matches!(nodes[1].write(SHARDS[1], "after"), Outcome::Applied { .. }));
    eventually("old members are gone", || SHARDS.iter().all(|shard| settled(&nodes[1], *shard)));
    let after = nodes[0].topology();
    assert!(after.meta[&id(2)] >= before.next_member);
    assert!(after.shards.values().all(|shard| shard.copies[&id(2)] >= before.next_member));
    for node in &nodes {
        eventually("every copy has all", || node.written(SHARDS[1]) == ["before", "meanwhile", "after"]);
    }
    nodes.into_iter().for_each(Node::crash);
}

#[test]
fn a_wiped_node_takes_its_old_place_and_a_twin_is_refused() {
    let seeds = addresses();
    let mut nodes = start_three(&seeds);
    let cluster = nodes[0].cluster.phase();

    let [elsewhere] = addresses();
    let twin = Node::start(id(2), elsewhere, &seeds);
    eventually("the twin is told why", || twin.waits_for("each node needs a directory"));
    twin.crash();

    // The first seed of all, the only one that could form a second cluster.
    nodes.remove(0).crash();
    nodes.insert(0, Node::start(id(9), seeds[0], &seeds));
    all_at_home(&nodes, &[id(9), id(2), id(3)]);
    assert_eq!(nodes[0].cluster.phase(), cluster);
    let topology = nodes[1].topology();
    assert_eq!(topology.nodes.keys().copied().collect::<Vec<_>>(), [id(2), id(3), id(9)]);
    eventually("old members are gone", || SHARDS.iter().all(|shard| settled(&nodes[0], *shard)));
    nodes.into_iter().for_each(Node::crash);
}

#[test]
fn nothing_forms_without_the_first_seed_nor_by_it_alone() {
    let seeds: [SocketAddr; 3] = addresses();
    let names = seeds.map(|seed| seed.to_string());
    let second = Node::start(id(2), seeds[1], &seeds);
    let third = Node::start(id(3), seeds[2], &seeds);
    for node in [&second, &third] {
        eventually("it misses the first alone", || node.waits_for(&format!("missing: {} ", names[0])));
        eventually("it hears the other", || !node.waits_for(&names[1]) && !node.waits_for(&names[2]));
        assert_eq!(node.cluster.phase(), Phase::Empty);
    }
    third.crash();
    let first = Node::start(id(1), seeds[0], &seeds);
    eventually("it misses the third", || first.waits_for(&format!("missing: {} ", names[2])));
    assert_eq!(first.cluster.phase(), Phase::Empty);
    let third = Node::start(id(3), seeds[2], &seeds);
    let nodes = [first, second, third];
    all_at_home(&nodes, &[id(1), id(2), id(3)]);
    nodes.into_iter().for_each(Node::crash);
}

#[test]
fn a_node_that_stops_hands_its_shard_over_first() {
    let seeds = addresses();
    let mut nodes = start_three(&seeds);
    let leaving = nodes.remove(2);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(leaving.cluster.hand_over());
    eventually("another node serves the shard", || nodes.iter().any(|node| node.serves(SHARDS[2])));
    eventually("it knows where to send clients", || {
        !leaving.serves(SHARDS[2]) && leaving.leader(SHARDS[2]).is_some_and(|leader| leader != id(3))
    });
    runtime.block_on(leaving.cluster.stop());
    assert!(leaving.cluster.opened().borrow().values().all(|group| !group.state().borrow().am_leader));
    leaving.crash();
    nodes.into_iter().for_each(Node::crash);
}

#[test]
fn all_nodes_restart_one_after_another_and_nothing_is_lost() {
    let seeds = addresses();
    let mut nodes = start_three(&seeds);
    // More than the log keeps, so that it comes back as a snapshot.
    let text = |n: u8| Bytes::from(vec![n; LOG_BYTES / 8]);
    for n in 0..16 {
        assert!(matches!(nodes[0].write(SHARDS[0], text(n)), Outcome::Applied { .. }));
    }
    for at in 0..3 {
        nodes.remove(at).crash();
        nodes.insert(at, Node::start(id(at as u8 + 1), seeds[at], &seeds));
        all_at_home(&nodes, &[id(1), id(2), id(3)]);
        eventually("the new members vote", || {
            SHARDS.iter().all(|shard| nodes.iter().any(|node| node.serves(*shard) && settled(node, *shard)))
        });
    }
    let all: Vec<Bytes> = (0..16).map(text).collect();
    for node in &nodes {
        eventually("every copy has all", || node.written(SHARDS[0]) == all);
    }
    nodes.into_iter().for_each(Node::crash);
}

#[test]
fn seeds_that_prepared_for_a_cluster_whose_first_node_died_are_empty_again() {
    let seeds: [SocketAddr; 3] = addresses();
    let others = [Node::start(id(2), seeds[1], &seeds), Node::start(id(3), seeds[2], &seeds)];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cluster = runtime.block_on(async {
        let bus = Bus::start(id(1), seeds[0], Arc::new(Tcp)).await.unwrap();
        let node = |bus: SocketAddr| TopologyNode { host: "h".into(), port: 1, bus, incarnation: 1 };
        let mut hellos = vec![Hello { id: id(1), node: node(seeds[0]), phase: Phase::Empty }];
        for seed in &seeds[1..] {
            hellos.push(hello(&bus, *seed).await.unwrap());
        }
        let plan = plan(&hellos, 3, 3, ClusterId(1), 1);
        for hello in &hellos[1..] {
            let peer = Peer { node: Some(hello.id), addr: hello.node.bus };
            let prepared = ask(&bus, peer, &Request::Prepare(plan.clone()), LIMIT).await;
            assert_eq!(prepared, Ok(Answer::Prepared));
        }
        plan.cluster
    });
    drop(runtime);
    assert!(others.iter().all(|node| node.cluster.phase() == Phase::Preparing(cluster)));
    eventually("they give it up", || others.iter().all(|node| node.cluster.phase() == Phase::Empty));
    let [second, third] = others;
    let nodes = [Node::start(id(1), seeds[0], &seeds), second, third];
    all_at_home(&nodes, &[id(1), id(2), id(3)]);
    assert_ne!(nodes[0].cluster.phase(), Phase::Member(cluster));
    nodes.into_iter().for_each(Node::crash);
}

#[test]
fn after_a_power_loss_of_all_machines_the_longest_logs_lead_and_no_synced_write_is_lost() {
    let (buses, ids) = (addresses::<3>(), [1, 2, 3].map(|n| NodeId::from_bytes([n; 20])));
    let disks: [SimulatedDisk; 3] = Default::default();
    let start = |n: usize, boot: u128| {
        let disk = disks[n].mount("wal");
        let wal = WalOptions {
            disk,
            sync: Sync::Background,
            boot: Some(Boot(boot)),
            draw: 7,
            sizes: Sizes::default(),
        };
        let durable = Durable { wal, snapshots: disks[n].mount("snapshots") };
        Node::start_on(Some(durable), ids[n], buses[n], &buses)
    };
    let mut nodes: Vec<Node> = (0..3).map(|n| start(n, 1)).collect();
    let shards = [1, 2, 3].map(GroupId);
    let write = |nodes: &[Node], shard: GroupId, text: String| {
        let leads = |node: &&Node| node.serves(shard);
        eventually("a leader", || nodes.iter().any(|node| leads(&node)));
        let leader = nodes.iter().find(leads).unwrap();
        matches!(leader.write(shard, text), Outcome::Applied { .. })
    };
    let mut expected: BTreeMap<GroupId, Vec<Bytes>> = BTreeMap::new();
    for boot in 2..5 {
        for (shard, n) in shards.into_iter().flat_map(|shard| (0..20).map(move |n| (shard, n))) {
            let text = format!("{shard} {boot} {n}");
            eventually("to be written", || write(&nodes, shard, text.clone()));
            expected.entry(shard).or_default().push(text.into());
        }
        eventually("the disks to have it", || disks.iter().all(SimulatedDisk::is_synced));
        for (shard, n) in shards.into_iter().flat_map(|shard| (0..5).map(move |n| (shard, n))) {
            write(&nodes, shard, format!("perhaps {boot} {n}"));
        }
        let before = nodes[0].topology();
        nodes.into_iter().for_each(Node::crash);
        for (n, disk) in disks.iter().enumerate() {
            disk.lose_power(&mut StdRng::seed_from_u64(boot as u64 * 10 + n as u64));
        }
        nodes = (0..2).map(|n| start(n, boot)).collect();
        eventually("two wait for the third", || nodes.iter().all(|node| node.waits_for("all copies")));
        nodes.push(start(2, boot));
        eventually("all serve", || {
            nodes.iter().all(|node| shards.iter().all(|shard| node.leader(*shard).is_some()))
        });
        for shard in shards {
            assert!(write(&nodes, shard, format!("after {boot}")));
            eventually("all to have the same", || {
                let [a, b, c] = [0, 1, 2].map(|n| nodes[n].written(shard));
                a == b && b == c && a.last().is_some_and(|last| *last == format!("after {boot}"))
            });
            let there = nodes[0].written(shard);
            let sure: Vec<Bytes> = there.iter().filter(|text| text.starts_with(b"shard")).cloned().collect();
            assert_eq!(sure, expected[&shard], "what was on the disks is there, in its order");
            assert_eq!(
                nodes[0].topology().shards[&shard].copies,
                before.shards[&shard].copies,
                "the same members"
            );
        }
    }
    nodes.into_iter().for_each(Node::crash);
}
