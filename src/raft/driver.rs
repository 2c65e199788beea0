//! The task beside openraft's: publishes state and lease, purges the log by bytes, takes up proposals that wait.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::alias::WatchReceiverOf;
use openraft::async_runtime::WatchReceiver;
use openraft::{Instant as _, RaftMetrics, ServerState};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::bus::call::Peer;
use crate::raft::inside::Inside;
use crate::raft::lease::lease_length;
use crate::raft::saving::Saving;
use crate::raft::state::{Follower, GroupState};
use crate::raft::succession::{Link, Succession};
use crate::raft::types::TypeConfig;

/// Progress figures are published this often; who leads and who belongs, at once.
const PROGRESS: Duration = Duration::from_millis(20);
/// What stays of a full log is this part of its limit.
const KEEP: (usize, usize) = (3, 4);
/// While a snapshot is being sent the log after its cut is kept up to this many times the limit.
const SENDING_FACTOR: usize = 4;

type Metrics = RaftMetrics<TypeConfig>;

/// Runs until the member stops.
pub async fn drive(inside: Arc<Inside>) {
    let mut metrics: WatchReceiverOf<TypeConfig, Metrics> = inside.raft.metrics();
    let mut tick = interval(PROGRESS);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let driver = &mut Driver {
        inside,
        published: Published::default(),
        alone: false,
        succession: Succession::default(),
    };
    let mut reachability = driver.inside.outside.bus.reachability();
    let mut saving = Saving::default();
    loop {
        let due = driver.due(Instant::now());
        let ticked = tokio::select! {
            biased; // The tick first: changes may never cease.
            _ = tick.tick() => true,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                driver.stand().await;
                false
            }
            Ok(()) = reachability.changed() => false,
            () = driver.inside.wake.notified() => false,
            changed = metrics.changed() => match changed {
                Ok(()) => false,
                Err(_) => break,
            },
        };
        let now = Instant::now();
        let purge = {
            let metrics = metrics.borrow_watched();
            if let Err(error) = &metrics.running_state {
                driver.fail(error.to_string());
                break;
            }
            driver.observe(&metrics, ticked, now);
            if ticked && let Some(why) = driver.doubt(&metrics, now) {
                driver.fail(why);
                break;
            }
            if ticked {
                driver.inside.inbox.forget_stale(now);
            }
            if ticked { driver.purge_wanted(&metrics, now) } else { None }
        };
        if ticked {
            driver.set_floor(purge.as_ref());
        }
        if let Some(purge) = purge {
            driver.purge(purge).await;
        }
        if ticked {
            saving.look(&driver.inside, now).await;
        }
    }
    driver.inside.end_lease(u64::MAX);
    driver.inside.refuse_waiting();
}

struct Driver {
    inside: Arc<Inside>,
    published: Published,
    /// Whether this member is the only voter.
    alone: bool,
    succession: Succession,
}

/// What of the published state is worth publishing again at once.
#[derive(Default, PartialEq)]
struct Published {
    term: u64,
    leader: Option<u64>,
    ready: bool,
    membership: Option<u64>,
}

/// A purge to ask openraft for.
struct Purge {
    upto: u64,
    /// openraft purges only what a snapshot covers; it must hear first that one is possible.
    covered: bool,
}

impl Driver {
    fn observe(&mut self, metrics: &Metrics, ticked: bool, now: Instant) {
        let leads = metrics.state == ServerState::Leader;
        let own_term =
            metrics.last_applied.is_some_and(|id| id.committed_leader_id().term == metrics.current_term);
        let ready = leads && own_term;
        let published = Published {
            term: metrics.current_term,
            leader: metrics.current_leader,
            ready,
            membership: metrics.membership_config.log_id().map(|id| id.index),
        };
        if published.membership != self.published.membership {
            self.observe_members(metrics);
        }
        self.extend_lease(metrics, ready, now);
        if published != self.published || ticked {
            if published.leader != self.published.leader || published.term != self.published.term {
                self.tell(&published);
            }
            self.published = published;
            let state = self.state(metrics, ready);
            self.inside.state.send_if_modified(|old| {
                let changed = *old != state;
                *old = state;
                changed
            });
        }
        let elsewhere = metrics.current_leader.is_some() && !leads;
        self.inside.retry(elsewhere || self.inside.lease.lasts(now), now);
    }

    /// Ends the doubt when there is no more reason for it. `Some`: it will never end.
    fn doubt(&self, metrics: &Metrics, now: Instant) -> Option<String> {
        let mut doubt = self.inside.doubt.lock();
        if doubt.as_ref()?.is_over(metrics.last_applied.map(|id| id.committed_leader_id().term)) {
            *doubt = None;
            self.inside.raft.runtime_config().elect(true);
            tracing::info!("{}: this node's copy is whole again", self.inside.options.group);
            return None;
        }
        let hopeless = doubt.as_ref()?.is_hopeless(now);
        hopeless.then(|| "its log lacks its end, and the copy that had most of it does not lead".into())
    }

    /// Keeps the control connections that an election would need at once, and notes whether there are others.
    fn observe_members(&mut self, metrics: &Metrics) {
        self.alone = metrics.membership_config.voter_ids().eq([self.inside.options.member]);
        for (id, member) in metrics.membership_config.nodes() {
            if *id != self.inside.options.member {
                self.inside.outside.bus.watch_peer(Peer { node: Some(member.node), addr: member.addr });
            }
        }
    }

    fn tell(&self, published: &Published) {
        let (group, member) = (self.inside.options.group, self.inside.options.member);
        match published.leader {
            Some(leader) if leader == member => tracing::debug!(%group, term = published.term, "leading"),
            Some(leader) => tracing::debug!(%group, term = published.term, leader, "following"),
            None => tracing::debug!(%group, term = published.term, "without a leader"),
        }
    }

    /// When to stand for election without waiting for openraft's timer.
    fn due(&mut self, now: Instant) -> Option<Instant> {
        let (inside, bus) = (&self.inside, &self.inside.outside.bus);
        let state = inside.state.borrow();
        let link = |node| Link { node, connections: bus.connections(node), answers: bus.is_reachable(node) };
        self.succession.look(state.leader.map(|(_, node)| link(node)), now);
        if inside.doubt.lock().is_some() {
            return None;
        }
        let lease = inside.options.timing.election_max;
        self.succession.due(inside.options.member, &state, inside.inbox.heard(), lease)
    }

    /// Asks for a pre-vote; a lease that is still valid here or with the others makes it come to nothing.
    async fn stand(&mut self) {
        self.succession.note(Instant::now());
        tracing::debug!(group = %self.inside.options.group, "the leader's node is gone: standing for election");
        if let Err(error) = self.inside.raft.trigger().elect(true).await {
            tracing::debug!(group = %self.inside.options.group, %error, "no election: the member has stopped");
        }
    }

    fn extend_lease(&self, metrics: &Metrics, ready: bool, now: Instant) {
        let length = lease_length(self.inside.options.timing.election_max);
        // `now` was taken before `elapsed` is, so the result is never later than the truth.
        let acked = metrics.last_quorum_acked.map(|acked| now - acked.elapsed());
        let until = if self.alone { Some(now) } else { acked }.filter(|_| ready).map(|since| since + length);
        self.inside.set_lease(metrics.current_term, until);
    }

    fn state(&self, metrics: &Metrics, ready: bool) -> GroupState {
        let membership = metrics.membership_config.membership();
        let member = |id: u64| membership.get_node(&id).map(|member| (id, member.clone()));
        let leader = metrics.current_leader.and_then(|id| Some((id, membership.get_node(&id)?.node)));
        let heard = |id: &u64| {
            let acked = metrics.heartbeat.as_ref()?.get(id).copied().flatten()?;
            Some(Instant::now() - acked.elapsed())
        };
        let followers = metrics.replication.iter().flatten();
        let followers =
            followers.filter(|(id, _)| **id != self.inside.options.member).map(|(id, matched)| {
                (*id, Follower { matched: matched.as_ref().map(|id| id.index), heard: heard(id) })
            });
        GroupState {
            term: metrics.current_term,
            voted_for: (!metrics.vote.committed && metrics.current_term > 0)
                .then_some(metrics.vote.leader_id.voted_for),
            leader,
            am_leader: metrics.state == ServerState::Leader,
            ready,
            last_applied: metrics.last_applied.map_or(0, |id| id.index),
            last_log: metrics.last_log_index.unwrap_or(0),
            joint: membership.get_joint_config().len() > 1,
            voters: membership.voter_ids().filter_map(member).collect(),
            learners: membership.learner_ids().filter_map(member).collect(),
            followers: followers.collect(),
            log_bytes: self.inside.log.bytes(),
            failed: None,
        }
    }

    fn purge_wanted(&self, metrics: &Metrics, now: Instant) -> Option<Purge> {
        let limit = self.inside.options.log_bytes;
        let held = self.inside.log.bytes();
        if held <= limit {
            return None;
        }
        let applied = metrics.last_applied?.index;
        let mut upto = self.inside.log.purge_target(limit / KEEP.1 * KEEP.0, applied)?;
        let oldest_cut = self.oldest_cut(now);
        if let Some(cut) = oldest_cut.filter(|_| held <= limit.saturating_mul(SENDING_FACTOR)) {
            upto = upto.min(cut);
        }
        if metrics.purged.is_some_and(|purged| purged.index >= upto) {
            return None;
        }
        Some(Purge { upto, covered: metrics.snapshot.is_some_and(|snapshot| snapshot.index >= upto) })
    }

    /// The index of the oldest snapshot whose follower still needs the log after it.
    fn oldest_cut(&self, now: Instant) -> Option<u64> {
        let mut cuts = self.inside.outside.cuts.lock();
        cuts.retain(|_, cut| cut.until.is_none_or(|until| now < until));
        cuts.values().map(|cut| cut.index).min()
    }

    /// Ends streams that need what is wanted away, since openraft purges nothing that is being sent. When nothing is
    /// wanted away any more (a purge asked for earlier was enough), the log that is left is there for all: openraft sends
    /// no snapshot to a follower for whom it has entries.
    fn set_floor(&self, purge: Option<&Purge>) {
        self.inside.outside.floor.store(purge.map_or(0, |purge| purge.upto + 1), Ordering::Relaxed);
    }

    async fn purge(&self, purge: Purge) {
        let trigger = self.inside.raft.trigger();
        let asked =
            if purge.covered { trigger.purge_log(purge.upto).await } else { trigger.snapshot().await };
        if let Err(error) = asked {
            tracing::debug!(group = %self.inside.options.group, %error, "no purge: the member has stopped");
        }
    }

    fn fail(&self, why: String) {
        let group = self.inside.options.group;
        if !self.inside.stopped.load(Ordering::Acquire) {
            tracing::error!(%group, why, "a raft member has failed; it must be replaced by a new one");
        }
        self.inside.state.send_modify(|state| {
            *state = GroupState { term: state.term, failed: Some(why), ..GroupState::default() };
        });
    }
}
