//! What a node does for the others before it stops: waits until they can do without it, and hands its leaderships over.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::id::{MemberId, NodeId};
use crate::meta::standing::Standing;
use crate::raft::group::Group;
use crate::raft::state::{GroupError, GroupState};

/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(50);

/// Waits until every group can do without this node's member, or the moment has come: copies that lag, here or
/// elsewhere, take what they lack meanwhile. Nodes that don't answer are not waited for.
pub async fn wait_until_spared(groups: &[Group], standing: &Standing, until: Instant) {
    let spared = async |group: &Group| {
        let mut told = false;
        while group.has_others(|node| standing.bus.is_reachable(node)) && !group.is_spared().await {
            if !told {
                tracing::info!(
                    "{}: the other copies lack some of the log: this node stays for them",
                    group.id()
                );
            }
            told = true;
            sleep(AGAIN).await;
        }
    };
    let all = futures::future::join_all(groups.iter().map(spared));
    if timeout_at(until, all).await.is_err() {
        tracing::warn!(
            "shutdown-timeout is over: this node goes, though some of the other copies lack some of the log"
        );
    }
}

/// Hands each leadership of this node to a voter that has the whole log; at most `limit` in all.
pub async fn hand_over(groups: &[Group], standing: &Standing, limit: Duration) {
    let hand_over = async |group: &Group| {
        loop {
            let heirs =
                heirs(&group.state().borrow(), group.member(), |node| standing.bus.is_reachable(node));
            if heirs.is_empty() {
                return;
            }
            let ids: Vec<MemberId> = heirs.iter().map(|(id, _)| *id).collect();
            match group.transfer_to_first_of(&ids).await {
                Ok(heir) => {
                    let node = heirs.iter().find(|(id, _)| *id == heir).map(|(_, node)| node.short());
                    let node = node.unwrap_or_default();
                    tracing::info!("{}: leadership went to {node}, as this node cannot keep it", group.id());
                    return;
                }
                Err(GroupError::NotLeader { .. }) => return,
                Err(error) => tracing::warn!("{}: the leadership was not handed over: {error}", group.id()),
            }
            sleep(AGAIN).await;
        }
    };
    let all = futures::future::join_all(groups.iter().map(hand_over));
    if timeout(limit, all).await.is_err() {
        tracing::warn!("not all leaderships were handed over within {limit:?}");
    }
}

/// Who could lead in this member's place, those with most of the log first; nobody, if it doesn't lead.
fn heirs(state: &GroupState, me: MemberId, answers: impl Fn(NodeId) -> bool) -> Vec<(MemberId, NodeId)> {
    let others = state.voters.iter().filter(|(id, member)| **id != me && answers(member.node));
    let mut heirs: Vec<_> =
        others.filter(|_| state.am_leader).map(|(id, member)| (*id, member.node)).collect();
    let matched = |id: &MemberId| state.followers.get(id).and_then(|follower| follower.matched);
    heirs.sort_by_key(|(id, _)| std::cmp::Reverse(matched(id)));
    heirs
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::raft::state::{Follower, Member};

    #[test]
    fn those_that_answer_are_asked_and_those_with_most_of_the_log_first() {
        let node = |n: u64| NodeId::from_bytes([n as u8; 20]);
        let member = |n: u64| (n, Member { node: node(n), addr: ([127, 0, 0, 1], 1).into() });
        let follower = |n, matched| (n, Follower { matched, heard: None });
        let state = GroupState {
            am_leader: true,
            voters: BTreeMap::from([1, 2, 3, 4].map(member)),
            followers: BTreeMap::from([follower(2, Some(7)), follower(3, Some(9)), follower(4, None)]),
            ..GroupState::default()
        };
        let ids = |heirs: Vec<(MemberId, NodeId)>| heirs.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(ids(heirs(&state, 1, |_| true)), [3, 2, 4]);
        assert_eq!(ids(heirs(&state, 1, |other| other != node(3))), [2, 4]);
        assert!(heirs(&GroupState { am_leader: false, ..state }, 1, |_| true).is_empty());
    }
}
