//! What [`Follow`] does about what it knows: who is asked, who is subscribed to, who is left.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use slotcast_wire::position::Position;

use crate::cover::{Candidate, cover};
use crate::follow::{Act, Follow, Followed, Known, LONGEST_AVOIDED, Node, Pending};
use crate::l1::L1;

/// While a shard is to be found nowhere all are asked: first so soon, then more and more seldom, up to the longest.
const FIRST_SEARCH: Duration = Duration::from_millis(50);
const LONGEST_SEARCH: Duration = Duration::from_secs(1);
/// At the beginning so long is waited for all to say what they have.
const GATHERING: Duration = Duration::from_millis(100);
/// A node that has not answered SUBSCRIBE within this has competition.
const HURRY: Duration = Duration::from_millis(300);
/// When all has been well for so long, it is seen whether fewer nodes would do.
const TIDY: Duration = Duration::from_secs(10);

impl Follow {
    /// What is to be done now. To be called after each of the calls above, and every few tens of ms.
    pub fn decide(&mut self, l1: &L1, now: Duration) -> Vec<Act> {
        let needy = self.needy(l1, now);
        let chosen = cover(self.candidates(&needy, l1, now, false));
        let found: usize = chosen.iter().map(|(_, shards)| shards.len()).sum();
        let mut acts: Vec<Act> =
            chosen.iter().filter_map(|(node, shards)| self.subscribe((node, shards), l1, now)).collect();
        if needy.is_empty() && now.saturating_sub(self.changed) > TIDY {
            acts.extend(self.tidy(l1, now));
        }
        acts.extend(self.leave());
        acts.extend(self.ask(found < needy.len() || self.shards.is_empty(), now));
        acts
    }

    /// All shards are followed, each at a node that vouches for it.
    pub fn is_calm(&self) -> bool {
        let well = |followed: &Followed| followed.at.is_some() && followed.needy.is_none();
        !self.shards.is_empty() && self.shards.values().all(well)
    }

    /// The shards that need another node, and since when.
    fn needy(&mut self, l1: &L1, now: Duration) -> Vec<u32> {
        let hurried = |pending: &Pending| now.saturating_sub(pending.since) < HURRY;
        let pending = self.nodes.values().filter_map(|known| known.pending.as_ref());
        let pending: BTreeSet<u32> =
            pending.filter(|one| hurried(one)).flat_map(|one| one.shards.keys().copied()).collect();
        let (mut needy, mut stale) = (Vec::new(), Vec::new());
        for (shard, followed) in &mut self.shards {
            let vouched = l1.verified_at(*shard).unwrap_or_default().max(followed.since);
            let is_stale = now.saturating_sub(vouched) > self.patience;
            match &followed.at {
                Some(_) if !is_stale => followed.needy = None,
                at => {
                    followed.needy = followed.needy.or(Some(now));
                    stale.extend(at.clone().map(|node| (node, *shard)));
                    needy.push(*shard);
                }
            }
        }
        for (node, shard) in stale {
            if !self.is_avoided(&node, shard, now) {
                self.avoid(&node, shard, now);
            }
        }
        needy.retain(|shard| !pending.contains(shard));
        needy
    }

    fn is_avoided(&self, node: &Node, shard: u32, now: Duration) -> bool {
        let avoided = self.shards.get(&shard).and_then(|followed| followed.avoided.get(node));
        avoided.is_some_and(|pause| !pause.is_over(now))
    }

    /// The nodes that can take these shards over. `afresh`: as if none was listened to.
    fn candidates(&self, wanted: &[u32], l1: &L1, now: Duration, afresh: bool) -> Vec<Candidate> {
        let able = |(_, known): &(&Node, &Known)| known.shut.is_over(now) && known.pending.is_none();
        let candidate = |(node, known): (&Node, &Known)| Candidate {
            node: node.clone(),
            shards: wanted.iter().copied().filter(|shard| self.may(node, known, *shard, l1, now)).collect(),
            open: known.listened && !afresh,
            rank: known.rank,
        };
        self.nodes.iter().filter(able).map(candidate).collect()
    }

    fn may(&self, node: &Node, known: &Known, shard: u32, l1: &L1, now: Duration) -> bool {
        let Some(offer) = known.offers.get(&shard).filter(|offer| offer.lineage != 0) else { return false };
        let Some(followed) = self.shards.get(&shard) else { return false };
        if self.is_avoided(node, shard, now) {
            return false;
        }
        match l1.cursor(shard) {
            None => now >= followed.since + GATHERING || self.all_told(followed.since, now),
            Some(at) => offer.goes_on(at) || self.is_lost(shard, followed, at, now),
        }
    }

    /// Nobody can go on from where the cache stands: it is to begin anew.
    fn is_lost(&self, shard: u32, followed: &Followed, at: Position, now: Duration) -> bool {
        let since = followed.needy.unwrap_or(now);
        let for_long = now.saturating_sub(since) > LONGEST_AVOIDED;
        let hope = |(node, known): (&Node, &Known)| {
            let useless = followed.at.as_ref() == Some(node) || self.is_avoided(node, shard, now);
            let goes_on = known.offers.get(&shard).is_some_and(|offer| offer.goes_on(at));
            goes_on && known.shut.is_over(now) && !(for_long && useless)
        };
        (followed.at.is_none() || for_long) && self.all_told(since, now) && !self.nodes.iter().any(hope)
    }

    /// Every node has said since then what it has, or does not answer.
    fn all_told(&self, since: Duration, now: Duration) -> bool {
        let has_told = |known: &Known| known.told.is_some_and(|(at, _)| at >= since) && !known.asking;
        self.nodes.values().all(|known| has_told(known) || !known.shut.is_over(now))
    }

    /// Has these shards followed there as well.
    fn subscribe(&mut self, (node, wanted): (&Node, &[u32]), l1: &L1, now: Duration) -> Option<Act> {
        for known in self.nodes.values_mut().filter_map(|known| known.pending.as_mut()) {
            known.shards.retain(|shard, _| !wanted.contains(shard));
        }
        let all = self.followed_at(node).chain(wanted.iter().copied());
        let shards: BTreeMap<u32, bool> =
            all.map(|shard| (shard, self.begins_anew(shard, l1, now))).collect();
        let act = Act::Subscribe(node.clone(), shards.keys().copied().collect());
        self.nodes.get_mut(node)?.pending = Some(Pending { shards, since: now });
        Some(act)
    }

    fn begins_anew(&self, shard: u32, l1: &L1, now: Duration) -> bool {
        let Some(followed) = self.shards.get(&shard) else { return true };
        l1.cursor(shard).is_none_or(|at| self.is_lost(shard, followed, at, now))
    }

    /// All is well: goes over to fewer nodes, if there are fewer that have all.
    fn tidy(&mut self, l1: &L1, now: Duration) -> Vec<Act> {
        self.changed = now;
        let shards: Vec<u32> = self.shards.keys().copied().collect();
        let listened = self.nodes.values().filter(|known| known.listened).count();
        let fewer = cover(self.candidates(&shards, l1, now, true));
        let all = fewer.iter().map(|(_, shards)| shards.len()).sum::<usize>() == shards.len();
        if !all || fewer.len() >= listened {
            return Vec::new();
        }
        fewer.iter().filter_map(|(node, shards)| self.subscribe((node, shards), l1, now)).collect()
    }

    /// Nodes that nothing is followed at any more.
    fn leave(&mut self) -> Vec<Act> {
        let used: BTreeSet<Node> = self.shards.values().filter_map(|followed| followed.at.clone()).collect();
        let idle = |(node, known): &(&Node, &mut Known)| {
            known.listened && known.pending.is_none() && !used.contains(*node)
        };
        let idle = self.nodes.iter_mut().filter(idle);
        idle.map(|(node, known)| {
            known.listened = false;
            Act::Leave(node.clone())
        })
        .collect()
    }

    /// Whom to ask what it has: all now and then, and more often while a shard is to be found nowhere.
    fn ask(&mut self, searching: bool, now: Duration) -> Vec<Act> {
        let mut acts = Vec::new();
        let search = self.search;
        let due = |told: Option<(Duration, Duration)>| match told {
            Some((at, again)) => now >= again || (searching && now >= at + search),
            None => true,
        };
        for (node, known) in &mut self.nodes {
            if due(known.told) && known.shut.is_over(now) && !known.asking {
                known.asking = true;
                acts.push(Act::Ask(node.clone()));
            }
        }
        if due(self.located) && !self.locating {
            self.locating = true;
            acts.push(Act::Locate);
        }
        self.search = match searching {
            false => FIRST_SEARCH,
            true if acts.is_empty() => search,
            true => (search * 2).min(LONGEST_SEARCH),
        };
        acts
    }
}
