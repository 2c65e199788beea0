//! The simulated world: three nodes, the network between them, and virtual time, a millisecond a step.
//!
//! All of it runs on one thread. In each step the network delivers, then every node that is neither down nor paused
//! lives one millisecond on its own runtime and clock, then the clients do.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::client::Doors;
use crate::leaders::Leaders;
use crate::machines::{Durability, Machines};
use crate::network::Network;
use crate::node::{NODES, Node, Setup};
use crate::replicas::Replicas;
use crate::server::Fault;
use crate::trace::Trace;
use crate::workload::slots;

/// See the module's documentation.
pub struct World {
    pub now: u64,
    pub trace: Trace,
    pub doors: Doors,
    pub replicas: Replicas,
    pub leaders: Leaders,
    seed: u64,
    fault: Option<Fault>,
    network: Network,
    machines: Machines,
    nodes: Vec<Option<Node>>,
    paused_until: [u64; NODES],
    lives: u64,
    clients: Runtime,
    start: Instant,
}

impl World {
    /// Three nodes that have just been started.
    pub fn new(seed: u64, fault: Option<Fault>, trace: Trace) -> World {
        let clients = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let start = clients.block_on(async { Instant::now() });
        let mut world = World {
            now: 0,
            replicas: Replicas::new(trace.clone(), slots()),
            trace,
            doors: Doors::default(),
            leaders: Leaders::default(),
            seed,
            fault,
            network: Network::new(seed),
            machines: Machines::new(seed),
            nodes: (0..NODES).map(|_| None).collect(),
            paused_until: [0; NODES],
            lives: 0,
            clients,
            start,
        };
        (0..NODES).for_each(|node| world.start(node));
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
        for (number, node) in self.nodes.iter_mut().enumerate() {
            if let Some(node) = node.as_mut().filter(|_| self.paused_until[number] <= self.now) {
                node.advance(self.now);
                self.leaders.look(number, node, &self.trace);
            }
        }
        let until = self.start + Duration::from_millis(self.now);
        self.clients.block_on(async { sleep_until(until).await });
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

    /// Starts a node: the first time or again.
    pub fn start(&mut self, node: usize) {
        self.trace.note(format!("node {node} starts"));
        self.lives += 1;
        self.network.revive(node);
        let (network, replicas, machines) = (&self.network, &self.replicas, &self.machines);
        let setup = Setup {
            node,
            life: self.lives,
            seed: self.seed,
            now: self.now,
            network,
            replicas,
            machines,
            fault: self.fault,
        };
        let started = Node::start(&setup);
        self.doors.lock()[node] = Some(started.door());
        self.nodes[node] = Some(started);
        self.paused_until[node] = 0;
    }

    /// Kills a node; `silent`: with its machine, so that nobody resets its connections.
    pub fn kill(&mut self, node: usize, silent: bool) {
        self.trace.note(format!("node {node} is killed{}", if silent { ", silently" } else { "" }));
        self.network.die(node, silent);
        self.doors.lock()[node] = None;
        // First: what a task does when it is dropped, a process that dies does not do.
        self.machines.process_died(node);
        self.nodes[node] = None;
    }

    /// Kills a node with its machine: what it has not synced may be gone.
    pub fn cut_power(&mut self, node: usize) {
        self.kill(node, true);
        self.trace.note(format!("node {node} has lost power"));
        self.machines.lost_power(node);
    }

    /// What outlasts a process.
    pub fn durability(&self) -> Durability {
        self.machines.durability
    }

    /// Stops a node for a while; it does not notice.
    pub fn pause(&mut self, node: usize, until: u64) {
        self.trace.note(format!("node {node} is paused until {until}"));
        self.paused_until[node] = self.paused_until[node].max(until);
    }

    /// Ends all pauses.
    pub fn resume_all(&mut self) {
        self.paused_until = [0; NODES];
    }

    /// Holds back what one node sends to another.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.trace.note(format!("cut: {from} to {to}"));
        self.network.cut(from, to);
    }

    /// Mends a cut.
    pub fn mend(&mut self, from: usize, to: usize) {
        self.trace.note(format!("mended: {from} to {to}"));
        self.network.mend(from, to);
    }

    /// Breaks all connections between two nodes.
    pub fn reset(&mut self, one: usize, other: usize) {
        self.trace.note(format!("connections between {one} and {other} break"));
        self.network.reset(one, other);
    }

    /// Bytes take up to so many milliseconds.
    pub fn slow_down(&mut self, latency: u64) {
        self.trace.note(format!("bytes take up to {latency} ms"));
        self.network.slow_down(latency);
    }
}
