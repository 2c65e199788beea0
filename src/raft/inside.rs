//! One member's inside: what its handle, its driver and its inbox share.

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use openraft::Raft;
use openraft::raft::AppendEntriesResponse;
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use crate::id::GroupId;
use crate::raft::client::Outside;
use crate::raft::doubt::Doubt;
use crate::raft::inbox::Inbox;
use crate::raft::kept::Kept;
use crate::raft::lease::Lease;
use crate::raft::log_store::LogStore;
use crate::raft::machine::{Cut, CutLost};
use crate::raft::queue::Queue;
use crate::raft::snapshot_file::SnapshotError;
use crate::raft::state::{GroupError, GroupOptions, GroupState};
use crate::raft::state_machine::Adapter;
use crate::raft::types::{SnapshotMeta, TypeConfig};
use crate::raft::wire::{self, Answer, Message};

/// Between two attempts to have a cut while another is being pulled.
const ANOTHER_CUT: Duration = Duration::from_millis(50);

/// Why a file is begun again.
const GAVE_WAY: CutLost = CutLost("a follower needs one");

/// The members on this node, by group.
pub type Members = RwLock<BTreeMap<GroupId, Arc<Inside>>>;

/// What the handles, the driver and the inbox of one member share.
pub struct Inside {
    pub options: GroupOptions,
    pub raft: Raft<TypeConfig, Adapter>,
    pub log: LogStore,
    pub outside: Arc<Outside>,
    pub state: watch::Sender<GroupState>,
    pub lease: Lease,
    /// The term in which the lease must not be extended any more: its leadership is being handed over, or (the
    /// last term there is) the member stops. Locked while the lease is changed.
    pub lease_ends: Mutex<Option<u64>>,
    pub queue: Mutex<Queue>,
    /// Wakes the driver.
    pub wake: Notify,
    pub stopped: AtomicBool,
    /// Whether its log may lack its end.
    pub doubt: Mutex<Option<Doubt>>,
    /// See `Group::note_loss`.
    pub lost: AtomicBool,
    pub inbox: Inbox,
    pub kept: Arc<Kept>,
    /// Leave to write a snapshot because the log has grown; the node's: one at a time.
    pub saving: Arc<Semaphore>,
    /// The runtime whose thread carries the group.
    pub runtime: Handle,
    /// The directory this member is in.
    pub members: Arc<Members>,
}

impl Inside {
    /// Takes this member out of the directory.
    pub fn leave(&self) {
        let mut members = self.members.write();
        if members.get(&self.options.group).is_some_and(|there| there.options.member == self.options.member) {
            members.remove(&self.options.group);
        }
    }

    /// Answers another member's message.
    pub async fn answer(&self, message: Message) -> Bytes {
        let answer = match self.stopped.load(Ordering::Acquire) {
            true => Answer::Refused("the member has stopped".into()),
            // Its core is about to stop, and openraft does not bear calls to a core that stops.
            false if self.log.has_failed() => Answer::Refused("this node's disk has failed".into()),
            false if matches!(message, Message::Transfer(_)) && !self.log.takes_entries() => {
                Answer::Refused("this node cannot lead: its disk takes nothing".into())
            }
            false if let Some(vote) = self.doubt.lock().and_then(|doubt| doubt.objection(&message)) => {
                let mark = self.inbox.freshness.mark(Instant::now());
                Answer::Append(AppendEntriesResponse::HigherVote(vote), mark)
            }
            false if self.doubt.lock().is_some_and(|doubt| !doubt.admits(&message)) => {
                Answer::Refused("this member's log may lack its end: it waits for the others".into())
            }
            false if let Message::Flush(index) = message => match self.log.is_on_disk(index).await {
                true => Answer::Accepted,
                false => Answer::Refused("that is not on this disk".into()),
            },
            false if let Message::Leave(member) = message => match self.spares(member).await {
                true => Answer::Accepted,
                false => Answer::Refused("the others lack some of the log".into()),
            },
            // Without tokio's budget: a message must reach openraft's queue at the first poll, so that those of
            // one stream keep their order.
            false => tokio::task::unconstrained(self.inbox.answer(&self.raft, message)).await,
        };
        wire::encode_answer(&answer)
    }

    /// Writes a cut of the machine, made as soon as it can be had, to disk; the last index in it. Begins again if a
    /// follower needs one meanwhile: there is one cut at a time.
    pub async fn save_snapshot(&self) -> Result<u64, GroupError> {
        let Some((dir, _turn)) = self.kept.turn_to_save().await else {
            return Err(GroupError::Refused("this node keeps nothing on disk".into()));
        };
        loop {
            let (meta, cut) = self.cut().await?;
            match dir.save(&meta, self.giving_way(cut)).await {
                Ok(()) => {
                    let index = meta.last_log_id.map_or(0, |id| id.index);
                    self.kept.note(index);
                    return Ok(index);
                }
                Err(SnapshotError::Lost(GAVE_WAY)) => {}
                Err(error) => return Err(GroupError::Unavailable(error.to_string())),
            }
        }
    }

    /// A cut for a file, as soon as it can be had.
    async fn cut(&self) -> Result<(SnapshotMeta, Cut), GroupError> {
        loop {
            if !self.kept.is_follower_waiting() {
                let cut = self.raft.with_state_machine(|adapter| Box::pin(ready(adapter.cut()))).await;
                if let Some(cut) = cut.map_err(|error| GroupError::Stopped(error.to_string()))? {
                    return Ok(cut);
                }
            }
            tokio::time::sleep(ANOTHER_CUT).await;
        }
    }

    /// A cut that ends as soon as a follower needs one.
    fn giving_way(&self, cut: Cut) -> Cut {
        let kept = self.kept.clone();
        Box::new(cut.map(move |chunk| if kept.is_follower_waiting() { Err(GAVE_WAY) } else { chunk }))
    }

    /// Ends the lease, for good in `term` (and, if that is the last term there is, in all).
    pub fn end_lease(&self, term: u64) {
        let mut ends = self.lease_ends.lock();
        *ends = (*ends).max(Some(term));
        self.lease.revoke();
    }

    /// Lets the lease of `term` go on after all.
    pub fn resume_lease(&self, term: u64) {
        self.lease_ends.lock().take_if(|ends| *ends == term);
    }

    /// Lets the lease of `term` end at `until`, or now (`None`).
    pub fn set_lease(&self, term: u64, until: Option<Instant>) {
        let ends = self.lease_ends.lock();
        match until {
            Some(until) if ends.is_none_or(|ends| ends < term) => self.lease.extend(until),
            _ => self.lease.revoke(),
        }
    }
}
