//! When a follower stands for election before its timer would let it: as soon as its leader's lease has run out, if the
//! leader's node is known not to answer.
//!
//! The random wait that Raft puts behind the lease keeps followers from standing all at once on mere silence. A broken
//! connection says more: the system closes a killed process's connections at once and refuses new ones. Then followers
//! stand in turn, the one after the leader in the ring of member ids first. It is a hint and no more: the lease is
//! waited for, voters ask nothing of this, and a leader that still reaches its followers renews its lease with them.

use std::time::Duration;

use tokio::time::Instant;

use crate::id::{MemberId, NodeId};
use crate::raft::state::GroupState;

/// The others' leases may have begun a little later than this one's.
const MARGIN: Duration = Duration::from_millis(5);
/// Between the turns of two followers: time for an election.
const TURN: Duration = Duration::from_millis(60);
/// Between two attempts of the same one.
const AGAIN: Duration = Duration::from_millis(120);

/// One member's part in its leader's succession.
#[derive(Debug, Default)]
pub struct Succession {
    link: Option<Link>,
    broke: Option<Instant>,
    tried: Option<Instant>,
}

/// What the bus knows about the leader's node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The node.
    pub node: NodeId,
    /// How often it was connected to.
    pub connections: u64,
    /// Whether it answers.
    pub answers: bool,
}

impl Succession {
    /// Notes how the leader's node is connected now. A process that was killed and started again answers, over another
    /// connection than before.
    pub fn look(&mut self, link: Option<Link>, now: Instant) {
        let before = self.link.filter(|before| link.is_some_and(|link| link.node == before.node));
        self.link = link;
        let Some(link) = link else { return };
        let is_another = before.is_some_and(|before| before.connections != link.connections);
        let fell_silent = !link.answers && before.is_none_or(|before| before.answers);
        if is_another || fell_silent {
            self.broke = Some(now);
        }
    }

    /// When this member should stand, if its leader's last message was taken at `heard`. `None`: its timer is enough.
    pub fn due(&self, me: MemberId, state: &GroupState, heard: Instant, lease: Duration) -> Option<Instant> {
        let (leader, node) = state.leader?;
        let link = self.link.filter(|link| link.node == node)?;
        let broke = self.broke.filter(|broke| !link.answers || *broke >= heard)?;
        if state.am_leader || !state.voters.contains_key(&me) {
            return None;
        }
        let behind = |member: &MemberId| member.wrapping_sub(leader);
        let before_me = state.voters.keys().filter(|other| **other != leader && behind(other) < behind(&me));
        let turn = broke.max(heard + lease) + MARGIN + TURN * before_me.count() as u32;
        Some(self.tried.map_or(turn, |tried| turn.max(tried + AGAIN)))
    }

    /// It stands now.
    pub fn note(&mut self, now: Instant) {
        self.tried = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::raft::state::Member;

    const LEASE: Duration = Duration::from_millis(300);

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 20])
    }

    /// Members 4, 5 and 6 on nodes 4, 5 and 6; 5 leads.
    fn state() -> GroupState {
        let member = |n: u8| (u64::from(n), Member { node: node(n), addr: ([127, 0, 0, 1], 1).into() });
        let voters = BTreeMap::from([member(4), member(5), member(6)]);
        GroupState { leader: Some((5, node(5))), voters, ..GroupState::default() }
    }

    fn link(connections: u64, answers: bool) -> Option<Link> {
        Some(Link { node: node(5), connections, answers })
    }

    fn looking(link: Option<Link>, now: Instant) -> Succession {
        let mut succession = Succession::default();
        succession.look(link, now);
        succession
    }

    #[test]
    fn followers_of_a_dead_leader_stand_in_turn_once_its_lease_is_over() {
        let heard = Instant::now();
        let succession = looking(link(1, false), heard);
        let due = |me| succession.due(me, &state(), heard, LEASE);
        assert_eq!(due(6), Some(heard + LEASE + MARGIN));
        assert_eq!(due(4), Some(heard + LEASE + MARGIN + TURN));
    }

    #[test]
    fn nobody_hurries_while_the_leader_answers_or_without_a_vote() {
        let heard = Instant::now();
        let (answers, silent) = (looking(link(1, true), heard), looking(link(1, false), heard));
        assert_eq!(answers.due(6, &state(), heard, LEASE), None);
        assert_eq!(silent.due(7, &state(), heard, LEASE), None, "not a voter");
        let leads = GroupState { am_leader: true, ..state() };
        assert_eq!(silent.due(5, &leads, heard, LEASE), None);
        let nobody = GroupState { leader: None, ..state() };
        assert_eq!(silent.due(6, &nobody, heard, LEASE), None);
    }

    #[test]
    fn a_new_connection_is_a_new_process_until_the_leader_is_heard_again() {
        let heard = Instant::now();
        let mut succession = looking(link(1, true), heard);
        let broke = heard + Duration::from_millis(20);
        succession.look(link(2, true), broke);
        assert_eq!(succession.due(6, &state(), heard, LEASE), Some(heard + LEASE + MARGIN));
        assert_eq!(succession.due(6, &state(), broke + TURN, LEASE), None);
    }

    #[test]
    fn a_failed_attempt_is_repeated_a_little_later() {
        let heard = Instant::now();
        let mut succession = looking(link(1, false), heard);
        let first = heard + LEASE + MARGIN;
        succession.note(first);
        assert_eq!(succession.due(6, &state(), heard, LEASE), Some(first + AGAIN));
        let heard = first + LEASE;
        let next = succession.due(6, &state(), heard, LEASE);
        assert_eq!(next, Some(heard + LEASE + MARGIN), "another leader has been heard meanwhile");
    }
}
