//! The next step from the members a group has to the members it should have. Pure: it looks at the leader's state
//! and says what to do; the node does it, and asks again.
//!
//! One step at a time, each of them safe to stop after. A member that lost its memory comes back under a new id
//! (see [`crate::id`]), so a restart is a replacement: the new member first receives the log as a learner; once it
//! has caught up, one joint change makes it a voter and drops the old one (Raft thesis §4.3, dissertation's joint
//! consensus). Nobody who lives is dropped before that. When all is well the leadership goes home.
//!
//! Deliberately unknown here: why these members are wanted, and how the steps are carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::id::{MemberId, NodeId};
use crate::raft::state::{GroupState, Member};

/// A member that answered its leader within this time lives.
const LIVE_WITHIN: Duration = Duration::from_secs(1);
/// Log entries a member may be behind its leader and still count as caught up. Progress figures are some
/// milliseconds old, so under load nobody is ever seen at zero.
pub const CAUGHT_UP: u64 = 1000;
/// How long the home voter must have been caught up and alive before it gets the leadership back: a node that
/// comes and goes would otherwise take its shard along each time.
pub const HOME_STEADY: Duration = Duration::from_secs(2);

/// Whom a group should consist of, according to a topology.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// All voters.
    pub voters: BTreeMap<MemberId, Member>,
    /// Who should lead, if anyone in particular; one of the voters.
    pub home: Option<MemberId>,
    /// The first member id this topology has not handed out. A group that has a member with this id or a later
    /// one is ahead of the topology, and is left alone until the newer one arrives.
    pub next_member: MemberId,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Let a new member receive the log.
    AddLearner(MemberId, Member),
    /// Make these the voters; the others leave.
    ChangeVoters(BTreeSet<MemberId>),
    /// Drop a member that only receives the log.
    RemoveLearner(MemberId),
    /// Hand over the leadership.
    TransferTo(MemberId),
    /// All is as it should be, or nothing can be done about it now.
    Nothing,
}

/// The moment's facts, as the leader has them.
pub struct Situation<'a> {
    /// The leader's member id.
    pub me: MemberId,
    /// The group as the leader sees it.
    pub state: &'a GroupState,
    /// What it should become.
    pub wanted: &'a Wanted,
    /// Nodes that don't answer, by what the bus knows.
    pub unreachable: &'a BTreeSet<NodeId>,
    /// The time of all this.
    pub now: Instant,
}

/// Since when the home voter has been fit to lead.
#[derive(Clone, Copy, Debug, Default)]
pub struct HomeWatch {
    fit_since: Option<Instant>,
}

impl HomeWatch {
    /// The next step. To be asked after each change, and at least every few hundred milliseconds while this member
    /// leads, because members die and homes become steady by mere passing of time.
    pub fn next(&mut self, at: &Situation) -> Step {
        let home = at.wanted.home.filter(|home| *home != at.me && at.leads() && at.is_fit(*home));
        match home {
            Some(_) => self.fit_since = self.fit_since.or(Some(at.now)),
            None => self.fit_since = None,
        }
        match at.change() {
            Step::Nothing => {}
            step => return step,
        }
        let steady = self.fit_since.is_some_and(|since| at.now.duration_since(since) >= HOME_STEADY);
        match home {
            Some(home) if steady => Step::TransferTo(home),
            _ => Step::Nothing,
        }
    }

    /// The home voter did not take over: it has to be steady anew before the next attempt.
    pub fn restart(&mut self) {
        self.fit_since = None;
    }
}

impl Situation<'_> {
    fn leads(&self) -> bool {
        self.state.am_leader && self.state.ready
    }

    /// The next change of members, or the transfer that must come before it.
    fn change(&self) -> Step {
        let GroupState { voters, learners, .. } = self.state;
        let stale = voters.keys().chain(learners.keys()).any(|id| *id >= self.wanted.next_member);
        if !self.leads() || self.wanted.voters.is_empty() || stale {
            return Step::Nothing;
        }
        let missing = |id: &&MemberId| !voters.contains_key(id) && !learners.contains_key(id);
        if let Some(id) = self.wanted.voters.keys().find(missing) {
            return Step::AddLearner(*id, self.wanted.voters[id].clone());
        }
        let next = self.next_voters();
        let differs = self.state.joint || next != voters.keys().copied().collect();
        if differs && self.has_live_quorum(&next) {
            return Step::ChangeVoters(next);
        }
        if let Some(id) = learners.keys().find(|id| !self.wanted.voters.contains_key(id)) {
            return Step::RemoveLearner(*id);
        }
        // A leader that is to leave goes only after somebody else leads.
        let heir = voters.keys().find(|id| self.wanted.voters.contains_key(id) && self.is_fit(**id));
        match heir {
            Some(heir) if !self.wanted.voters.contains_key(&self.me) => Step::TransferTo(*heir),
            _ => Step::Nothing,
        }
    }

    /// The wanted voters that are voters already or ready to be, and those of the others that cannot go yet.
    fn next_voters(&self) -> BTreeSet<MemberId> {
        let wanted = &self.wanted.voters;
        let is_ready = |id: &MemberId| {
            self.state.voters.contains_key(id) || (self.is_live(*id) && self.is_caught_up(*id))
        };
        let mut next: BTreeSet<MemberId> = wanted.keys().copied().filter(is_ready).collect();
        let complete = next.len() == wanted.len();
        let replaced = |gone: &Member| next.iter().any(|id| wanted[id].node == gone.node);
        let staying: Vec<MemberId> = self
            .state
            .voters
            .iter()
            .filter(|(id, _)| !wanted.contains_key(id))
            .filter(|(id, member)| **id == self.me || !(complete || replaced(member)))
            .map(|(id, _)| *id)
            .collect();
        next.extend(staying);
        next
    }

    fn has_live_quorum(&self, voters: &BTreeSet<MemberId>) -> bool {
        voters.iter().filter(|id| self.is_live(**id)).count() > voters.len() / 2
    }

    /// Whether a member could lead at once.
    fn is_fit(&self, id: MemberId) -> bool {
        let reachable = |member: &Member| !self.unreachable.contains(&member.node);
        self.state.voters.get(&id).is_some_and(reachable) && self.is_live(id) && self.is_caught_up(id)
    }

    fn is_live(&self, id: MemberId) -> bool {
        let heard = self.state.followers.get(&id).and_then(|follower| follower.heard);
        id == self.me || heard.is_some_and(|heard| self.now.saturating_duration_since(heard) < LIVE_WITHIN)
    }

    fn is_caught_up(&self, id: MemberId) -> bool {
        let matched = self.state.followers.get(&id).and_then(|follower| follower.matched);
        id == self.me
            || matched.is_some_and(|matched| matched.saturating_add(CAUGHT_UP) >= self.state.last_log)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::raft::state::Follower;

    fn member(node: u8) -> Member {
        Member { node: NodeId::from_bytes([node; 20]), addr: ([127, 0, 0, 1], u16::from(node)).into() }
    }

    /// A group led by member 1, and the world around it: which members live, and how far each is.
    struct World {
        state: GroupState,
        wanted: Wanted,
        unreachable: BTreeSet<NodeId>,
        now: Instant,
        me: MemberId,
    }

    impl World {
        /// Members 1..=n on nodes 1..=n, all voters, alive and wanted.
        fn of(n: u8) -> World {
            let voters: BTreeMap<MemberId, Member> = (1..=n).map(|n| (n.into(), member(n))).collect();
            let wanted = Wanted { voters: voters.clone(), home: None, next_member: u64::from(n) + 1 };
            let state = GroupState {
                am_leader: true,
                ready: true,
                last_log: 10_000,
                voters,
                ..GroupState::default()
            };
            let (unreachable, now) = (BTreeSet::new(), Instant::now());
            let mut world = World { state, wanted, unreachable, now, me: 1 };
            (2..=n.into()).for_each(|id| world.follows(id, 10_000));
            world
        }

        fn follows(&mut self, id: MemberId, matched: u64) {
            let follower = Follower { matched: Some(matched), heard: Some(self.now) };
            self.state.followers.insert(id, follower);
        }

        fn dies(&mut self, id: MemberId) {
            self.state.followers.insert(id, Follower { matched: Some(10_000), heard: None });
        }

        /// A node's member `old` lost its memory and comes back as `new`.
        fn restarts(&mut self, old: MemberId, new: MemberId) {
            self.dies(old);
            let member = self.wanted.voters.remove(&old).unwrap();
            self.wanted.voters.insert(new, member);
            self.wanted.next_member = self.wanted.next_member.max(new + 1);
        }

        fn situation(&self) -> Situation<'_> {
            let World { state, wanted, unreachable, now, me } = self;
            Situation { me: *me, state, wanted, unreachable, now: *now }
        }

        fn step(&self) -> Step {
            self.situation().change()
        }

        fn perform(&mut self, step: &Step) {
            let GroupState { voters, learners, .. } = &mut self.state;
            match step {
                Step::AddLearner(id, member) => {
                    learners.insert(*id, member.clone());
                }
                Step::RemoveLearner(id) => {
                    learners.remove(id);
                }
                Step::ChangeVoters(next) => {
                    let mut all = std::mem::take(voters);
                    all.append(learners);
                    for (id, member) in all {
                        let (was_learner, stays) = (!self.state.voters.contains_key(&id), next.contains(&id));
                        match stays {
                            true => self.state.voters.insert(id, member),
                            false if was_learner && self.wanted.voters.contains_key(&id) => {
                                self.state.learners.insert(id, member)
                            }
                            false => None,
                        };
                    }
                }
                Step::TransferTo(heir) => {
                    self.follows(self.me, 10_000);
                    self.me = *heir;
                }
                Step::Nothing => {}
            }
        }
    }

    #[test]
    fn a_restarted_member_is_replaced_by_its_successor_in_one_change() {
        let mut world = World::of(3);
        assert_eq!(world.step(), Step::Nothing);
        world.restarts(3, 4);
        let add = Step::AddLearner(4, member(3));
        assert_eq!(world.step(), add);
        world.perform(&add);
        assert_eq!(world.step(), Step::Nothing, "it has not caught up");
        world.follows(4, 10_000 - CAUGHT_UP - 1);
        assert_eq!(world.step(), Step::Nothing, "it has not caught up");
        world.follows(4, 10_000 - CAUGHT_UP);
        let change = Step::ChangeVoters(BTreeSet::from([1, 2, 4]));
        assert_eq!(world.step(), change);
        world.perform(&change);
        assert_eq!(world.step(), Step::Nothing);
    }

    #[test]
    fn one_that_restarts_twice_leaves_no_learner_behind() {
        let mut world = World::of(3);
        world.restarts(3, 4);
        world.perform(&Step::AddLearner(4, member(3)));
        world.restarts(4, 5);
        world.perform(&Step::AddLearner(5, member(3)));
        assert_eq!(world.step(), Step::RemoveLearner(4));
        world.perform(&Step::RemoveLearner(4));
        world.follows(5, 10_000);
        assert_eq!(world.step(), Step::ChangeVoters(BTreeSet::from([1, 2, 5])));
    }

    #[test]
    fn a_voter_without_a_successor_stays_until_all_wanted_ones_are_there() {
        let mut world = World::of(3);
        world.wanted.voters.remove(&3);
        world.wanted.voters.insert(4, member(4));
        world.wanted.next_member = 5;
        world.perform(&Step::AddLearner(4, member(4)));
        assert_eq!(world.step(), Step::Nothing);
        world.follows(4, 10_000);
        assert_eq!(world.step(), Step::ChangeVoters(BTreeSet::from([1, 2, 4])));
    }

    #[test]
    fn a_leader_that_is_to_leave_hands_over_first() {
        let mut world = World::of(3);
        world.wanted.voters.remove(&1);
        assert_eq!(world.step(), Step::TransferTo(2));
        world.dies(2);
        assert_eq!(world.step(), Step::TransferTo(3));
        world.me = 3;
        world.dies(1);
        world.follows(2, 10_000);
        assert_eq!(world.step(), Step::ChangeVoters(BTreeSet::from([2, 3])));
    }

    #[test]
    fn an_old_topology_changes_nothing() {
        let mut world = World::of(3);
        world.restarts(3, 4);
        let old = World::of(3).wanted;
        world.perform(&Step::AddLearner(4, member(3)));
        world.follows(4, 10_000);
        world.perform(&Step::ChangeVoters(BTreeSet::from([1, 2, 4])));
        world.wanted = old;
        assert_eq!(world.step(), Step::Nothing);
        world.wanted = Wanted::default();
        assert_eq!(world.step(), Step::Nothing, "no topology at all");
    }

    #[test]
    fn a_change_that_a_former_leader_left_half_done_is_ended() {
        let mut world = World::of(3);
        world.state.joint = true;
        assert_eq!(world.step(), Step::ChangeVoters(BTreeSet::from([1, 2, 3])));
    }

    #[test]
    fn only_a_ready_leader_decides() {
        let mut world = World::of(3);
        world.restarts(3, 4);
        world.state.ready = false;
        assert_eq!(world.step(), Step::Nothing);
    }

    #[test]
    fn leadership_goes_home_when_home_has_been_steady() {
        let mut world = World::of(3);
        world.wanted.home = Some(2);
        let mut watch = HomeWatch::default();
        let start = world.now;
        assert_eq!(watch.next(&world.situation()), Step::Nothing, "not yet steady");
        world.now = start + HOME_STEADY - Duration::from_millis(1);
        world.follows(2, 10_000);
        assert_eq!(watch.next(&world.situation()), Step::Nothing, "not yet steady");
        world.now = start + HOME_STEADY;
        assert_eq!(watch.next(&world.situation()), Step::TransferTo(2));
        watch.restart();
        assert_eq!(watch.next(&world.situation()), Step::Nothing, "once more from the start");

        world.now += HOME_STEADY;
        world.follows(2, 10_000);
        world.unreachable.insert(member(2).node);
        assert_eq!(watch.next(&world.situation()), Step::Nothing, "it does not answer");
        world.unreachable.clear();
        assert_eq!(watch.next(&world.situation()), Step::Nothing, "it has just come back");
        world.now += HOME_STEADY;
        world.follows(2, 10_000 - CAUGHT_UP - 1);
        assert_eq!(watch.next(&world.situation()), Step::Nothing, "it lags");
        world.me = 2;
        world.follows(1, 10_000);
        assert_eq!(watch.next(&world.situation()), Step::Nothing, "it leads already");
    }

    /// What one node did: nothing, or its member restarted (perhaps again), alive and caught up or not; or it left
    /// and another took its place.
    #[derive(Clone, Copy, Debug)]
    enum Fate {
        Lives,
        Dead,
        Restarted { caught_up: bool },
        Replaced { caught_up: bool },
    }

    fn fate() -> impl Strategy<Value = Fate> {
        prop_oneof![
            Just(Fate::Lives),
            Just(Fate::Dead),
            any::<bool>().prop_map(|caught_up| Fate::Restarted { caught_up }),
            any::<bool>().prop_map(|caught_up| Fate::Replaced { caught_up }),
        ]
    }

    /// A group of the leader and one follower a fate, the successors' ids, and which of them are caught up.
    fn world_after(fates: &[Fate]) -> World {
        let mut world = World::of(1 + fates.len() as u8);
        let mut fresh = world.wanted.next_member;
        for (old, fate) in (2..).zip(fates) {
            let caught_up = match *fate {
                Fate::Lives => continue,
                Fate::Dead => {
                    world.dies(old);
                    continue;
                }
                Fate::Restarted { caught_up } => {
                    world.restarts(old, fresh);
                    caught_up
                }
                Fate::Replaced { caught_up } => {
                    world.wanted.voters.remove(&old);
                    world.wanted.voters.insert(fresh, member(100 + old as u8));
                    caught_up
                }
            };
            if caught_up {
                world.follows(fresh, 10_000);
            }
            fresh += 1;
        }
        world.wanted.next_member = fresh;
        world
    }

    fn live(world: &World, ids: &BTreeSet<MemberId>) -> usize {
        ids.iter().filter(|id| world.situation().is_live(**id)).count()
    }

    proptest! {
        #[test]
        fn steps_end_keep_a_live_quorum_and_drop_nobody_who_is_needed(
            fates in prop::collection::vec(fate(), 0..6)
        ) {
            let mut world = world_after(&fates);
            let mut steps = 0;
            loop {
                let step = world.step();
                let before: BTreeSet<MemberId> = world.state.voters.keys().copied().collect();
                if let Step::ChangeVoters(next) = &step {
                    prop_assert!(live(&world, next) * 2 > next.len(), "no live quorum in {next:?}");
                    prop_assert!(next.contains(&world.me));
                    prop_assert!(live(&world, next) >= live(&world, &before).min(world.wanted.voters.len()));
                    for dropped in before.difference(next) {
                        prop_assert!(!world.wanted.voters.contains_key(dropped));
                    }
                }
                if step == Step::Nothing {
                    break;
                }
                world.perform(&step);
                steps += 1;
                prop_assert!(steps < 50, "no end");
            }
            // Once every wanted member has caught up, the group becomes exactly what is wanted.
            let wanted: Vec<MemberId> = world.wanted.voters.keys().copied().collect();
            wanted.iter().for_each(|id| world.follows(*id, 10_000));
            for _ in 0..50 {
                let step = world.step();
                world.perform(&step);
            }
            prop_assert_eq!(world.state.voters.keys().copied().collect::<Vec<_>>(), wanted);
            prop_assert!(world.state.learners.is_empty());
        }
    }
}
