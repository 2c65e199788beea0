//! Watches this node's member of one shard: what to route by, and the story for the log.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::id::{GroupId, NodeId};
use crate::node::cluster::outlook::Outlook;
use crate::raft::group::Group;
use crate::raft::state::{GroupState, Timing};
use crate::topology::Topology;
use crate::topology::view::Observed;

/// Publishes what the member sees until it is shut down.
pub async fn observe(group: Group, outlook: Arc<Outlook>, timing: Timing) {
    let (mut state, lease, view) = (group.state(), group.lease(), outlook.view());
    let (mut views, mut lapse, mut chronicle) =
        (outlook.changes(), Lapse::default(), Chronicle::new(group.id()));
    loop {
        let seen = view.load_full();
        let (term, leader, leads) = {
            let state = state.borrow_and_update();
            (state.term, living_leader(&state, &seen.topology, group.id()), state.am_leader && state.ready)
        };
        let now = Instant::now();
        let lapsed = lapse.is_over(!leads || lease.is_valid(now), now, timing.election_max);
        outlook.observe(group.id(), Some(Observed { term, leader, serving: leads && !lapsed }));
        if let Some(line) = chronicle.note(term, leader, seen.me, &seen.unreachable, now) {
            tracing::info!("{line}");
        }
        tokio::select! {
            biased;
            changed = state.changed() => if changed.is_err() { return },
            changed = views.changed() => if changed.is_err() { return },
            _ = sleep(timing.heartbeat), if leads => {}
        }
    }
}

/// The leader, unless its node has come back under a new member id: then it is dead, though its followers have not
/// noticed and its node answers.
fn living_leader(state: &GroupState, topology: &Topology, group: GroupId) -> Option<NodeId> {
    let (member, node) = state.leader?;
    let current = topology.shards.get(&group).and_then(|shard| shard.copies.get(&node));
    current.is_none_or(|current| *current == member).then_some(node)
}

/// How long a leader has been without its lease. A short gap (just elected, a late heartbeat) is bridged by whoever
/// waits for the lease; after an election timeout a quorum is gone, and requests are better parked.
#[derive(Default)]
struct Lapse {
    since: Option<Instant>,
}

impl Lapse {
    fn is_over(&mut self, valid: bool, now: Instant, limit: Duration) -> bool {
        match valid {
            true => self.since = None,
            false => self.since = self.since.or(Some(now)),
        }
        self.since.is_some_and(|since| now.duration_since(since) > limit)
    }
}

/// Who led, and since when nobody does.
struct Chronicle {
    group: GroupId,
    last: Option<NodeId>,
    last_term: u64,
    lost: Option<Instant>,
}

impl Chronicle {
    fn new(group: GroupId) -> Chronicle {
        Chronicle { group, last: None, last_term: 0, lost: None }
    }

    /// The line to log, if leadership changed hands.
    fn note(
        &mut self,
        term: u64,
        leader: Option<NodeId>,
        me: NodeId,
        silent: &BTreeSet<NodeId>,
        now: Instant,
    ) -> Option<String> {
        let Some(leader) = leader.filter(|leader| !silent.contains(leader)) else {
            self.lost = self.lost.or(Some(now));
            return None;
        };
        let lost = self.lost.take();
        let changed = (self.last, self.last_term) != (Some(leader), term);
        let former = self.last.replace(leader);
        self.last_term = term;
        if !changed {
            return None;
        }
        let who = if leader == me { "this node".into() } else { format!("node {}", leader.short()) };
        let was = match former {
            Some(former) if former != leader && former == me => ", was this node".into(),
            Some(former) if former != leader => format!(", was {}", former.short()),
            _ => String::new(),
        };
        let gap = lost.filter(|_| former.is_some()).map(|lost| now.duration_since(lost).as_millis());
        let gap = gap.map(|ms| format!("; {ms} ms without a leader")).unwrap_or_default();
        Some(format!("{}: {who} leads now (term {term}){was}{gap}", self.group))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::topology::Shard;

    #[test]
    fn a_lease_may_be_away_for_an_election_timeout() {
        let (mut lapse, start, limit) = (Lapse::default(), Instant::now(), Duration::from_millis(300));
        let at = |ms| start + Duration::from_millis(ms);
        assert!(!lapse.is_over(false, at(0), limit));
        assert!(!lapse.is_over(false, at(300), limit));
        assert!(lapse.is_over(false, at(301), limit));
        assert!(!lapse.is_over(true, at(302), limit));
        assert!(!lapse.is_over(false, at(303), limit));
    }

    #[test]
    fn a_leader_whose_node_came_back_as_another_member_is_none() {
        let [home, gone] = [1, 2].map(|n| NodeId::from_bytes([n; 20]));
        let copies = BTreeMap::from([(home, 7)]);
        let shard = Shard { home, copies, founders: BTreeMap::new(), leadership: None };
        let topology = Topology { shards: BTreeMap::from([(GroupId(1), shard)]), ..Topology::default() };
        let led_by = |leader| {
            let state = GroupState { leader, ..GroupState::default() };
            living_leader(&state, &topology, GroupId(1))
        };
        assert_eq!(led_by(Some((7, home))), Some(home));
        assert_eq!(led_by(Some((4, home))), None);
        assert_eq!(led_by(Some((5, gone))), Some(gone), "it is to leave, and still leads");
        assert_eq!(led_by(None), None);
    }

    #[test]
    fn the_story_of_a_failover_is_one_line() {
        let [me, other] = [1, 2].map(|n| NodeId::from_bytes([n; 20]));
        let (mut chronicle, start) = (Chronicle::new(GroupId(2)), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let (nobody, silent) = (BTreeSet::new(), BTreeSet::from([other]));
        assert_eq!(chronicle.note(0, None, me, &nobody, at(0)), None);
        let first = chronicle.note(4, Some(other), me, &nobody, at(10)).unwrap();
        assert_eq!(first, "shard-2: node 02020202 leads now (term 4)");
        assert_eq!(chronicle.note(4, Some(other), me, &nobody, at(20)), None);
        assert_eq!(chronicle.note(4, Some(other), me, &silent, at(100)), None);
        assert_eq!(chronicle.note(5, None, me, &silent, at(200)), None);
        let line = chronicle.note(5, Some(me), me, &silent, at(412)).unwrap();
        assert_eq!(line, "shard-2: this node leads now (term 5), was 02020202; 312 ms without a leader");
    }
}
