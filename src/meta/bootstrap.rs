//! When a cluster may be formed, and who may join it. Pure: facts in, decision out.
//!
//! Only the first seed forms, and only when every seed says that it is empty: two clusters can then not come out of
//! one list of seeds. A node that lost its directory comes back empty, finds the others in a cluster, and joins.

use std::collections::BTreeMap;

use crate::id::{MemberId, NodeId};
use crate::meta::message::{ClusterId, Hello, Phase, Plan};
use crate::topology::change::Change;
use crate::topology::{Node, Topology};

/// What one of the seeds said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// As the configuration names it.
    pub name: String,
    /// Its answer, or why there is none.
    pub answer: Result<Hello, String>,
}

/// What an empty node does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Form a cluster of these, in the seeds' order.
    Form(Vec<Hello>),
    /// Ask one of these to be let in.
    Join(Vec<Hello>),
    /// Ask the seeds again later; why, for the log.
    Wait(String),
}

/// Decides for the empty node `me` after a round of all seeds, in the order of the configuration.
pub fn decide(me: &Hello, seeds: &[Seed]) -> Decision {
    if let Some(conflict) = conflict(me, seeds) {
        return Decision::Wait(conflict);
    }
    let heard: Vec<&Hello> = seeds.iter().filter_map(|seed| seed.answer.as_ref().ok()).collect();
    let members: Vec<Hello> = heard
        .iter()
        .filter(|hello| matches!(hello.phase, Phase::Member(_)))
        .map(|hello| Hello::clone(hello))
        .collect();
    if !members.is_empty() {
        return Decision::Join(members);
    }
    let is_me = |seed: &Seed| seed.answer.as_ref().is_ok_and(|hello| hello.id == me.id);
    if !seeds.iter().any(is_me) {
        return Decision::Wait(
            "no seed belongs to a cluster yet, and this node is not one of the seeds".into(),
        );
    }
    let silent: Vec<String> = seeds
        .iter()
        .filter_map(|seed| seed.answer.as_ref().err().map(|why| format!("{} ({why})", seed.name)))
        .collect();
    if !silent.is_empty() {
        return Decision::Wait(format!(
            "a cluster forms when all seeds are present; missing: {}",
            silent.join(", ")
        ));
    }
    let preparing = |seed: &&Seed| !seed.answer.as_ref().is_ok_and(|hello| hello.phase == Phase::Empty);
    match seeds.iter().find(preparing) {
        Some(seed) => Decision::Wait(format!("{} is about to form a cluster", seed.name)),
        None if seeds.first().is_some_and(is_me) => Decision::Form(heard.into_iter().cloned().collect()),
        None => Decision::Wait("all seeds are present; the first of them forms the cluster".into()),
    }
}

/// Two nodes that pass for one.
fn conflict(me: &Hello, seeds: &[Seed]) -> Option<String> {
    let mut known: BTreeMap<NodeId, (&str, u64)> =
        BTreeMap::from([(me.id, ("this node", me.node.incarnation))]);
    for seed in seeds {
        let Ok(hello) = &seed.answer else { continue };
        let is_me = hello.id == me.id && hello.node.incarnation == me.node.incarnation;
        let before = known.insert(hello.id, (&seed.name, hello.node.incarnation));
        match before {
            Some((other, incarnation)) if incarnation != hello.node.incarnation => {
                return Some(format!(
                    "{other} and {} have the same id {}: each node needs a directory (dir) of its own",
                    seed.name, hello.id
                ));
            }
            Some((other, _)) if !(is_me && other == "this node") => {
                return Some(format!(
                    "{other} and {} are the same node: cluster-seeds names it twice",
                    seed.name
                ));
            }
            _ => {}
        }
    }
    None
}

/// The plan for a cluster of `nodes`. Its member ids begin at a number drawn at random (`draw`): members of an
/// attempt that was given up then never pass for members of this one.
pub fn plan(nodes: &[Hello], shards: usize, copies: usize, cluster: ClusterId, draw: u32) -> Plan {
    let first = (MemberId::from(draw) + 1) * 1000 + 1;
    Plan {
        cluster,
        nodes: nodes.iter().map(|hello| (hello.id, hello.node.clone())).collect(),
        meta: nodes.iter().map(|hello| hello.id).zip(first..).collect(),
        shards,
        copies,
    }
}

/// What the metadata group's leader found out about a node that wants to join.
#[derive(Clone, Debug)]
pub struct Applicant<'a> {
    /// Who it says it is.
    pub id: NodeId,
    /// Where, and which incarnation.
    pub node: &'a Node,
    /// Who answers at the address it gives.
    pub at_its_address: Result<Hello, String>,
    /// Who answers where the cluster knows a node of this id, if that is elsewhere.
    pub at_known_address: Option<Hello>,
}

/// The change that lets the applicant in, or why it must stay outside. `answers`: nodes that answer their leader.
pub fn admit(
    topology: &Topology,
    applicant: &Applicant,
    answers: impl Fn(NodeId) -> bool,
) -> Result<Change, String> {
    let Applicant { id, node, .. } = applicant;
    let is_applicant = |hello: &Hello| hello.id == *id && hello.node.incarnation == node.incarnation;
    match &applicant.at_its_address {
        Ok(hello) if is_applicant(hello) => {}
        Ok(hello) => return Err(format!("{} answers at {}: two nodes have one address", hello.id, node.bus)),
        Err(why) => return Err(format!("the cluster cannot reach it at {}: {why}", node.bus)),
    }
    if let Some(hello) =
        applicant.at_known_address.as_ref().filter(|hello| hello.id == *id && !is_applicant(hello))
    {
        return Err(format!(
            "a node with its id runs at {}: each node needs a directory (dir) of its own",
            hello.node.bus
        ));
    }
    let others = || topology.nodes.iter().filter(|(other, _)| *other != id);
    let same_client = others().find(|(_, other)| (&other.host, other.port) == (&node.host, node.port));
    // At a bus address only one can answer, and that is the applicant: another node known there is gone.
    if let Some((other, known)) =
        same_client.filter(|(other, known)| known.bus != node.bus && answers(**other))
    {
        return Err(format!("node {other} has the same client address {}:{}", known.host, known.port));
    }
    let gone = others().find(|(_, other)| other.bus == node.bus).or(same_client).map(|(other, _)| *other);
    Ok(match gone.filter(|_| !topology.nodes.contains_key(id)) {
        Some(old) => Change::Replace { old, id: *id, node: (*node).clone() },
        None => Change::Join { id: *id, node: (*node).clone() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId(7);

    fn says(n: u8, phase: Phase) -> Hello {
        let bus = ([127, 0, 0, 1], 17000 + u16::from(n)).into();
        let node = Node { host: "h".into(), port: 7000 + u16::from(n), bus, incarnation: u64::from(n) };
        Hello { id: NodeId::from_bytes([n; 20]), node, phase }
    }

    fn seeds(phases: &[Option<Phase>]) -> Vec<Seed> {
        let seed = |(n, phase): (u8, &Option<Phase>)| Seed {
            name: format!("h:{}", 7000 + u16::from(n)),
            answer: phase.map(|phase| says(n, phase)).ok_or_else(|| "no answer".into()),
        };
        (1..).zip(phases).map(seed).collect()
    }

    const EMPTY: Option<Phase> = Some(Phase::Empty);
    const MEMBER: Option<Phase> = Some(Phase::Member(CLUSTER));

    fn decision(me: u8, phases: &[Option<Phase>]) -> Decision {
        decide(&says(me, Phase::Empty), &seeds(phases))
    }

    fn waits(me: u8, phases: &[Option<Phase>]) -> String {
        match decision(me, phases) {
            Decision::Wait(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_the_first_seed_forms_and_only_when_all_are_empty() {
        let all = [EMPTY; 3];
        assert_eq!(decision(1, &all), Decision::Form((1..=3).map(|n| says(n, Phase::Empty)).collect()));
        assert!(waits(2, &all).contains("the first of them"));
        assert!(waits(1, &[EMPTY, None, EMPTY]).contains("missing: h:7002"));
        assert!(waits(2, &[None, EMPTY, EMPTY]).contains("missing: h:7001"));
        assert!(waits(1, &[EMPTY, EMPTY, Some(Phase::Preparing(CLUSTER))]).contains("h:7003 is about"));
        assert!(waits(4, &all).contains("not one of the seeds"));
        assert_eq!(decision(1, &[EMPTY]), Decision::Form(vec![says(1, Phase::Empty)]));
    }

    #[test]
    fn where_there_is_a_cluster_every_node_joins_it() {
        for me in [1, 2, 4] {
            let joins = decision(me, &[EMPTY, None, MEMBER]);
            assert_eq!(joins, Decision::Join(vec![says(3, Phase::Member(CLUSTER))]));
        }
    }

    #[test]
    fn two_nodes_that_pass_for_one_form_nothing() {
        let mut seeds = seeds(&[EMPTY; 3]);
        seeds[2].answer.as_mut().unwrap().id = NodeId::from_bytes([2; 20]);
        let Decision::Wait(why) = decide(&says(1, Phase::Empty), &seeds) else { panic!() };
        assert!(why.contains("same id"), "{why}");
        seeds[2].answer = seeds[1].answer.clone();
        let Decision::Wait(why) = decide(&says(1, Phase::Empty), &seeds) else { panic!() };
        assert!(why.contains("twice"), "{why}");
        let mut me = says(1, Phase::Empty);
        me.node.incarnation = 99;
        let Decision::Wait(why) = decide(&me, &seeds) else { panic!() };
        assert!(why.contains("this node and h:7001 have the same id"), "{why}");
    }

    fn formed() -> Topology {
        let nodes: Vec<Hello> = (1..=3).map(|n| says(n, Phase::Empty)).collect();
        let mut topology = Topology::default();
        topology.apply(1, &plan(&nodes, 3, 3, CLUSTER, 41).change());
        topology
    }

    #[test]
    fn two_attempts_share_no_member_ids() {
        let nodes: Vec<Hello> = (1..=3).map(|n| says(n, Phase::Empty)).collect();
        let members = |draw| plan(&nodes, 3, 3, CLUSTER, draw).members().into_keys().collect::<Vec<_>>();
        assert_eq!(members(41), [42001, 42002, 42003]);
        assert_eq!(members(u32::MAX).len(), 3);
    }

    /// Lets `hello` in, when `at` answers at its address.
    fn admitted(hello: &Hello, at: &Hello, known: Option<Hello>) -> Result<Change, String> {
        let applicant = Applicant {
            id: hello.id,
            node: &hello.node,
            at_its_address: Ok(at.clone()),
            at_known_address: known,
        };
        admit(&formed(), &applicant, |_| true)
    }

    #[test]
    fn a_known_node_comes_back_and_an_unknown_one_is_added() {
        let mut back = says(2, Phase::Empty);
        back.node.incarnation = 50;
        let join = Change::Join { id: back.id, node: back.node.clone() };
        assert_eq!(admitted(&back, &back, None), Ok(join.clone()));
        assert_eq!(admitted(&back, &back, Some(says(3, Phase::Empty))), Ok(join), "another lives there now");
        let new = says(9, Phase::Empty);
        assert_eq!(admitted(&new, &new, None), Ok(Change::Join { id: new.id, node: new.node.clone() }));
    }

    #[test]
    fn a_new_node_at_a_known_address_replaces_the_one_that_was_there() {
        let mut wiped = says(2, Phase::Empty);
        wiped.id = NodeId::from_bytes([99; 20]);
        let old = NodeId::from_bytes([2; 20]);
        let replace = Change::Replace { old, id: wiped.id, node: wiped.node.clone() };
        assert_eq!(admitted(&wiped, &wiped, None), Ok(replace));
        let refused = admitted(&wiped, &says(2, Phase::Empty), None).unwrap_err();
        assert!(refused.contains("two nodes have one address"), "{refused}");
    }

    #[test]
    fn a_second_process_under_a_running_nodes_name_is_refused() {
        let mut second = says(2, Phase::Empty);
        second.node.incarnation = 50;
        second.node.bus.set_port(17009);
        let refused = admitted(&second, &second, Some(says(2, Phase::Member(CLUSTER)))).unwrap_err();
        assert!(refused.contains("directory"), "{refused}");
        let mut twin = says(9, Phase::Empty);
        twin.node.port = 7002;
        let refused = admitted(&twin, &twin, None).unwrap_err();
        assert!(refused.contains("same client address"), "{refused}");
        let mut unreachable = Applicant {
            id: twin.id,
            node: &twin.node,
            at_its_address: Err("x".into()),
            at_known_address: None,
        };
        assert!(admit(&formed(), &unreachable, |_| false).unwrap_err().contains("cannot reach"));
        unreachable.at_its_address = Ok(twin.clone());
        let replaced = admit(&formed(), &unreachable, |_| false);
        assert!(matches!(replaced, Ok(Change::Replace { .. })), "the other one is gone: {replaced:?}");
    }
}
