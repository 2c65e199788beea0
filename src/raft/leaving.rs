//! Whether a group can do without a member that is about to stop.
//!
//! What is written needs a majority, and the last one that makes a majority should not go. A copy that was cut off from
//! its leader a moment ago, or has just been started, may lack the log for a while; only its leader knows. So before a
//! member stops it asks the leader, and stops when the others have the log without it. That makes a rolling restart
//! unnoticeable however fast it goes.
//!
//! Deliberately unknown here: how long anybody waits for that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::{RaftMetrics, ServerState};
use tokio::time::timeout;

use crate::bus::call::{Lane, Peer};
use crate::id::{MemberId, NodeId};
use crate::raft::client::Client;
use crate::raft::group::Group;
use crate::raft::inside::Inside;
use crate::raft::state::Member;
use crate::raft::types::TypeConfig;
use crate::raft::wire::{Answer, Message};

/// The leader waits so long for the others to take what is in the log; then it may be asked again.
const PATIENCE: Duration = Duration::from_millis(300);
/// Its answer comes within this, or never.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(600);

impl Group {
    /// Whether the group goes on at once if this member stops now: the other voters that have the whole log are a
    /// majority, by what the leader says. Waits a fraction of a second for that. True for one that doesn't vote.
    pub async fn is_spared(&self) -> bool {
        let (leader, peer) = {
            let state = self.0.state.borrow();
            if !state.voters.contains_key(&self.member()) {
                return true;
            }
            let Some((leader, node)) = state.leader else { return false };
            let addr = state.voters.get(&leader).map(|member| member.addr);
            (leader, addr.map(|addr| Peer { node: Some(node), addr }))
        };
        if leader == self.member() {
            return self.0.spares(leader).await;
        }
        let Some(peer) = peer else { return false };
        let client = Client { outside: self.0.outside.clone(), target: leader, peer, lane: Lane::Control };
        let answer = client.call(Lane::Control, &Message::Leave(self.member()), ANSWER_TIMEOUT).await;
        matches!(answer, Ok(Answer::Accepted))
    }

    /// Whether the other voters on nodes that answer could be a majority at all.
    pub fn has_others(&self, answers: impl Fn(NodeId) -> bool) -> bool {
        others_suffice(&self.0.state.borrow().voters, self.member(), answers)
    }
}

impl Inside {
    /// Whether the voters but `leaving` have, within [`PATIENCE`], all that is in the log now; false if this member
    /// doesn't lead.
    pub async fn spares(&self, leaving: MemberId) -> bool {
        let mut metrics = self.raft.metrics();
        let end = metrics.borrow_watched().last_log_index;
        let leads = |metrics: &RaftMetrics<TypeConfig>| metrics.state == ServerState::Leader;
        let me = self.options.member;
        let spared = |metrics: &RaftMetrics<TypeConfig>| {
            let matched = metrics.replication.iter().flatten();
            let matched = matched.map(|(id, matched)| (*id, matched.as_ref().map(|id| id.index)));
            let reached: BTreeMap<MemberId, Option<u64>> = matched.chain([(me, end)]).collect();
            let configs = metrics.membership_config.membership().get_joint_config();
            others_have(configs, &reached, leaving, end)
        };
        let waited = metrics.wait_until(|metrics| !leads(metrics) || spared(metrics));
        timeout(PATIENCE, waited).await.is_ok() && leads(&self.raft.metrics().borrow_watched())
    }
}

/// Whether the voters but `leaving` that have the log up to `end` are a majority of each of `configs`: two while the
/// voters change, one otherwise.
fn others_have(
    configs: &[BTreeSet<MemberId>],
    reached: &BTreeMap<MemberId, Option<u64>>,
    leaving: MemberId,
    end: Option<u64>,
) -> bool {
    let has = |id: &&MemberId| **id != leaving && reached.get(id).is_some_and(|reached| *reached >= end);
    configs.iter().all(|voters| voters.iter().filter(has).count() > voters.len() / 2)
}

fn others_suffice(
    voters: &BTreeMap<MemberId, Member>,
    leaving: MemberId,
    answers: impl Fn(NodeId) -> bool,
) -> bool {
    let others = voters.iter().filter(|(id, member)| **id != leaving && answers(member.node));
    others.count() > voters.len() / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(of: [u64; 3]) -> BTreeMap<MemberId, Option<u64>> {
        (1..).zip(of.map(Some)).collect()
    }

    #[test]
    fn one_is_spared_when_the_others_are_a_majority_that_has_the_log() {
        let configs = [BTreeSet::from([1, 2, 3])];
        let spared = |of, leaving| others_have(&configs, &reached(of), leaving, Some(10));
        assert!(spared([10, 10, 10], 3));
        assert!(spared([10, 11, 4], 3), "its own log counts for nothing");
        assert!(!spared([10, 9, 10], 3), "2 lacks an entry");
        assert!(spared([10, 9, 10], 2));
        assert!(!spared([10, 10, 9], 1), "a leader that leaves");
        assert!(spared([9, 10, 10], 4), "not a voter");
        assert!(!others_have(&configs, &BTreeMap::from([(1, Some(10)), (2, None)]), 3, Some(10)));
    }

    #[test]
    fn while_voters_change_both_majorities_count() {
        let configs = [BTreeSet::from([1, 2, 3]), BTreeSet::from([1, 2, 4])];
        let all = BTreeMap::from([(1, Some(10)), (2, Some(10)), (3, Some(10)), (4, Some(3))]);
        assert!(others_have(&configs, &all, 3, Some(10)));
        assert!(!others_have(&configs, &all, 2, Some(10)), "the second lacks 4");
    }

    #[test]
    fn whoever_does_not_answer_is_not_waited_for() {
        let node = |n: u8| NodeId::from_bytes([n; 20]);
        let member = |n: u8| (u64::from(n), Member { node: node(n), addr: ([127, 0, 0, 1], 1).into() });
        let three = BTreeMap::from([member(1), member(2), member(3)]);
        assert!(others_suffice(&three, 3, |_| true));
        assert!(!others_suffice(&three, 3, |other| other == node(1)));
        assert!(!others_suffice(&BTreeMap::from([member(1), member(2)]), 2, |_| true));
    }
}
