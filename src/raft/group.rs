//! A member of a group on this node: the handle the rest of the server holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{
    ChangeMembershipError, ClientWriteError, ForwardToLeader, InitializeError, LinearizableReadError,
    RaftError,
};
use openraft::{ChangeMembers, RaftMetrics, ReadPolicy};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::bus::call::{Lane, Peer};
use crate::id::{GroupId, MemberId};
use crate::raft::client::Client;
use crate::raft::inside::Inside;
use crate::raft::lease::{Lease, lease_length};
use crate::raft::proposal::{Done, Proposal};
use crate::raft::state::{GroupError, GroupState, Member};
use crate::raft::types::TypeConfig;
use crate::raft::wire::{Answer, Message};

/// A member may become a voter once it lacks at most this many entries.
const NEARLY_CAUGHT_UP: u64 = 4096;
/// Time for a disk to take a log.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a membership change to be committed.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);

/// A member of a group on this node. A cheap handle, usable from every thread.
#[derive(Clone)]
pub struct Group(pub(in crate::raft) Arc<Inside>);

type Change = Result<(), RaftError<TypeConfig, ClientWriteError<TypeConfig>>>;

impl Group {
    /// Which group.
    pub fn id(&self) -> GroupId {
        self.0.options.group
    }

    /// This member's id.
    pub fn member(&self) -> MemberId {
        self.0.options.member
    }

    /// Forms the group out of `members` (this one among them), all new. To be called on one member, once in the
    /// group's life; on a second call: `Refused`.
    pub async fn initialize(&self, members: BTreeMap<MemberId, Member>) -> Result<(), GroupError> {
        self.0.raft.initialize(members).await.map_err(|error| match error {
            RaftError::APIError(InitializeError::NotAllowed(_)) => {
                GroupError::Refused("the group exists already".into())
            }
            RaftError::APIError(InitializeError::NotInMembers(_)) => {
                GroupError::Refused("this member is not among the first ones".into())
            }
            RaftError::Fatal(error) => GroupError::Stopped(error.to_string()),
        })
    }

    /// Proposes an entry and returns at once; `done` gets the outcome. Bound what you have in flight yourself:
    /// nothing here waits. While the leader's lease has run out (a quorum has not answered lately) proposals wait
    /// a short, bounded time for it to come back. Outcomes come as the log advances: on a member that lost its
    /// leadership and is cut off from the others an outcome may take until it hears from them again.
    pub fn propose(&self, proposal: Proposal, done: Done) {
        self.0.propose(proposal, done);
    }

    /// The group as this member sees it, now and after each change (progress figures lag up to 20 ms).
    pub fn state(&self) -> watch::Receiver<GroupState> {
        self.0.state.subscribe()
    }

    /// Whether the state here is at most so much older than the leader's.
    pub fn is_within(&self, limit: Duration, now: Instant) -> bool {
        self.0.inbox.freshness.is_within(limit, now)
    }

    /// The last moment as of which a quorum is known to have stood behind the state here: by this member's lease if it
    /// leads, by what its leader says otherwise.
    pub fn as_of(&self) -> Option<Instant> {
        #[cfg(feature = "broken")]
        if crate::broken::breaks(crate::broken::Rule::VouchedAlone) {
            return Some(Instant::now());
        }
        let length = lease_length(self.0.options.timing.election_max);
        let leading = self.0.lease.until().map(|until| until - length);
        leading.max(self.0.inbox.freshness.as_of())
    }

    /// Whether a member's disk has the log up to an index that is committed: waits for that disk, up to [`FLUSH_TIMEOUT`].
    pub async fn is_on_disk(&self, member: MemberId, index: u64) -> bool {
        if member == self.member() {
            return self.0.log.is_on_disk(index).await;
        }
        let state = self.state();
        let (peer, matched) = {
            let state = state.borrow();
            let node = state.voters.get(&member).or(state.learners.get(&member)).cloned();
            (node, state.followers.get(&member).and_then(|follower| follower.matched))
        };
        let Some(peer) = peer.filter(|_| matched.is_some_and(|matched| matched >= index)) else {
            return false;
        };
        let peer = Peer { node: Some(peer.node), addr: peer.addr };
        let client = Client { outside: self.0.outside.clone(), target: member, peer, lane: Lane::Bulk };
        let answer = client.call(Lane::Control, &Message::Flush(index), FLUSH_TIMEOUT).await;
        matches!(answer, Ok(Answer::Accepted))
    }

    /// Whether the end of its log may be missing, so that it does not act yet.
    pub fn is_doubted(&self) -> bool {
        self.0.doubt.lock().is_some()
    }

    /// What other copies had acknowledged may be missing from this log, though this copy itself was never in doubt.
    pub fn note_loss(&self) {
        self.0.lost.store(true, Ordering::Release);
    }

    /// Whether that was noted since the last call.
    pub fn has_lost(&self) -> bool {
        self.0.lost.load(Ordering::Relaxed) && self.0.lost.swap(false, Ordering::AcqRel)
    }

    /// The lease that tells whether a read was current.
    pub fn lease(&self) -> Lease {
        self.0.lease.clone()
    }

    /// Waits until the machine holds everything acknowledged before this call (ReadIndex, Raft thesis §6.4). On
    /// the leader only.
    pub async fn read_barrier(&self) -> Result<(), GroupError> {
        let limit = self.0.options.timing.election_max * 2;
        match timeout(limit, self.0.raft.ensure_linearizable(ReadPolicy::ReadIndex)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(leader)))) => {
                Err(not_leader(leader))
            }
            Ok(Err(RaftError::APIError(error))) => Err(unavailable(error)),
            Ok(Err(RaftError::Fatal(error))) => Err(GroupError::Stopped(error.to_string())),
            Err(_) => Err(GroupError::Unavailable(format!("no quorum answered within {limit:?}"))),
        }
    }

    /// Adds a member that receives the log and doesn't vote; returns when the addition is committed.
    pub async fn add_learner(&self, id: MemberId, member: Member) -> Result<(), GroupError> {
        changed(async { self.0.raft.add_learner(id, member, false).await.map(drop) }).await
    }

    /// Makes exactly these members (voters or learners now) the voters; voters left out leave the group. Members
    /// that have not caught up nearly with the log are no voters yet: `Unavailable`.
    pub async fn change_voters(&self, voters: BTreeSet<MemberId>) -> Result<(), GroupError> {
        self.check_caught_up(&voters)?;
        let change = ChangeMembers::ReplaceAllVoters(voters);
        changed(async { self.0.raft.change_membership(change, false).await.map(drop) }).await
    }

    /// Removes a learner.
    pub async fn remove_learner(&self, id: MemberId) -> Result<(), GroupError> {
        let change = ChangeMembers::RemoveNodes(BTreeSet::from([id]));
        changed(async { self.0.raft.change_membership(change, false).await.map(drop) }).await
    }

    fn check_caught_up(&self, voters: &BTreeSet<MemberId>) -> Result<(), GroupError> {
        let state = self.0.state.borrow();
        let added = voters.iter().filter(|id| !state.voters.contains_key(id));
        for id in added.filter(|id| **id != self.member()) {
            let matched = state.followers.get(id).and_then(|follower| follower.matched);
            if matched.is_none_or(|matched| matched + NEARLY_CAUGHT_UP < state.last_log) {
                let why = format!("member {id} has the log up to {matched:?} of {}", state.last_log);
                return Err(GroupError::Unavailable(why));
            }
        }
        Ok(())
    }

    /// Hands the leadership to another voter: ends the lease, holds proposals back until that voter has the whole
    /// log, then asks it to stand for election at once. Returns when somebody else leads.
    pub async fn transfer_leader(&self, to: MemberId) -> Result<(), GroupError> {
        self.transfer_to_first_of(&[to]).await.map(drop)
    }

    /// The same, to whichever of `heirs` has the whole log first; if several do, the first of them in this order. Gives
    /// the one that was asked.
    pub async fn transfer_to_first_of(&self, heirs: &[MemberId]) -> Result<MemberId, GroupError> {
        let mut state = self.0.state.subscribe();
        let term = {
            let state = state.borrow_and_update();
            if !state.am_leader {
                return Err(GroupError::NotLeader { leader: state.leader.map(|(member, _)| member) });
            }
            let is_another = |to: &&MemberId| state.voters.contains_key(to) && **to != self.member();
            if heirs.is_empty() || !heirs.iter().all(|to| is_another(&to)) {
                return Err(GroupError::Refused(format!("{heirs:?} are not other voters")));
            }
            state.term
        };
        self.0.end_lease(term);
        let held = HeldProposals::new(&self.0);
        let limit = self.0.options.timing.election_max;
        let has_all = |metrics: &RaftMetrics<TypeConfig>, heir: &MemberId| {
            let matched = metrics.replication.iter().flatten().find(|(id, _)| *id == heir);
            let matched = matched.and_then(|(_, matched)| matched.as_ref()).map(|id| id.index);
            matched.is_some() && matched >= metrics.last_log_index
        };
        let mut metrics = self.0.raft.metrics();
        let over = |now: &RaftMetrics<TypeConfig>| now.current_term != term;
        let ready = metrics.wait_until(|now| over(now) || heirs.iter().any(|heir| has_all(now, heir)));
        if timeout(limit, ready).await.is_err() {
            self.0.resume_lease(term);
            return Err(GroupError::Unavailable(format!("none of {heirs:?} caught up within {limit:?}")));
        }
        let heir = heirs.iter().find(|heir| has_all(&metrics.borrow_watched(), heir));
        let to = heir.or(heirs.first()).copied().unwrap_or_default();
        let asked = self.0.raft.trigger().transfer_leader(to).await;
        asked.map_err(|error| GroupError::Stopped(error.to_string()))?;
        let me = self.member();
        let elsewhere =
            |state: &GroupState| state.term > term && state.leader.is_some_and(|(leader, _)| leader != me);
        let moved = timeout(limit * 3, state.wait_for(elsewhere)).await.is_ok();
        drop(held);
        match moved {
            true => Ok(to),
            false => Err(GroupError::Unavailable(format!("member {to} did not take the leadership over"))),
        }
    }

    /// Writes the machine's state as it is now to this member's snapshot file, in the background, paced; returns the
    /// last log index in it once the file has replaced the earlier one, so that the log up to there is not needed for
    /// a restart. The group goes on meanwhile. `Refused` where nothing is kept on disk, `Unavailable` if the disk
    /// would not take it (the earlier file is still there then).
    pub async fn save_snapshot(&self) -> Result<u64, GroupError> {
        let inside = self.0.clone();
        let saving = self.0.runtime.spawn(async move { inside.save_snapshot().await });
        saving.await.unwrap_or_else(|error| Err(GroupError::Stopped(error.to_string())))
    }

    /// The last log index in the newest snapshot file.
    pub fn saved_snapshot(&self) -> Option<u64> {
        self.0.kept.newest()
    }

    /// Stops this member: ends the lease, leaves the directory, ends all its tasks.
    pub async fn shutdown(&self) {
        self.0.leave();
        self.0.stopped.store(true, Ordering::Release);
        self.0.end_lease(u64::MAX);
        if let Err(error) = self.0.raft.shutdown().await {
            tracing::warn!(group = %self.id(), %error, "a raft member did not stop cleanly");
        }
        self.0.wake.notify_one();
    }
}

/// While it lives proposals wait.
struct HeldProposals<'a>(&'a Inside);

impl<'a> HeldProposals<'a> {
    fn new(inside: &'a Inside) -> HeldProposals<'a> {
        inside.queue.lock().held = true;
        HeldProposals(inside)
    }
}

impl Drop for HeldProposals<'_> {
    fn drop(&mut self) {
        self.0.queue.lock().held = false;
        self.0.wake.notify_one();
    }
}

fn not_leader(forward: ForwardToLeader<TypeConfig>) -> GroupError {
    GroupError::NotLeader { leader: forward.leader_id }
}

fn unavailable(error: impl Display) -> GroupError {
    GroupError::Unavailable(error.to_string())
}

/// Waits for a membership change, in our words.
async fn changed(change: impl Future<Output = Change>) -> Result<(), GroupError> {
    let Ok(change) = timeout(CHANGE_TIMEOUT, change).await else {
        return Err(GroupError::Unavailable(format!(
            "the change was not committed within {CHANGE_TIMEOUT:?}"
        )));
    };
    change.map_err(|error| match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(leader)) => not_leader(leader),
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
            ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_) => {
                unavailable(error)
            }
            error => GroupError::Refused(error.to_string()),
        },
        RaftError::APIError(error) => unavailable(error),
        RaftError::Fatal(error) => GroupError::Stopped(error.to_string()),
    })
}
