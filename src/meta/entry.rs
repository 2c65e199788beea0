//! The way from an empty node into a cluster: asks the seeds, round after round, and does what
//! [`crate::meta::bootstrap`] decides.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use tokio::time::{Instant, sleep};

use crate::bus::call::Peer;
use crate::meta::bootstrap::{Decision, Seed, decide, plan};
use crate::meta::message::{Answer, ClusterId, Hello, Phase, Plan, Request, ask, hello};
use crate::meta::proposer::propose_here;
use crate::meta::standing::{Life, Standing};
use crate::raft::group::Group;
use crate::topology::Topology;

/// Between two rounds of the seeds.
const ROUND: Duration = Duration::from_millis(250);
/// The reason for waiting is logged when it changes, and again after this time.
const REMIND: Duration = Duration::from_secs(10);
/// A node that prepared for a cluster, or was let in, and sees no leader for this long is empty again.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same for one that sees a leader, but not itself in the topology.
const LONG_PATIENCE: Duration = Duration::from_secs(30);
/// For all seeds to say that they are prepared.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(2);
/// For the leader to let a node in: it asks back, then waits for a quorum.
const JOIN_TIMEOUT: Duration = Duration::from_secs(3);
/// Members asked to be let in, in one round.
const MOST_ASKED: usize = 16;
/// Passes within a second after a leader died, unless there is no quorum.
const NO_LEADER: &str = "the cluster there is has no leader now";
/// For the operator, when it does not pass: the one state that does not heal by itself.
const NO_QUORUM: &str = "; if most of its nodes have lost their logs at once, it cannot come back: \
    remove dir on the nodes that still belong to it as well, and all begin anew, empty";
/// Looks at things that no watch tells.
const GLANCE: Duration = Duration::from_millis(100);

/// Finds a seed's bus address (a name may resolve to another one tomorrow).
pub type Resolve = Arc<dyn Fn(usize) -> BoxFuture<'static, io::Result<SocketAddr>> + Send + Sync>;

/// What a new cluster is made of.
#[derive(Clone)]
pub struct Founding {
    /// The seeds' names, in order; for the log.
    pub seeds: Vec<String>,
    /// Address of the n-th seed.
    pub resolve: Resolve,
    /// Number of shards.
    pub shards: usize,
    /// Copies of each.
    pub copies: usize,
}

/// Brings the node into a cluster, however long that takes: returns when the topology names this life of it.
pub async fn enter(standing: &Standing, founding: &Founding) -> ClusterId {
    let mut story = Story::default();
    if let Err(why) = standing.resume().await {
        story.tell(standing, format!("begins anew: {why}"));
    }
    loop {
        leave_emptiness(standing, founding, &mut story).await;
        let incarnation = standing.life().borrow().incarnation;
        match settle(standing).await {
            Ok(cluster) => {
                standing.wait_for(None);
                return cluster;
            }
            Err(why) => {
                story.tell(standing, format!("begins anew: {why}"));
                standing.give_up(incarnation).await;
            }
        }
    }
}

/// Rounds of the seeds until this node's member of the metadata group runs, by its own doing or another's.
async fn leave_emptiness(standing: &Standing, founding: &Founding, story: &mut Story) {
    let mut life = standing.life();
    loop {
        if life.borrow_and_update().group.is_some() {
            return;
        }
        if standing.hello().phase == Phase::Empty {
            let seeds = ask_seeds(standing, founding).await;
            let me = standing.hello();
            let waits = match decide(&me, &seeds) {
                Decision::Wait(why) => Err(why),
                Decision::Form(nodes) => form(standing, founding, &nodes).await,
                Decision::Join(members) => join(standing, &me, &members).await,
            };
            if let Err(why) = waits {
                story.tell(standing, why);
            }
        }
        let _ = tokio::time::timeout(ROUND, life.changed()).await;
    }
}

async fn ask_seeds(standing: &Standing, founding: &Founding) -> Vec<Seed> {
    let ask = async |at: usize, name: &String| {
        let answer = match (founding.resolve)(at).await {
            Ok(addr) if addr == standing.site.bus => Ok(standing.hello()),
            Ok(addr) => hello(&standing.bus, addr).await,
            Err(error) => Err(format!("its address is unknown: {error}")),
        };
        Seed { name: name.clone(), answer }
    };
    join_all(founding.seeds.iter().enumerate().map(|(at, name)| ask(at, name))).await
}

async fn form(standing: &Standing, founding: &Founding, nodes: &[Hello]) -> Result<(), String> {
    let (cluster, draw) = (ClusterId(standing.draw()), standing.draw() as u32);
    let plan = plan(nodes, founding.shards, founding.copies, cluster, draw);
    tracing::info!("all {} seeds are present and empty: forming cluster {cluster}", nodes.len());
    let incarnation = standing.life().borrow().incarnation;
    standing.prepare(plan.clone()).await?;
    match prepare_others(standing, &plan).await {
        Ok(()) => Ok(()),
        Err(why) => {
            standing.give_up(incarnation).await;
            Err(format!("forming failed: {why}"))
        }
    }
}

async fn prepare_others(standing: &Standing, plan: &Plan) -> Result<(), String> {
    let request = Request::Prepare(plan.clone());
    let others = plan.nodes.iter().filter(|(id, _)| **id != standing.site.me);
    let prepare = async |(id, node): (&_, &crate::topology::Node)| {
        let peer = Peer { node: Some(*id), addr: node.bus };
        match ask(&standing.bus, peer, &request, PREPARE_TIMEOUT).await {
            Ok(Answer::Prepared) => Ok(()),
            Ok(other) => Err(format!("{}:{} does not take part: {other:?}", node.host, node.port)),
            Err(why) => Err(format!("{}:{} {why}", node.host, node.port)),
        }
    };
    for prepared in join_all(others.map(prepare)).await {
        prepared?;
    }
    let group = standing.group().ok_or("this node's member stopped")?;
    group.initialize(plan.members()).await.map_err(|error| error.to_string())
}

/// Asks members until one leads the metadata group; each may name the leader.
async fn join(standing: &Standing, me: &Hello, members: &[Hello]) -> Result<(), String> {
    let request = Request::Join { id: me.id, node: me.node.clone() };
    let mut ask_next: Vec<Peer> =
        members.iter().rev().map(|hello| Peer { node: Some(hello.id), addr: hello.node.bus }).collect();
    let mut asked: Vec<Peer> = Vec::new();
    let mut failure = NO_LEADER.to_owned();
    while let Some(peer) = ask_next.pop().filter(|_| asked.len() < MOST_ASKED) {
        if asked.contains(&peer) {
            continue;
        }
        asked.push(peer);
        match ask(&standing.bus, peer, &request, JOIN_TIMEOUT).await {
            Ok(Answer::Joined { cluster, member }) => {
                tracing::info!("this node is let into cluster {cluster} as member {member}");
                return standing.join(me.node.incarnation, cluster, member).await;
            }
            Ok(Answer::NotLeader(Some(leader))) => {
                ask_next.push(Peer { node: Some(leader.node), addr: leader.addr });
            }
            Ok(Answer::NotLeader(None)) => {}
            Ok(Answer::Refused(why)) => failure = format!("the cluster refuses this node: {why}"),
            Ok(Answer::Unavailable(why)) | Err(why) => {
                failure = format!("{} cannot let this node in: {why}", peer.addr)
            }
            Ok(other) => failure = format!("an answer that does not fit: {other:?}"),
        }
    }
    Err(failure)
}

/// From a running member to a topology that names this life. Whoever leads meanwhile puts the plan into the log.
async fn settle(standing: &Standing) -> Result<ClusterId, String> {
    let (mut topology, mut begun) = (standing.topology(), Instant::now());
    let mut leader_seen = begun;
    loop {
        let life = standing.life().borrow().clone();
        let (Some(group), Phase::Preparing(cluster) | Phase::Member(cluster)) = (&life.group, life.phase)
        else {
            return Err("its member of the metadata group is gone".into());
        };
        let now = topology.borrow_and_update().clone();
        if names(&now, standing, &life) {
            standing.settle();
            if let Err(why) = standing.remember(cluster).await {
                tracing::error!("this node will not know its cluster at its next start: {why}");
            }
            return Ok(cluster);
        }
        found(&life, group, &now).await;
        if has_leader(group) {
            leader_seen = Instant::now();
        }
        if life.resumed.is_some() {
            // It belongs somewhere: it waits for a quorum, which may be down, as long as it takes.
            if !has_leader(group) {
                (begun, leader_seen) = (Instant::now(), Instant::now());
                standing.wait_for(Some("most nodes of its cluster"));
            }
        }
        if leader_seen.elapsed() > PATIENCE || begun.elapsed() > LONG_PATIENCE {
            return Err(format!(
                "cluster {cluster} does not come about (no leader, or it does not know this node)"
            ));
        }
        let mut state = group.state();
        tokio::select! {
            biased;
            _ = topology.changed() => {}
            _ = state.changed() => {}
            _ = sleep(GLANCE) => {}
        }
    }
}

/// Whether this life of the node belongs to the cluster. A node that catches up sees old topologies that name its
/// former lives; their members must not be started again.
pub fn names(topology: &Topology, standing: &Standing, life: &Life) -> bool {
    topology.nodes.get(&standing.site.me).is_some_and(|node| node.incarnation == life.incarnation)
}

async fn found(life: &Life, group: &Group, topology: &Topology) {
    let leads = {
        let state = group.state();
        let state = state.borrow();
        state.am_leader && state.ready
    };
    let Some(plan) = life.plan.as_ref().filter(|_| leads && topology.nodes.is_empty()) else { return };
    if let Err(why) = propose_here(group, &plan.change()).await {
        tracing::debug!(%why, "the new cluster's topology is not in the log yet");
    }
}

/// A leader that answers, or this member with a quorum behind it.
fn has_leader(group: &Group) -> bool {
    let state = group.state();
    let state = state.borrow();
    match state.leader {
        Some(_) if state.am_leader => group.lease().is_valid(Instant::now()),
        leader => leader.is_some(),
    }
}

/// What this node waits for, told when it changes and now and then.
#[derive(Default)]
struct Story {
    last: Option<(String, Instant)>,
}

impl Story {
    fn tell(&mut self, standing: &Standing, why: String) {
        standing.wait_for(Some(&why));
        let said = self.last.as_ref().filter(|(last, _)| *last == why).map(|(_, at)| at.elapsed());
        if said.is_none_or(|said| said >= REMIND) {
            let advice = if said.is_some() && why == NO_LEADER { NO_QUORUM } else { "" };
            tracing::info!("waiting for a cluster: {why}{advice}");
            self.last = Some((why, Instant::now()));
        }
    }
}
