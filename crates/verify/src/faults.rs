//! What can be done to nodes, and doing it.

use std::time::Duration;

use nix::sys::signal::Signal;
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::time::{sleep, timeout};

use crate::client::Client;
use crate::cluster::Cluster;
use crate::connection::request;
use crate::disk::fail_syncs;
use crate::network::Sender;
use crate::node::STOP;

/// Bytes of a value while a disk is full,
const FLOOD_BYTES: usize = 200 << 10;
/// keys that get such values,
const FLOOD_KEYS: usize = 12;
/// and how often one does.
const FLOOD_PACE: Duration = Duration::from_millis(10);

/// Within this a node that was started again is part of the cluster,
const AGREEMENT: Duration = Duration::from_secs(30);
/// which is looked at so often.
const GLANCE: Duration = Duration::from_millis(20);

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SIGKILL, and a restart after a while.
    Kill,
    /// SIGKILL, and a restart at once.
    Restart,
    /// SIGTERM, and a restart when it has ended.
    Term,
    /// SIGTERM and a restart, one node after the other, each as soon as all agree again about who leads.
    Rolling,
    /// SIGKILL to all nodes at once, and a restart of all.
    KillAll,
    /// SIGSTOP, and SIGCONT after a while: longer than a lease, mostly.
    Stop,
    /// Many short stops: a machine that is far too busy.
    Stutter,
    /// Cut off from the other nodes; half of the time clients can't reach it either.
    Isolate,
    /// Two nodes can't reach each other; both reach the third.
    Split,
    /// One node hears nothing from others that hear it, or the other way round.
    OneWay,
    /// Packets are lost.
    Loss,
    /// The machine is off and on again: what was not synced is gone.
    Power,
    /// The same for all nodes at once.
    PowerAll,
    /// The wall clock jumps, and back again.
    Clock,
    /// Nothing more fits on the disk.
    DiskFull,
    /// The disk does not confirm any more; then the process is started anew.
    Fsync,
    /// Near caches reach no node.
    CacheCut,
    /// The near caches' thread stands still.
    CacheStop,
}

/// All kinds, by name.
pub const KINDS: [(&str, Kind); 18] = [
    ("kill", Kind::Kill),
    ("restart", Kind::Restart),
    ("term", Kind::Term),
    ("rolling", Kind::Rolling),
    ("killall", Kind::KillAll),
    ("stop", Kind::Stop),
    ("stutter", Kind::Stutter),
    ("isolate", Kind::Isolate),
    ("split", Kind::Split),
    ("oneway", Kind::OneWay),
    ("loss", Kind::Loss),
    ("power", Kind::Power),
    ("powerall", Kind::PowerAll),
    ("clock", Kind::Clock),
    ("diskfull", Kind::DiskFull),
    ("fsync", Kind::Fsync),
    ("cachecut", Kind::CacheCut),
    ("cachestop", Kind::CacheStop),
];

impl Kind {
    /// Its name.
    pub fn name(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("?", |(name, _)| name)
    }

    /// Whether it needs a network of the nodes' own.
    pub fn needs_network(self) -> bool {
        matches!(self, Kind::Isolate | Kind::Split | Kind::OneWay | Kind::Loss | Kind::CacheCut)
    }

    /// Whether it is done to near caches, and to no node.
    pub fn hits_caches(self) -> bool {
        matches!(self, Kind::CacheCut | Kind::CacheStop)
    }

    /// Whether the node's process ends.
    pub fn ends_a_life(self) -> bool {
        matches!(self, Kind::Kill | Kind::Restart | Kind::Term | Kind::Rolling | Kind::KillAll | Kind::Fsync)
            || self.ends_power()
    }

    /// Whether machines lose power.
    pub fn ends_power(self) -> bool {
        matches!(self, Kind::Power | Kind::PowerAll)
    }

    /// Whether it hits all nodes.
    pub fn hits_all(self) -> bool {
        matches!(self, Kind::Rolling | Kind::KillAll | Kind::PowerAll)
    }

    /// Whether it needs disks of the nodes' own.
    pub fn needs_own_disks(self) -> bool {
        matches!(self, Kind::DiskFull | Kind::Fsync) || self.ends_power()
    }

    /// Whether it needs nodes that keep their keys when their processes end.
    pub fn needs_keeping(self) -> bool {
        matches!(self, Kind::Rolling | Kind::KillAll) || self.needs_own_disks()
    }
}

/// A fault that has been drawn.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What is done,
    pub kind: Kind,
    /// to whom (index of a node),
    pub victim: usize,
    /// for how long,
    lasts: Duration,
    /// and a choice that some kinds have.
    choice: u32,
}

impl Fault {
    /// Draws what is open about a fault.
    pub fn draw(kind: Kind, victim: usize, rng: &mut SmallRng) -> Fault {
        let lasts = Duration::from_millis(match kind {
            Kind::Restart | Kind::Rolling => 0,
            Kind::Stop => rng.random_range(150..4_000),
            Kind::Term | Kind::KillAll | Kind::PowerAll => rng.random_range(0..3_000),
            Kind::Kill | Kind::Stutter => rng.random_range(500..5_000),
            _ => rng.random_range(500..7_000),
        });
        Fault { kind, victim, lasts, choice: rng.random() }
    }

    /// Does it and undoes it.
    pub async fn inflict(&self, cluster: &Cluster) -> Result<(), String> {
        let node = &cluster.nodes[self.victim];
        match self.kind {
            Kind::Kill | Kind::Restart => {
                node.kill().await;
                sleep(self.lasts).await;
                cluster.restart(self.victim, false)
            }
            Kind::Term => self.terminate(self.victim, cluster).await,
            Kind::Rolling => {
                let count = cluster.nodes.len();
                for n in 0..count {
                    self.terminate((self.victim + n) % count, cluster).await?;
                    timeout(AGREEMENT, agreed(cluster))
                        .await
                        .map_err(|_| "the nodes don't agree any more")?;
                }
                Ok(())
            }
            Kind::KillAll => {
                cluster.nodes.iter().for_each(|node| node.signal(Signal::SIGKILL));
                for node in &cluster.nodes {
                    node.kill().await;
                }
                sleep(self.lasts).await;
                (0..cluster.nodes.len()).try_for_each(|node| cluster.restart(node, false))
            }
            Kind::Stop => {
                node.signal(Signal::SIGSTOP);
                sleep(self.lasts).await;
                node.signal(Signal::SIGCONT);
                Ok(())
            }
            Kind::Stutter => {
                let count = 4 + self.lasts.as_millis() as u32 / 250;
                for n in 0..count {
                    let ms =
                        |shift: u32, most: u32| u64::from(self.choice.rotate_left(n * 5 + shift) % most + 10);
                    node.signal(Signal::SIGSTOP);
                    sleep(Duration::from_millis(ms(0, 300))).await;
                    node.signal(Signal::SIGCONT);
                    sleep(Duration::from_millis(ms(13, 100))).await;
                }
                Ok(())
            }
            Kind::Isolate | Kind::Split | Kind::OneWay | Kind::Loss | Kind::CacheCut => {
                self.disconnect(cluster).await
            }
            Kind::CacheStop => {
                cluster.cache_pause.order(self.lasts);
                sleep(self.lasts).await;
                Ok(())
            }
            Kind::PowerAll => self.black_out(cluster).await,
            Kind::Clock => {
                // Up to a minute, either way.
                node.set_clock(i64::from(self.choice % 120) - 60)?;
                sleep(self.lasts).await;
                node.set_clock(0)
            }
            Kind::Power | Kind::DiskFull | Kind::Fsync => self.break_disk(cluster).await,
        }
    }

    /// Tells a node to stop, and starts it again.
    async fn terminate(&self, index: usize, cluster: &Cluster) -> Result<(), String> {
        let node = &cluster.nodes[index];
        node.signal(Signal::SIGTERM);
        if !node.ended(STOP).await {
            return Err(format!("node {} does not end on SIGTERM", node.number));
        }
        sleep(self.lasts).await;
        cluster.restart(index, false)
    }

    /// All stand still before the first disk is copied, so nothing that anybody knew then is newer than the copies.
    async fn black_out(&self, cluster: &Cluster) -> Result<(), String> {
        cluster.nodes.iter().for_each(|node| node.signal(Signal::SIGSTOP));
        let disks = || cluster.nodes.iter().filter_map(|node| node.disk.as_ref());
        for disk in disks() {
            disk.copy().await?;
        }
        for node in &cluster.nodes {
            node.kill().await;
        }
        for disk in disks() {
            disk.back_to_copy().await?;
        }
        sleep(self.lasts).await;
        (0..cluster.nodes.len()).try_for_each(|node| cluster.restart(node, true))
    }

    async fn break_disk(&self, cluster: &Cluster) -> Result<(), String> {
        let node = &cluster.nodes[self.victim];
        let disk = node.disk.as_ref().ok_or("the node has no disk of its own")?;
        match self.kind {
            Kind::Power => {
                node.signal(Signal::SIGSTOP);
                disk.copy().await?;
                node.kill().await;
                disk.back_to_copy().await?;
                sleep(self.lasts).await;
                cluster.restart(self.victim, true)
            }
            Kind::DiskFull => {
                disk.fill().await?;
                tokio::select! {
                    () = flood(cluster) => {}
                    () = sleep(self.lasts) => {}
                }
                disk.make_room().await
            }
            _ => {
                let pid = node.pid().ok_or("the node does not run")?;
                fail_syncs(pid, self.lasts).await?;
                node.kill().await;
                cluster.restart(self.victim, false)
            }
        }
    }

    async fn disconnect(&self, cluster: &Cluster) -> Result<(), String> {
        let network = cluster.network.as_ref().ok_or("there is no network to cut")?;
        if self.kind == Kind::Loss {
            network.lose(self.victim, 5 + self.choice % 36).await?;
            sleep(self.lasts).await;
            return network.lose(self.victim, 0).await;
        }
        let cuts = self.cuts(cluster.nodes.len());
        for (from, to) in &cuts {
            network.cut(*from, *to).await?;
        }
        sleep(self.lasts).await;
        for (from, to) in &cuts {
            network.mend(*from, *to).await?;
        }
        Ok(())
    }

    /// What does not arrive: from whom, at which node.
    fn cuts(&self, nodes: usize) -> Vec<(Sender, usize)> {
        let me = self.victim;
        let others = (0..nodes).filter(|other| *other != me);
        let in_and_out = |other: usize| [(Sender::Node(other), me), (Sender::Node(me), other)];
        let flip = self.choice.is_multiple_of(2);
        match self.kind {
            Kind::Isolate => {
                let clients = [(Sender::Clients, me), (Sender::Caches, me)].into_iter().filter(|_| flip);
                others.flat_map(in_and_out).chain(clients).collect()
            }
            Kind::CacheCut => (0..nodes).map(|node| (Sender::Caches, node)).collect(),
            Kind::Split => in_and_out((me + 1 + usize::from(flip)) % nodes).to_vec(),
            _ => others.map(|other| in_and_out(other)[usize::from(flip)]).collect(),
        }
    }
}

/// Writes so much that what room a node's log has set aside is soon used up. Does not end.
async fn flood(cluster: &Cluster) {
    let mut client = Client::new(u16::MAX, cluster.addresses().into(), 0);
    let value = "x".repeat(FLOOD_BYTES);
    for key in (0..FLOOD_KEYS).cycle().map(|n| format!("flood:{n}")) {
        client.call(&key, &[request(&["SET", &key, &value])]).await;
        sleep(FLOOD_PACE).await;
    }
}

/// Waits until all nodes, the one just started among them, say the same about who leads what: what a rolling restart
/// waits for. They need not be in good health yet.
async fn agreed(cluster: &Cluster) {
    while cluster.leads().await.is_none() {
        sleep(GLANCE).await;
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let is_of_a_node = !self.kind.hits_all() && !self.kind.hits_caches();
        let whom = if is_of_a_node { format!(" node {}", self.victim + 1) } else { "".into() };
        write!(f, "{}{whom}, {:.1} s", self.kind.name(), self.lasts.as_secs_f64())
    }
}
