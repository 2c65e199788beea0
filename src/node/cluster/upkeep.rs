//! What a leader does for its group: members, the way home, and telling the cluster that it leads.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::id::{GroupId, MemberId, NodeId};
use crate::meta::proposer::propose;
use crate::meta::standing::Standing;
use crate::node::cluster::leaving::hand_over;
use crate::raft::group::Group;
use crate::raft::groups::Groups;
use crate::raft::membership::{HomeWatch, Situation, Step, Wanted};
use crate::raft::state::{GroupError, GroupState, Member};
use crate::topology::change::Change;
use crate::topology::{Leadership, Topology};
use crate::wal::flush::Condition;

/// At most one look at a group in this time, however often its figures change.
const PACE: Duration = Duration::from_millis(50);
/// At least one look in this time while leading: members fall silent and homes become steady by time alone.
const TICK: Duration = Duration::from_millis(250);
/// While the disk is full leaderships are handed over so often.
const FULL_PACE: Duration = Duration::from_secs(1);
/// After a step that failed, or a change that is not visible yet.
const PAUSE: Duration = Duration::from_millis(200);

/// Brings the group's members to what the topology wants, whenever this node leads it. Until it is shut down.
pub async fn keep_members(group: Group, standing: Arc<Standing>) {
    let (mut state, mut topology) = (group.state(), standing.topology());
    let mut reachability = standing.bus.reachability();
    let mut home = HomeWatch::default();
    loop {
        let leads = state.borrow_and_update().am_leader;
        let wanted = wanted(&topology.borrow_and_update(), group.id());
        let step = next(&group, &mut home, &wanted, &standing);
        if let Err(error) = perform(&group, &step, &wanted).await {
            tracing::debug!("{}: {step:?} failed: {error}", group.id());
            home.restart();
            sleep(PAUSE).await;
        }
        let ended = tokio::select! {
            biased;
            changed = state.changed() => changed.is_err(),
            changed = topology.changed() => changed.is_err(),
            changed = reachability.changed() => changed.is_err(),
            _ = sleep(TICK), if leads => false,
        };
        if ended {
            return;
        }
        sleep(PACE).await;
    }
}

fn next(group: &Group, home: &mut HomeWatch, wanted: &Wanted, standing: &Standing) -> Step {
    let state = group.state();
    let state = state.borrow();
    let nodes = wanted.voters.values().map(|member| member.node);
    let unreachable: BTreeSet<NodeId> = nodes.filter(|node| !standing.bus.is_reachable(*node)).collect();
    let (me, now) = (group.member(), Instant::now());
    home.next(&Situation { me, state: &state, wanted, unreachable: &unreachable, now })
}

/// Whom a topology wants in a group.
pub fn wanted(topology: &Topology, group: GroupId) -> Wanted {
    let (members, home) = match (group, topology.shards.get(&group)) {
        (GroupId::META, _) => (&topology.meta, None),
        (_, Some(shard)) => (&shard.copies, Some(shard.home)),
        (_, None) => return Wanted::default(),
    };
    let member = |(id, member): (&NodeId, &MemberId)| {
        topology.nodes.get(id).map(|node| (*member, Member { node: *id, addr: node.bus }))
    };
    Wanted {
        voters: members.iter().filter_map(member).collect(),
        home: home.and_then(|home| members.get(&home)).copied(),
        next_member: topology.next_member,
    }
}

async fn perform(group: &Group, step: &Step, wanted: &Wanted) -> Result<(), GroupError> {
    let name = group.id();
    match step {
        Step::Nothing => Ok(()),
        Step::AddLearner(id, member) => {
            tracing::info!("{name}: node {} comes as member {id} and receives the log", member.node.short());
            group.add_learner(*id, member.clone()).await
        }
        Step::ChangeVoters(voters) => {
            group.change_voters(voters.clone()).await?;
            let nodes =
                voters.iter().filter_map(|id| wanted.voters.get(id)).map(|member| member.node.short());
            tracing::info!(
                "{name}: the copies that vote are now on {}",
                nodes.collect::<Vec<_>>().join(", ")
            );
            Ok(())
        }
        Step::RemoveLearner(id) => group.remove_learner(*id).await,
        Step::TransferTo(id) => {
            let node = wanted.voters.get(id).map(|member| member.node.short()).unwrap_or_default();
            tracing::info!("{name}: leadership goes home to {node}");
            group.transfer_leader(*id).await
        }
    }
}

/// Puts this node's leadership of a shard into the topology, until it is visible there.
pub async fn announce(group: Group, standing: Arc<Standing>) {
    let (mut state, mut topology) = (group.state(), standing.topology());
    loop {
        let term = leading_term(&state.borrow_and_update());
        let published = topology.borrow_and_update().shards.get(&group.id()).map(|shard| shard.leadership);
        let newer = |term: &u64| published.is_some_and(|known| known.is_none_or(|known| known.term < *term));
        if let Some(term) = term.filter(newer) {
            let leadership = Leadership { term, node: standing.site.me };
            if let Err(why) = propose(&standing, &Change::Lead { shard: group.id(), leadership }).await {
                tracing::warn!("{}: the cluster cannot be told that this node leads: {why}", group.id());
            }
            sleep(PAUSE).await;
            continue;
        }
        let ended = tokio::select! {
            biased;
            changed = state.changed() => changed.is_err(),
            changed = topology.changed() => changed.is_err(),
        };
        if ended {
            return;
        }
    }
}

fn leading_term(state: &GroupState) -> Option<u64> {
    (state.am_leader && state.ready).then_some(state.term)
}

/// Tells how the log's disk is, and leads nothing while it takes nothing: what this node cannot write itself it must
/// not promise to others, and what waits for room is bounded.
pub async fn watch_disk(mut condition: watch::Receiver<Condition>, groups: Groups, standing: Arc<Standing>) {
    let mut full = false;
    loop {
        let now = condition.borrow_and_update().clone();
        match now {
            Condition::Full => {
                if !full {
                    tracing::error!(
                        "the disk below dir is full: this node acknowledges nothing more and leads nothing until \
                         there is room; it then goes on by itself"
                    );
                }
                full = true;
                hand_over(&groups.all(), &standing, FULL_PACE).await;
            }
            Condition::Good if full => {
                full = false;
                tracing::info!("the disk below dir has room again: this node goes on");
            }
            Condition::Good => {}
            Condition::Failed(why) => {
                tracing::error!(
                    "the disk below dir has failed ({why}): nothing more is acknowledged, this node's copies stop. \
                     See to the disk, then start the node again"
                );
                return;
            }
        }
        tokio::select! {
            changed = condition.changed() => if changed.is_err() { return },
            // A leadership that could not be handed over yet, or came here meanwhile.
            () = sleep(FULL_PACE), if full => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::topology::Node;

    #[test]
    fn a_topology_says_who_belongs_to_which_group() {
        let [a, b] = [1, 2].map(|n| NodeId::from_bytes([n; 20]));
        let node = |port| Node { host: "h".into(), port, bus: ([127, 0, 0, 1], port).into(), incarnation: 1 };
        let (nodes, meta) = (BTreeMap::from([(a, node(1)), (b, node(2))]), BTreeMap::from([(a, 1), (b, 2)]));
        let mut topology = Topology::default();
        assert_eq!(wanted(&topology, GroupId(1)), Wanted::default());
        topology.apply(1, &Change::Form { nodes, meta, shards: 2, copies: 1 });
        let meta = wanted(&topology, GroupId::META);
        assert_eq!((meta.voters.len(), meta.home, meta.next_member), (2, None, 5));
        let second = wanted(&topology, GroupId(2));
        let member = Member { node: b, addr: ([127, 0, 0, 1], 2).into() };
        assert_eq!(second, Wanted { voters: BTreeMap::from([(4, member)]), home: Some(4), next_member: 5 });
    }
}
