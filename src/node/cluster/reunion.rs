//! Asks all nodes what is left of their logs, when this one may have lost the end of its own, until it is clear how to go
//! on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, sleep};

use crate::bus::call::Peer;
use crate::id::{GroupId, NodeId};
use crate::meta::message::{Answer, Remains, Request, ask};
use crate::meta::reunion::{Verdict, judge, unaware};
use crate::meta::standing::Standing;
use crate::raft::groups::Groups;
use crate::topology::{Node, Topology};

/// Between two rounds.
const ROUND: Duration = Duration::from_millis(250);
/// For one answer.
const TIMEOUT: Duration = Duration::from_millis(500);
/// After a reunion where a node's logs ended is said for so long.
const LINGER: Duration = Duration::from_secs(10);
/// What it waits for is logged when it changes, and again after this time.
const REMIND: Duration = Duration::from_secs(10);

/// Until the doubt is over.
pub async fn reunite(standing: Arc<Standing>, groups: Groups) {
    let mut said: Option<(String, Instant)> = None;
    let mut topology = Arc::new(Topology::default());
    let incarnation = standing.life().borrow().incarnation;
    let (sources, unaware) = loop {
        sleep(ROUND).await;
        match standing.runs(incarnation) {
            Some(true) => {}
            // What ends a life must not overtake what takes it up.
            Some(false) => continue,
            // It was given up for another reason, and the doubt with it.
            None => return,
        }
        let own = standing.topology().borrow().clone();
        if own.epoch > topology.epoch {
            topology = own;
        }
        let heard = round(&standing, &topology).await;
        let newest = heard
            .values()
            .flatten()
            .filter_map(|remains| remains.topology.as_ref())
            .max_by_key(|it| it.epoch);
        if let Some(newer) = newest.filter(|newest| newest.epoch > topology.epoch) {
            topology = Arc::new(newer.clone());
            continue; // There may be others to ask.
        }
        match judge(&topology, standing.site.me, &heard) {
            Verdict::Sources(sources) => {
                // Before anything else is written there, which takes the copies in doubt.
                let unaware = unaware(&topology, &heard, &sources);
                if tell(&standing, &topology, &unaware).await {
                    let begun =
                        |(id, remains): (NodeId, Result<Remains, String>)| Some((id, remains.ok()?.begun));
                    standing.reunite(heard.into_iter().filter_map(begun).collect(), &sources);
                    break (sources, unaware);
                }
            }
            Verdict::BeginAnew => {
                tracing::info!(
                    "the others have gone on: this node begins a new life and is brought up by them"
                );
                return standing.give_up(incarnation).await;
            }
            Verdict::Wait(why) => {
                let why = format!("all copies, to find the longest of their logs; missing: {why}");
                standing.wait_for(Some(&why));
                if said.as_ref().is_none_or(|(last, at)| *last != why || at.elapsed() > REMIND) {
                    tracing::info!("waiting for {why}");
                    said = Some((why, Instant::now()));
                }
            }
        }
    };
    standing.wait_for(None);
    tracing::info!("all copies are there: of each shard the one with the longest log leads first");
    groups.name_sources(&sources);
    while groups.any_doubt() {
        sleep(ROUND).await;
        // Who dies has forgotten it, and would go on with the old history.
        tell(&standing, &topology, &unaware).await;
    }
    match groups.wal().map(|wal| wal.believe()) {
        Some(Err(error)) => tracing::error!("this node will be in doubt again at its next start: {error}"),
        _ => tracing::info!("this node has all that is left of its cluster's last life, and goes on"),
    }
    // The others may still be comparing. But whoever is in doubt later on must hear that the cluster goes on without it.
    sleep(LINGER).await;
    groups.forget_ends();
}

/// Tells nodes of what is lost; whether all have heard.
async fn tell(standing: &Standing, topology: &Topology, unaware: &BTreeMap<NodeId, Vec<GroupId>>) -> bool {
    for (id, groups) in unaware {
        let Some(node) = topology.nodes.get(id) else { return false };
        let peer = Peer { node: Some(*id), addr: node.bus };
        let lost = Request::Lost { begun: standing.begun(), groups: groups.clone() };
        if !matches!(ask(&standing.bus, peer, &lost, TIMEOUT).await, Ok(Answer::Noted)) {
            return false;
        }
    }
    true
}

async fn round(standing: &Standing, topology: &Topology) -> BTreeMap<NodeId, Result<Remains, String>> {
    let (begun, epoch) = (standing.begun(), topology.epoch);
    let ask_one = async |(id, node): (&NodeId, &Node)| {
        if *id == standing.site.me {
            return (*id, Ok(standing.remains(*id, begun, epoch)));
        }
        let peer = Peer { node: Some(*id), addr: node.bus };
        let answer = ask(&standing.bus, peer, &Request::Remains { begun, epoch }, TIMEOUT).await;
        let remains: Result<Remains, String> = answer.and_then(|answer| match answer {
            Answer::Remains(remains) => Ok(remains),
            other => Err(format!("an answer that does not fit: {other:?}")),
        });
        (*id, remains)
    };
    join_all(topology.nodes.iter().map(ask_one)).await.into_iter().collect()
}
