//! Brings a change into the metadata group's log, wherever its leader is.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::bus::call::Peer;
use crate::meta::machine::encode;
use crate::meta::message::{Answer, Request, ask};
use crate::meta::standing::Standing;
use crate::raft::group::Group;
use crate::raft::proposal::{Outcome, Proposal};
use crate::topology::change::Change;

/// A change that is not in by then is given up; the caller, who sees what it wanted missing, asks again.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// One attempt, which may meet a leader that has just died.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(1000);
/// Between attempts: doubled from here ...
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// ... up to here.
const LONGEST_PAUSE: Duration = Duration::from_millis(320);

/// Proposes a change at the leader, again and again for five seconds. It may be put into the log more than once:
/// changes are such that the second does nothing. `Err`: what the last attempt met.
pub async fn propose(standing: &Standing, change: &Change) -> Result<(), String> {
    let deadline = Instant::now() + PROPOSE_TIMEOUT;
    let mut pause = FIRST_PAUSE;
    loop {
        let failure = match attempt(standing, change).await {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        if Instant::now() + pause >= deadline {
            return Err(failure);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn attempt(standing: &Standing, change: &Change) -> Result<(), String> {
    if let Some(group) = standing.leading_group() {
        return propose_here(&group, change).await;
    }
    let Some(leader) = standing.leader().filter(|leader| leader.node != standing.site.me) else {
        return Err("the metadata group has no leader".into());
    };
    let peer = Peer { node: Some(leader.node), addr: leader.addr };
    match ask(&standing.bus, peer, &Request::Propose(change.clone()), ATTEMPT_TIMEOUT).await? {
        Answer::Applied => Ok(()),
        Answer::Unavailable(why) | Answer::Refused(why) => Err(why),
        other => Err(format!("an answer that does not fit: {other:?}")),
    }
}

/// Proposes at this node's member, which leads, and waits until the change is applied here.
pub async fn propose_here(group: &Group, change: &Change) -> Result<(), String> {
    let (done, outcome) = oneshot::channel();
    let proposal = Proposal { bytes: encode(change), local: None };
    group.propose(proposal, Box::new(move |outcome| drop(done.send(outcome))));
    match tokio::time::timeout(ATTEMPT_TIMEOUT, outcome).await {
        Ok(Ok(Outcome::Applied { .. })) => Ok(()),
        Ok(Ok(Outcome::NotLeader { .. })) => {
            Err("this node does not lead the metadata group any more".into())
        }
        Ok(Ok(Outcome::Unknown) | Err(_)) => Err("whether the change was committed is unknown".into()),
        Err(_) => Err(format!("no quorum of the metadata group within {ATTEMPT_TIMEOUT:?}")),
    }
}
