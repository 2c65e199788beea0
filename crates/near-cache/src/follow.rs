//! Which shard's changes are listened to at which node: decided without I/O and without a clock.
//!
//! A node streams the shards that it has copies of. With more nodes than copies no node has all, so several are listened
//! to: few, and of each shard exactly *one*, for what is said of a shard must come from one stream to leave nothing out.
//! What another stream says of it, because its node has a copy too, is passed over.
//!
//! A shard goes over to another node when the one it was with is lost, leaves something out, does not serve it any more, or
//! has had nothing to vouch with for too long. It goes over with the other's reply to INVALIDATIONS SUBSCRIBE, from the
//! position where the cache stands; until then the old stream counts. A node that would have to drop the shard's entries
//! (its log does not reach back so far) is taken only if all have been asked and none can go on.
//!
//! Who has what is learned by asking: the nodes are asked for their logs (INVALIDATIONS STATUS) now and then, and at once
//! when a shard is nowhere to be found. Whatever fails is left alone for a while that grows.
//!
//! Times are durations since an origin of the caller's choice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use slotcast_wire::invalidation::Push;
use slotcast_wire::position::Position;

use crate::l1::L1;
use crate::pause::Pause;
use crate::told::{Gap, Start, Subscribed};

mod decide;

/// Nodes known; more are not listened to.
const MAX_NODES: usize = 256;
/// Shards followed; what belongs to more isn't cached.
const MAX_SHARDS: usize = 1024;
/// A node that does not answer is left alone for this at most.
const LONGEST_SHUT: Duration = Duration::from_millis(500);
/// And a shard at a node that does not serve it as it should.
const LONGEST_AVOIDED: Duration = Duration::from_secs(2);
/// All nodes are asked what they have about so often.
const ASKED_EVERY: Duration = Duration::from_secs(5);

/// A node's address, as the cluster names it.
pub type Node = Arc<str>;

/// What a node has of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The history; 0: it knows none yet.
    pub lineage: u64,
    /// How far back it remembers changes.
    pub floor: u64,
}

impl Offer {
    fn goes_on(self, at: Position) -> bool {
        self.lineage == at.lineage && self.floor <= at.index
    }
}

/// What is to be done. Each is answered by a call of [`Follow`]'s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Find out which nodes there are: [`Follow::located`].
    Locate,
    /// Ask this one which shards it has: [`Follow::offered`].
    Ask(Node),
    /// Subscribe there, from where the cache stands in these shards, in place of what was asked for before:
    /// [`Follow::answered`] or [`Follow::lost`].
    Subscribe(Node, Vec<u32>),
    /// Close the connection; nothing is to be called.
    Leave(Node),
}

#[derive(Debug)]
struct Known {
    offers: BTreeMap<u32, Offer>,
    rank: u64,
    /// When it last said what it has, and is to be asked again; none: never.
    told: Option<(Duration, Duration)>,
    asking: bool,
    shut: Pause,
    listened: bool,
    pending: Option<Pending>,
}

/// A subscription that isn't answered yet.
#[derive(Debug)]
struct Pending {
    /// Each with whether it may begin anew there.
    shards: BTreeMap<u32, bool>,
    since: Duration,
}

#[derive(Debug, Default)]
struct Followed {
    at: Option<Node>,
    since: Duration,
    /// It is with no node, or with one that does not vouch for it.
    needy: Option<Duration>,
    avoided: BTreeMap<Node, Pause>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Follow {
    /// A shard that was vouched for longer ago is taken elsewhere.
    patience: Duration,
    nodes: BTreeMap<Node, Known>,
    shards: BTreeMap<u32, Followed>,
    /// When it was found out, and is to be again.
    located: Option<(Duration, Duration)>,
    locating: bool,
    search: Duration,
    changed: Duration,
    random: SmallRng,
}

impl Follow {
    /// Of nothing yet.
    pub fn new(patience: Duration, seed: u64) -> Self {
        Self {
            patience,
            nodes: BTreeMap::new(),
            shards: BTreeMap::new(),
            located: None,
            locating: false,
            search: Duration::ZERO,
            changed: Duration::ZERO,
            random: SmallRng::seed_from_u64(seed),
        }
    }

    /// Where nodes may be.
    pub fn located(&mut self, nodes: Vec<Node>, now: Duration) {
        (self.located, self.locating) = (Some((now, now + ASKED_EVERY)), false);
        self.nodes.retain(|node, known| {
            nodes.contains(node) || known.listened || known.pending.is_some() || known.asking
        });
        for node in nodes {
            if self.nodes.len() < MAX_NODES && !self.nodes.contains_key(&node) {
                let (offers, shut) = (BTreeMap::new(), Pause::default());
                let (rank, listened, asking) = (self.random.random(), false, false);
                let known = Known { offers, rank, told: None, asking, shut, listened, pending: None };
                self.nodes.insert(node, known);
            }
        }
    }

    /// What a node has; none: it did not answer.
    pub fn offered(&mut self, node: &Node, offers: Option<Vec<(u32, Offer)>>, now: Duration) {
        let Some(known) = self.nodes.get_mut(node) else { return };
        known.asking = false;
        let Some(offers) = offers else { return known.shut.fail(now, LONGEST_SHUT, &mut self.random) };
        let again = now + ASKED_EVERY.mul_f64(self.random.random_range(0.5..=1.0));
        known.told = Some((now, again));
        known.offers = offers.into_iter().collect();
        let shards: Vec<u32> = known.offers.keys().copied().collect();
        shards.into_iter().for_each(|shard| self.heard_of(shard, now));
    }

    /// There is a shard of this number.
    pub fn heard_of(&mut self, shard: u32, now: Duration) {
        if self.shards.len() < MAX_SHARDS || self.shards.contains_key(&shard) {
            let anew = || Followed { since: now, ..Followed::default() };
            self.shards.entry(shard).or_insert_with(anew);
        }
    }

    /// How a node's subscription begins, of each shard of the cluster; none: it does not serve it. What was asked for
    /// goes over to this node and is told to the cache; how each of them began is returned.
    pub fn answered(
        &mut self,
        l1: &L1,
        node: &Node,
        begun: &[(u32, Option<Subscribed>)],
        now: Duration,
    ) -> Vec<Start> {
        let Some(known) = self.nodes.get_mut(node) else { return Vec::new() };
        known.listened = true;
        let wanted = known.pending.take().map(|pending| pending.shards).unwrap_or_default();
        self.changed = now;
        let mut starts = Vec::new();
        for (shard, subscribed) in begun {
            self.heard_of(*shard, now);
            let Some(anew) = wanted.get(shard) else { continue };
            match subscribed {
                Some(subscribed) if *anew || subscribed.start != Start::Flush => {
                    self.take_over(node, *shard, now);
                    l1.subscribed(subscribed);
                    starts.push(subscribed.start);
                }
                Some(Subscribed { position, .. }) => {
                    // It remembers less than it did when it was asked: perhaps another remembers more.
                    self.learn(
                        node,
                        *shard,
                        Some(Offer { lineage: position.lineage, floor: position.index }),
                    );
                    self.missed(node, *shard, now);
                }
                None => {
                    self.learn(node, *shard, None);
                    self.missed(node, *shard, now);
                }
            }
        }
        // A node that has just started may not name a shard that it had before.
        for shard in wanted.into_keys().filter(|shard| !begun.iter().any(|(named, _)| named == shard)) {
            self.learn(node, shard, None);
            self.missed(node, shard, now);
        }
        starts
    }

    fn learn(&mut self, node: &Node, shard: u32, offer: Option<Offer>) {
        let Some(known) = self.nodes.get_mut(node) else { return };
        match offer {
            Some(offer) => drop(known.offers.insert(shard, offer)),
            None => drop(known.offers.remove(&shard)),
        }
    }

    fn take_over(&mut self, node: &Node, shard: u32, now: Duration) {
        let Some(followed) = self.shards.get_mut(&shard) else { return };
        (followed.at, followed.since, followed.needy) = (Some(node.clone()), now, None);
        for known in self.nodes.values_mut() {
            if let Some(pending) = &mut known.pending {
                pending.shards.remove(&shard);
            }
        }
    }

    /// The connection to a node has ended, or could not be made.
    pub fn lost(&mut self, node: &Node, now: Duration) {
        let Some(known) = self.nodes.get_mut(node) else { return };
        (known.listened, known.pending) = (false, None);
        known.shut.fail(now, LONGEST_SHUT, &mut self.random);
        for followed in self.shards.values_mut().filter(|followed| followed.at.as_ref() == Some(node)) {
            followed.at = None;
        }
        self.changed = now;
    }

    /// A push of a node's: the cache is told what it says of the shards that are followed there.
    pub fn take(&mut self, l1: &L1, node: &Node, push: &Push, asked_at: Duration, now: Duration) {
        match push {
            Push::Heartbeat(positions) => {
                for (to, age) in positions {
                    self.take_one((node, to.shard), now, || l1.vouched(*to, *age, Some(asked_at)));
                }
            }
            Push::Keys { to, .. } | Push::Slots { to, .. } => {
                self.take_one((node, to.shard), now, || l1.take(push, Some(asked_at)));
            }
        }
    }

    fn take_one(
        &mut self,
        (node, shard): (&Node, u32),
        now: Duration,
        take: impl FnOnce() -> Result<(), Gap>,
    ) {
        if self.follows(node, shard) && take().is_err() {
            self.missed(node, shard, now);
        }
    }

    fn follows(&self, node: &Node, shard: u32) -> bool {
        self.shards.get(&shard).is_some_and(|followed| followed.at.as_ref() == Some(node))
    }

    /// How many shards are known.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// The shards that are followed at a node.
    pub fn followed_at<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = u32> + 'a {
        let there = move |(_, followed): &(&u32, &Followed)| followed.at.as_ref() == Some(node);
        self.shards.iter().filter(there).map(|(shard, _)| *shard)
    }

    /// A node does not serve a shard as it should: elsewhere, or later.
    fn missed(&mut self, node: &Node, shard: u32, now: Duration) {
        self.avoid(node, shard, now);
        if let Some(followed) = self.shards.get_mut(&shard).filter(|one| one.at.as_ref() == Some(node)) {
            followed.at = None;
        }
    }

    fn avoid(&mut self, node: &Node, shard: u32, now: Duration) {
        let Some(followed) = self.shards.get_mut(&shard) else { return };
        let long_ago = now.saturating_sub(LONGEST_AVOIDED * 2);
        followed.avoided.retain(|_, pause| !pause.is_over(long_ago));
        let pause = followed.avoided.entry(node.clone()).or_default();
        pause.fail(now, LONGEST_AVOIDED, &mut self.random);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;
    use slotcast_wire::invalidation::Reason;

    use super::*;
    use crate::follow::Act::{Ask, Leave, Locate, Subscribe};
    use crate::l1::Limits;

    const PATIENCE: Duration = ms(1000);

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn node(n: usize) -> Node {
        n.to_string().into()
    }

    fn at(shard: u32, index: u64) -> Position {
        Position { shard, lineage: 7, index }
    }

    /// Five nodes, five shards, three copies each: node n has the shards n, n + 1 and n + 2. All is answered at once.
    struct Scene {
        l1: L1,
        follow: Follow,
        /// Of each node's logs.
        floors: [u64; 5],
        down: [bool; 5],
        /// Just started: names no shards when it is subscribed to.
        blank: [bool; 5],
        now: Duration,
        acts: Vec<Act>,
    }

    impl Scene {
        fn new() -> Scene {
            let limits = Limits {
                max_entries: 10,
                max_bytes: 1 << 20,
                max_staleness: ms(2000),
                prefixes: Vec::<Bytes>::new(),
            };
            let (l1, follow) = (L1::new(limits), Follow::new(PATIENCE, 1));
            let (down, blank, acts) = ([false; 5], [false; 5], Vec::new());
            let mut scene = Scene { l1, follow, floors: [50; 5], down, blank, now: ms(10), acts };
            scene.look();
            scene
        }

        fn has(n: usize, shard: u32) -> bool {
            (0..3).any(|copy| (n + copy) % 5 == shard as usize)
        }

        fn look(&mut self) {
            for _ in 0..10 {
                let acts = self.follow.decide(&self.l1, self.now);
                acts.iter().for_each(|act| self.answer(act));
                self.acts.extend(acts);
            }
        }

        fn answer(&mut self, act: &Act) {
            match act {
                Locate => self.follow.located((0..5).map(node).collect(), self.now),
                Ask(at) => {
                    let n: usize = at.parse().unwrap();
                    let shards = (0..5).filter(|shard| Self::has(n, *shard));
                    let offers = shards.map(|shard| (shard, Offer { lineage: 7, floor: self.floors[n] }));
                    let offers = (!self.down[n]).then(|| offers.collect());
                    self.follow.offered(at, offers, self.now);
                }
                Subscribe(at, shards) => {
                    let n: usize = at.parse().unwrap();
                    if self.down[n] {
                        return self.follow.lost(at, self.now);
                    }
                    let begun = |shard: u32| self.begun(n, shard, shards.contains(&shard));
                    let named = (0..5).filter(|_| !self.blank[n]);
                    let begun: Vec<_> = named.map(|shard| (shard, begun(shard))).collect();
                    self.follow.answered(&self.l1, at, &begun, self.now);
                }
                Leave(_) => {}
            }
        }

        fn begun(&self, n: usize, shard: u32, asked: bool) -> Option<Subscribed> {
            let from = self.l1.cursor(shard).filter(|_| asked);
            let (start, index) = match from {
                None => (Start::Fresh, 100),
                Some(from) if from.index >= self.floors[n] => (Start::Resumed, from.index),
                Some(_) => (Start::Flush, 500),
            };
            let slots = vec![(shard as u16, shard as u16)];
            Self::has(n, shard).then_some(Subscribed { start, position: at(shard, index), epoch: 1, slots })
        }

        /// Time passes, and these nodes vouch for what they have.
        fn pass(&mut self, time: Duration, vouching: &[usize]) {
            for _ in 0..time.as_millis() / 100 {
                self.now += ms(100);
                for n in vouching {
                    let cursors = self.l1.cursors().into_iter().filter(|at| Self::has(*n, at.shard));
                    let beat = Push::Heartbeat(cursors.map(|at| (at, 0)).collect());
                    self.follow.take(&self.l1, &node(*n), &beat, self.now, self.now);
                }
                self.look();
            }
        }

        fn followed(&self) -> BTreeMap<u32, usize> {
            let with =
                |(shard, followed): (&u32, &Followed)| Some((*shard, followed.at.as_ref()?.parse().unwrap()));
            self.follow.shards.iter().filter_map(with).collect()
        }

        fn nodes(&self) -> BTreeSet<usize> {
            self.followed().into_values().collect()
        }

        fn subscriptions(&self) -> usize {
            self.acts.iter().filter(|act| matches!(act, Subscribe(..))).count()
        }
    }

    #[test]
    fn every_shard_is_followed_at_one_node_that_has_it_and_few_nodes_are_needed() {
        let mut scene = Scene::new();
        assert_eq!((scene.followed().len(), scene.nodes().len()), (5, 2));
        assert!(scene.followed().iter().all(|(shard, n)| Scene::has(*n, *shard)));
        assert!(scene.follow.is_calm());
        scene.pass(ms(20_000), &[0, 1, 2, 3, 4]);
        assert_eq!(scene.subscriptions(), 2, "while all is well nothing moves: {:?}", scene.acts);
        let asked = scene.acts.iter().filter(|act| matches!(act, Ask(_))).count();
        assert!((5 * 5..=5 * 9).contains(&asked), "asked now and then: {asked}");
    }

    #[test]
    fn what_was_with_a_lost_node_goes_on_at_others_from_where_it_stood() {
        let mut scene = Scene::new();
        let gone = *scene.nodes().first().unwrap();
        let theirs: Vec<u32> = scene.follow.followed_at(&node(gone)).collect();
        let keys = Push::Keys { to: at(theirs[0], 120), from: 100, keys: Vec::new() };
        scene.follow.take(&scene.l1, &node(gone), &keys, ms(0), scene.now);
        scene.down[gone] = true;
        scene.follow.lost(&node(gone), scene.now);
        scene.look();
        assert_eq!(scene.followed().len(), 5);
        assert!(!scene.nodes().contains(&gone));
        assert_eq!(scene.l1.cursor(theirs[0]), Some(at(theirs[0], 120)));
        assert_eq!(scene.l1.counters.slots.load(std::sync::atomic::Ordering::Relaxed), 0, "nothing dropped");
        scene.down[gone] = false;
        scene.pass(ms(120_000), &[0, 1, 2, 3, 4]);
        assert_eq!(scene.nodes().len(), 2, "and few nodes are needed again");
        assert_eq!(scene.l1.counters.slots.load(std::sync::atomic::Ordering::Relaxed), 0);
    }

    #[test]
    fn a_node_that_has_nothing_to_vouch_with_is_left_and_tried_again_ever_more_seldom() {
        let mut scene = Scene::new();
        let cut_off = *scene.nodes().first().unwrap();
        let others: Vec<usize> = (0..5).filter(|n| *n != cut_off).collect();
        scene.pass(ms(1500), &others);
        assert!(!scene.nodes().contains(&cut_off) && scene.followed().len() == 5);
        assert!(scene.acts.contains(&Leave(node(cut_off))));
        let mut scene = Scene::new();
        scene.pass(ms(60_000), &[]);
        assert_eq!(scene.followed().len(), 5, "with nobody to vouch they stay somewhere");
        assert!(scene.subscriptions() < 400, "{}", scene.subscriptions());
    }

    #[test]
    fn what_another_node_says_of_a_shard_is_passed_over() {
        let mut scene = Scene::new();
        let (shard, with) = scene.followed().into_iter().next().unwrap();
        let other = (0..5).find(|n| *n != with && Scene::has(*n, shard)).unwrap();
        let flushed =
            Push::Slots { to: at(shard, 400), epoch: 1, slots: vec![(0, 4)], reason: Reason::Window };
        scene.follow.take(&scene.l1, &node(other), &flushed, ms(0), scene.now);
        let gap = Push::Keys { to: at(shard, 300), from: 200, keys: Vec::new() };
        scene.follow.take(&scene.l1, &node(other), &gap, ms(0), scene.now);
        scene.look();
        assert_eq!((scene.l1.cursor(shard), scene.followed()[&shard]), (Some(at(shard, 100)), with));
        scene.follow.take(&scene.l1, &node(with), &gap, ms(0), scene.now);
        scene.look();
        assert_ne!(scene.followed()[&shard], with, "who leaves something out is left");
    }

    #[test]
    fn a_shard_is_begun_anew_only_when_nobody_can_go_on() {
        let mut scene = Scene::new();
        let (shard, with) = scene.followed().into_iter().next().unwrap();
        let others: Vec<usize> = (0..5).filter(|n| *n != with && Scene::has(*n, shard)).collect();
        scene.floors = [200; 5];
        scene.floors[others[1]] = 100;
        scene.down[with] = true;
        scene.follow.lost(&node(with), scene.now);
        scene.pass(ms(300), &[0, 1, 2, 3, 4]);
        assert_eq!((scene.followed()[&shard], scene.l1.cursor(shard).unwrap().index), (others[1], 100));
        scene.down[others[1]] = true;
        scene.follow.lost(&node(others[1]), scene.now);
        scene.pass(ms(300), &[0, 1, 2, 3, 4]);
        assert_eq!((scene.followed()[&shard], scene.l1.cursor(shard).unwrap().index), (others[0], 500));
    }

    #[test]
    fn a_shard_that_appears_later_is_found_and_one_that_is_not_served_yet_is_tried_again() {
        let mut scene = Scene::new();
        scene.follow.heard_of(9, scene.now);
        scene.pass(ms(3000), &[0, 1, 2, 3, 4]);
        let asked = scene.acts.iter().filter(|act| matches!(act, Ask(_))).count();
        assert!((5 * 4..5 * 12).contains(&asked), "searched for, with growing pauses: {asked}");
        let offer = |lineage| Some(vec![(9, Offer { lineage, floor: 0 })]);
        scene.follow.offered(&node(1), offer(0), scene.now);
        assert!(!scene.follow.decide(&scene.l1, scene.now).iter().any(|act| matches!(act, Subscribe(..))));
        scene.follow.offered(&node(1), offer(7), scene.now);
        let subscribes =
            |act: &Act| matches!(act, Subscribe(at, shards) if *at == node(1) && shards.contains(&9));
        assert!(scene.follow.decide(&scene.l1, scene.now).iter().any(subscribes));
        scene.follow.answered(&scene.l1, &node(1), &[(9, None)], scene.now);
        scene.follow.offered(&node(1), offer(7), scene.now);
        assert!(!scene.follow.decide(&scene.l1, scene.now).iter().any(subscribes), "not at once");
        scene.now += ms(100);
        assert!(scene.follow.decide(&scene.l1, scene.now).iter().any(subscribes));
    }
    #[test]
    fn a_node_that_names_none_of_the_shards_it_had_is_not_asked_again_at_once() {
        let mut scene = Scene::new();
        scene.pass(ms(500), &[0, 1, 2, 3, 4]);
        scene.blank = [true; 5];
        for n in 0..5 {
            scene.follow.lost(&node(n), scene.now);
        }
        scene.acts.clear();
        scene.pass(ms(1000), &[]);
        let subscriptions = scene.subscriptions();
        assert!((1..80).contains(&subscriptions), "{subscriptions}");
        scene.blank = [false; 5];
        scene.pass(ms(5000), &[0, 1, 2, 3, 4]);
        assert_eq!(scene.followed().len(), 5);
    }
}
