//! Nodes that all may have lost the end of their logs (every machine lost power) find together again. Pure: what each of
//! them has left in, what to do out.
//!
//! All copies must be there: an entry that was acknowledged may have survived on any single one of them. What survives
//! nowhere is lost, a second of writes at most.
//!
//! Copies that were never in doubt are counted in where they are too few to lead by themselves: the farthest log of all
//! still has every committed entry that any log has. (A log that goes on in a later term was led by a member that had it;
//! one that ends in the entry's own term has it if it is as long as one that has it. Raft thesis §3.6.3.) Nothing can be
//! acknowledged while those in doubt are silent, so it does not matter that a living copy's log may grow meanwhile: who
//! is named by most must still be elected, and each of them compares logs again when it votes. Such a copy cannot know that
//! what the others had acknowledged may be lost; it is told before anybody hears it, so that it begins another history, and
//! again until it has led, as its process may die meanwhile.
//!
//! Whoever compares later, and was counted in, takes over what was agreed on. Who comes back in doubt once more is another
//! process with another log: to it those who have reunited meanwhile are as good as any that never were in doubt. If they
//! have not yet, having waited for it perhaps, it compares with what they have now.

use std::collections::BTreeMap;

use crate::id::{GroupId, MemberId, NodeId};
use crate::meta::message::{End, Remains};
use crate::raft::doubt::NOBODY;
use crate::topology::Topology;

/// What a node in doubt does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Ask again later; why, for the operator.
    Wait(String),
    /// The others go on without what this node may have lost: it begins anew and is brought up by them.
    BeginAnew,
    /// All are there: the member of each group whose log goes farthest; nobody where the others go on.
    Sources(BTreeMap<GroupId, MemberId>),
}

/// Decides for `me` after a round of all nodes of the topology, itself among them.
pub fn judge(topology: &Topology, me: NodeId, heard: &BTreeMap<NodeId, Result<Remains, String>>) -> Verdict {
    let known = || heard.values().filter_map(|remains| remains.as_ref().ok());
    let is_sound =
        |id: &&NodeId| heard.get(*id).is_some_and(|heard| heard.as_ref().is_ok_and(|it| !it.doubted));
    let goes_on =
        |members: &BTreeMap<NodeId, MemberId>| members.keys().filter(is_sound).count() > members.len() / 2;
    // Others have compared already, this node's logs among them: two that compare at two times might choose differently.
    if let Some(agreed) = known().find(|remains| remains.doubted && !remains.sources.is_empty()) {
        return Verdict::Sources(agreed.sources.iter().copied().collect());
    }
    let is_led = known().any(|remains| remains.leads && !remains.doubted);
    let mut mine = groups(topology).filter(|(_, members)| members.contains_key(&me));
    if is_led && mine.all(|(_, members)| goes_on(members)) {
        return Verdict::BeginAnew;
    }
    let name =
        |id: &NodeId| topology.nodes.get(id).map_or_else(|| id.short(), |n| format!("{}:{}", n.host, n.port));
    let mut sources = BTreeMap::new();
    for (group, members) in groups(topology) {
        let mut farthest: Option<(u64, u64, MemberId)> = None;
        if goes_on(members) && is_led {
            // But what this node has of others may be nowhere else.
            sources.insert(group, NOBODY);
            continue;
        }
        if goes_on(members) {
            return Verdict::Wait(format!("a leader of {group}: most of its copies are in no doubt"));
        }
        for (id, member) in members {
            let remains = match heard.get(id) {
                Some(Ok(remains)) => remains,
                Some(Err(why)) => return Verdict::Wait(format!("{} ({why})", name(id))),
                None => return Verdict::Wait(name(id)),
            };
            let own = |end: &&End| (end.group, end.member) == (group, *member);
            let Some(end) = remains.ends.iter().find(own) else {
                return Verdict::Wait(format!("{}, which has not opened its copy of {group} yet", name(id)));
            };
            farthest = farthest.max(Some((end.term, end.index, end.member)));
        }
        sources.extend(farthest.map(|(_, _, member)| (group, member)));
    }
    if sources.is_empty() {
        Verdict::Wait("the cluster's topology".into())
    } else {
        Verdict::Sources(sources)
    }
}

/// The groups whose source was never in doubt, by its node: it does not know that what others had acknowledged is lost.
pub fn unaware(
    topology: &Topology,
    heard: &BTreeMap<NodeId, Result<Remains, String>>,
    sources: &BTreeMap<GroupId, MemberId>,
) -> BTreeMap<NodeId, Vec<GroupId>> {
    let mut unaware: BTreeMap<NodeId, Vec<GroupId>> = BTreeMap::new();
    if heard.values().flatten().any(|remains| !remains.sources.is_empty()) {
        return unaware; // Whoever has agreed on it before has told them.
    }
    for (group, members) in groups(topology) {
        let source = members.iter().find(|(_, member)| sources.get(&group) == Some(member));
        let Some((id, _)) = source else { continue };
        if heard.get(id).is_some_and(|heard| heard.as_ref().is_ok_and(|remains| !remains.doubted)) {
            unaware.entry(*id).or_default().push(group);
        }
    }
    unaware
}

fn groups(topology: &Topology) -> impl Iterator<Item = (GroupId, &BTreeMap<NodeId, MemberId>)> {
    let shards = topology.shards.iter().map(|(group, shard)| (*group, &shard.copies));
    std::iter::once((GroupId::META, &topology.meta)).chain(shards)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Node;
    use crate::topology::change::Change;

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 20])
    }

    /// Three nodes, a shard each: members 1 to 3, then 4 to 12.
    fn topology() -> Topology {
        let node = |n: u8| {
            let bus = ([127, 0, 0, 1], 17000 + u16::from(n)).into();
            (id(n), Node { host: "h".into(), port: 7000 + u16::from(n), bus, incarnation: 1 })
        };
        let (nodes, meta) = ((1..=3).map(node).collect(), (1..=3).map(|n| (id(n), u64::from(n))).collect());
        let mut topology = Topology::default();
        topology.apply(1, &Change::Form { nodes, meta, shards: 3, copies: 3 });
        topology
    }

    /// Everybody in doubt, with logs that end at (2, 10), but those in `ends`.
    fn all(ends: &[(MemberId, u64, u64)]) -> BTreeMap<NodeId, Result<Remains, String>> {
        let topology = topology();
        let mut heard: BTreeMap<NodeId, Remains> = BTreeMap::new();
        for (group, members) in groups(&topology) {
            for (id, member) in members {
                let special = ends.iter().find(|end| end.0 == *member);
                let (term, index) = special.map_or((2, 10), |end| (end.1, end.2));
                let remains = heard.entry(*id).or_default();
                remains.doubted = true;
                remains.ends.push(End { group, member: *member, term, index });
            }
        }
        heard.into_iter().map(|(id, remains)| (id, Ok(remains))).collect()
    }

    #[test]
    fn the_greatest_term_wins_then_the_greatest_index() {
        let topology = topology();
        let member = |group: u32, n: u8| topology.shards[&GroupId(group)].copies[&id(n)];
        let heard = all(&[
            (1, 2, 11),
            (member(1, 2), 3, 4),
            (member(1, 3), 2, 50),
            (member(2, 3), 2, 12),
            (member(2, 1), 2, 11),
        ]);
        let Verdict::Sources(sources) = judge(&topology, id(1), &heard) else { panic!() };
        assert_eq!(sources.len(), 4);
        assert_eq!(sources[&GroupId::META], 1);
        assert_eq!((sources[&GroupId(1)], sources[&GroupId(2)]), (member(1, 2), member(2, 3)));
    }

    #[test]
    fn it_waits_for_every_copy() {
        let (topology, mut heard) = (topology(), all(&[]));
        heard.insert(id(2), Err("no answer".into()));
        let waits = |heard: &BTreeMap<_, _>| match judge(&topology, id(1), heard) {
            Verdict::Wait(why) => why,
            other => panic!("{other:?}"),
        };
        assert!(waits(&heard).contains("h:7002 (no answer)"));
        heard.insert(id(2), Ok(Remains { doubted: true, ..Remains::default() }));
        assert!(waits(&heard).contains("h:7002, which has not opened"));
        heard.insert(id(2), Ok(Remains::default()));
        assert!(waits(&heard).contains("has not opened"), "a new life has not the copy of the old one");
        assert!(matches!(judge(&Topology::default(), id(1), &BTreeMap::new()), Verdict::Wait(_)));
    }

    #[test]
    fn a_copy_in_no_doubt_is_counted_in_where_it_is_too_few_to_lead() {
        let topology = topology();
        let member = |group: u32, n: u8| topology.shards[&GroupId(group)].copies[&id(n)];
        let mut heard = all(&[(member(1, 1), 3, 7), (member(2, 3), 3, 7)]);
        let mut is_sound = |n: u8| match heard.get_mut(&id(n)) {
            Some(Ok(remains)) => remains.doubted = false,
            _ => panic!(),
        };
        is_sound(1);
        let Verdict::Sources(sources) = judge(&topology, id(1), &heard) else { panic!() };
        assert_eq!((sources[&GroupId(1)], sources[&GroupId(2)]), (member(1, 1), member(2, 3)));
        let mut is_sound = |n: u8| match heard.get_mut(&id(n)) {
            Some(Ok(remains)) => remains.doubted = false,
            _ => panic!(),
        };
        is_sound(2);
        assert!(matches!(judge(&topology, id(1), &heard), Verdict::Wait(why) if why.contains("a leader of")));
    }

    #[test]
    fn what_others_have_agreed_on_holds_and_sources_that_were_sure_are_told_of_the_loss() {
        let topology = topology();
        let member = |group: u32, n: u8| topology.shards[&GroupId(group)].copies[&id(n)];
        let mut heard = all(&[(member(1, 2), 9, 7)]);
        let sources = BTreeMap::from([(GroupId(1), member(1, 3)), (GroupId(2), member(2, 1))]);
        if let Some(Ok(remains)) = heard.get_mut(&id(3)) {
            remains.sources = sources.iter().map(|(group, member)| (*group, *member)).collect();
        }
        assert_eq!(judge(&topology, id(1), &heard), Verdict::Sources(sources.clone()));
        assert_eq!(unaware(&topology, &heard, &sources), BTreeMap::new());
        let mut heard = all(&[]);
        if let Some(Ok(remains)) = heard.get_mut(&id(1)) {
            remains.doubted = false;
        }
        assert_eq!(unaware(&topology, &heard, &sources), BTreeMap::from([(id(1), vec![GroupId(2)])]));
    }

    #[test]
    fn it_begins_anew_only_where_most_copies_of_all_it_has_never_were_in_doubt() {
        let (topology, mut heard) = (topology(), all(&[]));
        heard.insert(id(2), Ok(Remains { leads: true, ..Remains::default() }));
        let waits = judge(&topology, id(1), &heard);
        assert!(matches!(waits, Verdict::Wait(why) if why.contains("h:7002, which has not opened")));
        heard.insert(id(3), Ok(Remains::default()));
        assert_eq!(judge(&topology, id(1), &heard), Verdict::BeginAnew);
        let mut heard = all(&[]);
        if let Some(Ok(remains)) = heard.get_mut(&id(2)) {
            remains.leads = true; // It was in doubt too, and has counted this node's log in.
        }
        assert!(matches!(judge(&topology, id(1), &heard), Verdict::Sources(_)));
    }

    /// Node 3 has waited for what node 1 had; node 1 has died once more, while node 2 leads the metadata group again.
    #[test]
    fn it_compares_what_does_not_go_on_though_the_cluster_is_led() {
        let (mut topology, mut heard) = (topology(), all(&[]));
        let farthest = topology.shards[&GroupId(1)].copies[&id(1)];
        topology.shards.get_mut(&GroupId(2)).unwrap().copies.retain(|node, _| *node == id(2));
        for (node, remains) in &mut heard {
            let Ok(remains) = remains else { panic!() };
            (remains.leads, remains.doubted) = (*node == id(2), *node != id(2));
            let own = remains.ends.iter_mut().filter(|end| end.member == farthest);
            own.for_each(|end| end.index = 11);
        }
        let Verdict::Sources(sources) = judge(&topology, id(1), &heard) else { panic!() };
        assert_eq!((sources[&GroupId(1)], sources[&GroupId(2)]), (farthest, NOBODY));
        heard.insert(id(3), Err("no answer".into()));
        assert!(matches!(judge(&topology, id(1), &heard), Verdict::Wait(why) if why.contains("h:7003")));
    }
}
