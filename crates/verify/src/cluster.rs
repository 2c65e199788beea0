//! The cluster under test: its nodes, the network between them, and when it is in good health.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use slotcast_wire::slot::SLOTS;
use tokio::time::sleep;

use crate::calm::Pause;
use crate::disk::Disk;
use crate::network::{self, Network};
use crate::node::{Launch, Node};
use crate::slots::{self, Lead};

/// Between two looks at all nodes.
const POLL: Duration = Duration::from_millis(100);

/// See the module's documentation.
pub struct Cluster {
    /// The nodes, by index.
    pub nodes: Vec<Node>,
    /// The network, if the nodes have one of their own.
    pub network: Option<Network>,
    /// Whether a node that restarts comes back empty, as a new member.
    pub forgets: bool,
    /// Whether a node that lost power comes back as a new member.
    pub mistrusts: bool,
    /// For near caches.
    pub cache_pause: Pause,
    returning: RefCell<Vec<Returning>>,
}

/// A node that comes back as a new member, and how long all logs were when it did.
struct Returning {
    node: usize,
    marks: Vec<u64>,
}

impl Cluster {
    /// Starts that many nodes.
    pub async fn start(
        count: usize,
        port: u16,
        folder: &Path,
        launch: Launch,
        namespaces: bool,
        disks: bool,
    ) -> Result<Cluster, String> {
        let network = if namespaces { Some(Network::new(count).await?) } else { None };
        let address = |index: usize| match namespaces {
            true => SocketAddr::new(network::address(index), port),
            false => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port + index as u16),
        };
        let mut launch = launch;
        launch.flags.push("--cluster-seeds".into());
        launch.flags.extend((0..count).map(|index| address(index).to_string()));
        let node = |index: usize| {
            let namespace = namespaces.then(|| network::namespace(index));
            Node::new(index + 1, address(index), folder, namespace, launch.clone())
        };
        let mut nodes: Vec<Node> = (0..count).map(node).collect();
        if disks {
            for node in &mut nodes {
                node.disk = Some(Disk::new(&node.dir).await?);
            }
        }
        let (forgets, mistrusts) = (launch.forgets(), !launch.waits_for_disks());
        let (cache_pause, returning) = Default::default();
        let cluster = Cluster { nodes, network, forgets, mistrusts, cache_pause, returning };
        for node in &cluster.nodes {
            node.start()
                .map_err(|error| format!("{} cannot be started: {error}", launch.server.display()))?;
        }
        Ok(cluster)
    }

    /// The nodes' processes.
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(Node::pid).collect()
    }

    /// Where clients reach the nodes.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    /// Who leads what, if all nodes agree about it and every slot is led.
    pub async fn leads(&self) -> Option<Vec<Lead>> {
        let mut views = BTreeSet::new();
        for node in &self.nodes {
            let leads = slots::leads(node.address).await?;
            let view = leads.iter().map(|(range, owner)| (*range.start(), *range.end(), *owner));
            views.insert(view.collect::<Vec<_>>());
        }
        let leads: Vec<Lead> =
            views.pop_first()?.into_iter().map(|(first, last, owner)| (first..=last, owner)).collect();
        let served: usize = leads.iter().map(|(range, _)| range.len()).sum();
        (views.is_empty() && served == SLOTS).then_some(leads)
    }

    /// The index of the node at an address.
    pub fn index(&self, address: SocketAddr) -> Option<usize> {
        self.nodes.iter().position(|node| node.address == address)
    }

    /// Starts a node that has ended; with or without its machine.
    pub fn restart(&self, index: usize, lost_power: bool) -> Result<(), String> {
        if self.forgets || lost_power && self.mistrusts {
            let marks = self.nodes.iter().map(Node::log_mark).collect();
            let mut returning = self.returning.borrow_mut();
            returning.retain(|other| other.node != index);
            returning.push(Returning { node: index, marks });
        }
        self.nodes[index].start().map_err(|error| format!("node {}: {error}", index + 1))
    }

    /// Waits until all nodes run and agree, each leads what is its own, and each copy votes again.
    pub async fn settled(&self, limit: Duration) -> Result<Vec<Lead>, String> {
        let until = Instant::now() + limit;
        loop {
            let why_not = match self.unsettled().await {
                Ok(leads) => return Ok(leads),
                Err(why_not) => why_not,
            };
            if let Some(ended) = self.nodes.iter().find(|node| !node.is_running()) {
                return Err(format!(
                    "node {} has ended by itself; its log: {}",
                    ended.number,
                    ended.log.display()
                ));
            }
            if Instant::now() > until {
                return Err(format!("not in good health {} s after the fault: {why_not}", limit.as_secs()));
            }
            sleep(POLL).await;
        }
    }

    async fn unsettled(&self) -> Result<Vec<Lead>, String> {
        let leads = self.leads().await.ok_or("the nodes don't agree, or not every slot is led")?;
        if let Some(node) =
            self.nodes.iter().find(|node| !leads.iter().any(|(_, owner)| *owner == node.address))
        {
            return Err(format!("node {} leads nothing", node.number));
        }
        let mut returning = self.returning.borrow_mut();
        returning.retain(|returning| self.votes_not(returning, leads.len()).is_some());
        match returning.first().and_then(|returning| self.votes_not(returning, leads.len())) {
            Some(group) => Err(format!("node {} does not vote in {group}", returning[0].node + 1)),
            None => Ok(leads),
        }
    }

    /// A group in which a node that came back has not been made a voter, as far as the logs tell.
    fn votes_not(&self, returning: &Returning, shards: usize) -> Option<String> {
        let logs: Vec<String> =
            self.nodes.iter().zip(&returning.marks).map(|(node, mark)| node.logged_since(*mark)).collect();
        let Some(name) = logs[returning.node].split("this node (").nth(1).and_then(|rest| rest.get(..8))
        else {
            return Some("the cluster".into());
        };
        let groups = std::iter::once("meta".to_owned()).chain((1..=shards).map(|n| format!("shard-{n}")));
        let votes = |group: &String| {
            let said = format!("{group}: the copies that vote are now on ");
            logs.iter()
                .flat_map(|log| log.lines())
                .any(|line| line.split_once(&said).is_some_and(|(_, names)| names.contains(name)))
        };
        groups.into_iter().find(|group| !votes(group))
    }
}
