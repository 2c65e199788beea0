//! The simulated world: three nodes, the network between them, and virtual time, a millisecond a step.
//!
//! All of it runs on one thread. In each step the network delivers, then every node that is neither down nor paused
//! lives one millisecond on its own runtime and clock, then the clients do.

use std::time::Duration;

use slotcast::id::GroupId;
use slotcast::wal::simulated::{Crash, Failure};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::client::Doors;
use crate::invariants::leaders::Leaders;
use crate::invariants::replicas::Replicas;
use crate::invariants::staleness::Staleness;
use crate::invariants::votes::Votes;
use crate::machines::{Durability, Machines};
use crate::network::Network;
use crate::node::{NODES, Node, Setup};
use crate::server::Fault;
use crate::trace::Trace;
use crate::workload::{object_keys, slots};

/// See the module's documentation.
pub struct World {
    pub now: u64,
    pub trace: Trace,
    pub doors: Doors,
    pub replicas: Replicas,
    pub staleness: Staleness,
    pub leaders: Leaders,
    pub network: Network,
    votes: Votes,
    seed: u64,
    fault: Option<Fault>,
    machines: Machines,
    nodes: Vec<Option<Node>>,
    paused_until: [u64; NODES],
    /// Nodes that stop in order.
    stopping: [Option<JoinHandle<()>>; NODES],
    /// Whether the machine dies with the process that its disk makes crash.
    loses_power: [bool; NODES],
    lives: u64,
    clients: Runtime,
    start: Instant,
}

impl World {
    /// Three nodes that have just been started.
    pub fn new(seed: u64, fault: Option<Fault>, trace: Trace) -> World {
        let clients = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let start = clients.block_on(async { Instant::now() });
        let machines = Machines::new(seed);
        let disks = (0..NODES).map(|node| machines.disk(node).clone()).collect();
        let mut world = World {
            now: 0,
            replicas: Replicas::new(trace.clone(), slots()),
            staleness: Staleness::new(trace.clone(), object_keys()),
            trace,
            doors: Doors::default(),
            leaders: Leaders::default(),
            votes: Votes::default(),
            seed,
            fault,
            network: Network::new(seed, disks),
            machines,
            nodes: (0..NODES).map(|_| None).collect(),
            paused_until: [0; NODES],
            stopping: Default::default(),
            loses_power: [false; NODES],
            lives: 0,
            clients,
            start,
        };
        (0..NODES).for_each(|node| assert!(world.start(node)));
        world
    }

    /// The nodes that are up.
    pub fn nodes(&self) -> &[Option<Node>] {
        &self.nodes
    }

    /// One millisecond.
    pub fn step(&mut self) {
        self.now += 1;
        self.trace.advance(self.now);
        self.network.advance(self.now);
        self.machines.advance(self.now);
        for number in 0..NODES {
            let awake = self.paused_until[number] <= self.now;
            if let Some(node) = self.nodes[number].as_mut().filter(|_| awake) {
                node.advance(self.now);
                self.after(number);
            }
        }
        let until = self.start + Duration::from_millis(self.now);
        self.clients.block_on(async { sleep_until(until).await });
    }

    /// What a node's millisecond has led to.
    fn after(&mut self, number: usize) {
        if self.machines.disk(number).has_crashed() {
            self.note(number, "dies of what it did to its disk");
            return match self.loses_power[number] {
                true => self.cut_power(number),
                false => self.kill(number, false),
            };
        }
        if let Some(node) = &self.nodes[number] {
            self.leaders.look(number, node, &self.trace);
            self.votes.look(number, node, &self.trace);
        }
        if self.stopping[number].as_ref().is_some_and(JoinHandle::is_finished) {
            self.note(number, "has stopped in order");
            self.kill(number, false);
        }
    }

    /// Steps until `holds`, at most `limit` ms; whether it came to that.
    pub fn step_until(&mut self, limit: u64, mut holds: impl FnMut(&World) -> bool) -> bool {
        let deadline = self.now + limit;
        while self.now < deadline {
            if holds(self) {
                return true;
            }
            self.step();
        }
        false
    }

    /// Starts what a client does.
    pub fn spawn<T: Send + 'static>(
        &self,
        client: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.clients.spawn(client)
    }

    /// Steps until a client is done, at most `limit` ms.
    pub fn wait_for<T>(&mut self, task: JoinHandle<T>, limit: u64) -> Option<T> {
        let done = self.step_until(limit, |_| task.is_finished());
        done.then(|| self.clients.block_on(task).unwrap())
    }

    /// Starts a node that is down: the first time or again. It may be that its disk does not let it.
    pub fn start(&mut self, node: usize) -> bool {
        self.note(node, "starts");
        self.lives += 1;
        self.network.revive(node);
        let setup = Setup {
            node,
            life: self.lives,
            seed: self.seed,
            now: self.now,
            network: &self.network,
            replicas: &self.replicas,
            staleness: &self.staleness,
            machines: &self.machines,
            fault: self.fault,
        };
        match Node::start(&setup) {
            Ok(started) => {
                self.doors.lock()[node] = Some(started.door());
                self.nodes[node] = Some(started);
                self.paused_until[node] = 0;
                true
            }
            Err(error) => {
                self.note(node, &format!("cannot start: {error}"));
                self.network.die(node, false);
                self.machines.process_died(node);
                false
            }
        }
    }

    /// Kills a node; `silent`: with its machine, so that nobody resets its connections.
    pub fn kill(&mut self, node: usize, silent: bool) {
        self.note(node, if silent { "is killed, silently" } else { "is killed" });
        self.network.die(node, silent);
        self.doors.lock()[node] = None;
        // First: what a task does when it is dropped, a process that dies does not do.
        self.machines.process_died(node);
        self.nodes[node] = None;
        self.stopping[node] = None;
    }

    /// Kills a node with its machine: what it has not synced may be gone.
    pub fn cut_power(&mut self, node: usize) {
        self.kill(node, true);
        self.note(node, "has lost power");
        self.machines.lost_power(node);
    }

    /// Kills a node and loses its directory.
    pub fn wipe(&mut self, node: usize) {
        self.kill(node, false);
        self.note(node, "has lost its directory");
        self.machines.wipe(node);
    }

    /// Kills a node and damages one of its files.
    pub fn damage(&mut self, node: usize) {
        self.kill(node, false);
        let name = self.machines.damage(node);
        self.note(node, &format!("has a wrong bit in {name:?}"));
    }

    /// Lets a node stop in order, and then be down.
    pub fn stop(&mut self, node: usize) {
        self.note(node, "is asked to stop");
        self.stopping[node] = self.nodes[node].as_ref().map(Node::stop);
    }

    /// Lets a node die by what it does to its disk, with its machine or without.
    pub fn crash(&mut self, node: usize, crash: Crash, with_machine: bool) {
        self.note(
            node,
            &format!("will die: {crash:?}{}", if with_machine { ", with its machine" } else { "" }),
        );
        self.loses_power[node] = with_machine;
        self.machines.disk(node).crash(crash);
    }

    /// Lets something fail that a node does to its disk, after so many other things.
    pub fn fail_disk(&mut self, node: usize, after: u64, half: bool) {
        self.note(node, &format!("has a disk that fails after {after} operations"));
        let at = self.machines.disk(node).operations() + after;
        let failure = Failure { at, for_ever: false, kind: std::io::ErrorKind::Other, half };
        self.machines.disk(node).fail(Some(failure));
    }

    /// Leaves so many bytes of room on a node's disk; `None`: as many as it wants.
    pub fn fill_disk(&mut self, node: usize, room: Option<u64>) {
        self.note(node, &format!("has {room:?} bytes of room"));
        let disk = self.machines.disk(node);
        disk.limit(room.map(|room| disk.used() + room));
    }

    /// Sets a node's clock wrong by so much (ms).
    pub fn set_clock(&mut self, node: usize, ahead: i64) {
        self.note(node, &format!("has a clock that is ahead by {ahead} ms"));
        self.machines.set_clock(node, ahead);
    }

    /// Makes a node the home of a shard, as CLUSTER FAILOVER does.
    pub fn become_home(&mut self, node: usize, shard: GroupId) {
        self.note(node, &format!("is asked to lead {shard}"));
        if let Some(node) = &self.nodes[node] {
            node.become_home(shard);
        }
    }

    /// Lets a node write snapshots, as BGSAVE does.
    pub fn save(&mut self, node: usize) {
        self.note(node, "is asked to save");
        if let Some(node) = &self.nodes[node] {
            node.save();
        }
    }

    /// What outlasts a process.
    pub fn durability(&self) -> Durability {
        self.machines.durability
    }

    /// Stops a node for a while; it does not notice.
    pub fn pause(&mut self, node: usize, until: u64) {
        self.note(node, &format!("is paused until {until}"));
        self.paused_until[node] = self.paused_until[node].max(until);
    }

    /// Ends all pauses.
    pub fn resume_all(&mut self) {
        self.paused_until = [0; NODES];
    }

    fn note(&self, node: usize, what: &str) {
        self.trace.note(format!("node {node} {what}"));
    }
}
