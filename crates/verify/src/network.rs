//! A network for the nodes: a namespace each, joined by a bridge, where clients are too. What a node receives can be
//! dropped, by sender or by chance; who sends notices nothing. Near caches come by a network of their own, so that they
//! can be cut off while others go on.
//!
//! Made inside of namespaces that `scripts/verify` entered, so that nothing of it is left when the campaign ends.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Output;

use tokio::process::Command;
use tokio::sync::Mutex;

/// Clients' end of the bridge.
const CLIENTS: u8 = 254;
const TABLE: &str = "verify";

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A node, counted from 0.
    Node(usize),
    /// All clients but near caches.
    Clients,
    /// Near caches.
    Caches,
}

/// What a node does not receive.
#[derive(Clone, Debug, Default)]
struct Drops {
    from: Vec<Sender>,
    /// Of 100 packets, from anybody.
    percent: u32,
}

/// See the module's documentation.
pub struct Network {
    nodes: usize,
    drops: RefCell<BTreeMap<usize, Drops>>,
    /// One change at a time: two faults may end at the same moment, and the rules applied last must be the newest.
    applying: Mutex<()>,
}

/// The address of a node, counted from 0.
pub fn address(node: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 77, 0, node as u8 + 1))
}

/// Where near caches reach a node, counted from 0.
pub fn cache_address(node: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 77, 1, node as u8 + 1))
}

/// The name of a node's namespace.
pub fn namespace(node: usize) -> String {
    format!("node{}", node + 1)
}

/// The flag by which nsenter finds a namespace.
pub fn enter(namespace: &str) -> String {
    format!("--net=/run/netns/{namespace}")
}

impl Network {
    /// Makes it. An error says which command failed.
    pub async fn new(nodes: usize) -> Result<Network, String> {
        run("ip link set lo up").await?;
        run("ip link add verify type bridge").await?;
        run(&format!("ip addr add 10.77.0.{CLIENTS}/24 dev verify")).await?;
        run(&format!("ip addr add 10.77.1.{CLIENTS}/24 dev verify")).await?;
        run("ip link set verify up").await?;
        for node in 0..nodes {
            let (name, ip, for_caches) = (namespace(node), address(node), cache_address(node));
            run(&format!("ip netns add {name}")).await?;
            run(&format!("ip link add veth{node} type veth peer name eth0 netns {name}")).await?;
            run(&format!("ip link set veth{node} master verify up")).await?;
            let addresses = [ip, for_caches].map(|ip| format!("addr add {ip}/24 dev eth0"));
            for words in ["link set lo up", "link set eth0 up", &addresses[0], &addresses[1]] {
                run(&format!("ip -n {name} {words}")).await?;
            }
            let chain = format!(
                "add table inet {TABLE}; add chain inet {TABLE} in {{ type filter hook input priority 0; }}"
            );
            nft(node, &chain).await?;
        }
        Ok(Network { nodes, drops: RefCell::default(), applying: Mutex::default() })
    }

    /// From now on, nothing that `from` sends arrives at `to`.
    pub async fn cut(&self, from: Sender, to: usize) -> Result<(), String> {
        self.drops.borrow_mut().entry(to).or_default().from.push(from);
        self.apply(to).await
    }

    /// One cut is over: what `from` sends arrives again at `to`, unless there is another one.
    pub async fn mend(&self, from: Sender, to: usize) -> Result<(), String> {
        if let Some(drops) = self.drops.borrow_mut().get_mut(&to) {
            // Cut twice, it is mended when both are over.
            let once = drops.from.iter().position(|sender| *sender == from);
            once.map(|at| drops.from.swap_remove(at));
        }
        self.apply(to).await
    }

    /// Of what is sent to a node, so much is lost (per cent).
    pub async fn lose(&self, to: usize, percent: u32) -> Result<(), String> {
        self.drops.borrow_mut().entry(to).or_default().percent = percent;
        self.apply(to).await
    }

    /// Everything arrives everywhere.
    pub async fn heal(&self) -> Result<(), String> {
        self.drops.borrow_mut().clear();
        for node in 0..self.nodes {
            self.apply(node).await?;
        }
        Ok(())
    }

    async fn apply(&self, node: usize) -> Result<(), String> {
        let _turn = self.applying.lock().await;
        let drops = self.drops.borrow().get(&node).cloned().unwrap_or_default();
        let mut rules = format!("flush chain inet {TABLE} in");
        for sender in drops.from {
            let ip = match sender {
                Sender::Node(node) => address(node).to_string(),
                Sender::Clients => format!("10.77.0.{CLIENTS}"),
                Sender::Caches => format!("10.77.1.{CLIENTS}"),
            };
            rules += &format!("; add rule inet {TABLE} in ip saddr {ip} drop");
        }
        if drops.percent > 0 {
            rules += &format!("; add rule inet {TABLE} in numgen random mod 100 < {} drop", drops.percent);
        }
        nft(node, &rules).await
    }
}

async fn nft(node: usize, rules: &str) -> Result<(), String> {
    // Not `ip netns exec`, which mounts things at each call and so is slow on a busy machine.
    let output = Command::new("nsenter").args([&enter(&namespace(node)), "nft", rules]).output().await;
    judge(output, &format!("nft {rules}"))
}

async fn run(line: &str) -> Result<(), String> {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap_or_default()).args(words).output().await;
    judge(output, line)
}

fn judge(output: std::io::Result<Output>, line: &str) -> Result<(), String> {
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("`{line}` failed: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("`{line}` cannot be run: {error}")),
    }
}
