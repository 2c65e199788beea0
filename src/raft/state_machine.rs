//! Between openraft and a [`Machine`]: applies entries, cuts and installs snapshots, remembers what openraft wants
//! remembered (last applied entry, membership).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::id::MemberId;
use crate::raft::kept::Kept;
use crate::raft::machine::{Cut, Machine, Staged};
use crate::raft::snapshot_file::{Finished, SnapshotError};
use crate::raft::state::Member;
use crate::raft::types::{Entry, LogId, SnapshotMeta, StoredMembership, TypeConfig};

/// Applying yields to the other tasks of its thread (heartbeats among them) after this long.
const APPLY_SLICE: Duration = Duration::from_millis(2);

/// A snapshot on its way.
pub enum SnapshotBody {
    /// A cut of the machine, to be sent, and the leave to do so.
    Cut(Cut, OwnedSemaphorePermit),
    /// All of one, received: the state it makes, and its file where snapshots are kept on disk.
    Received(Box<dyn Staged>, Option<Finished>),
    /// Only the fact that the log up to here could be had as a snapshot: openraft purges nothing else.
    Possible,
}

/// openraft's snapshot with our body.
pub type RaftSnapshot =
    Snapshot<openraft::alias::CommittedLeaderIdOf<TypeConfig>, MemberId, Member, SnapshotBody>;

/// The adapter.
pub struct Adapter {
    /// Only ever reached through `&mut self`; the mutex makes the adapter `Sync`, which openraft demands.
    machine: Mutex<Box<dyn Machine>>,
    applied: Option<LogId>,
    /// The index of the last entry that is being applied or was.
    reached: Arc<AtomicU64>,
    membership: StoredMembership,
    kept: Arc<Kept>,
}

impl Adapter {
    /// Around an empty machine, which first takes in the newest snapshot that is kept on disk. Blocking.
    /// `reached` is told of every entry, before anybody else is.
    pub fn open(
        machine: Box<dyn Machine>,
        kept: Arc<Kept>,
        reached: Arc<AtomicU64>,
    ) -> Result<Adapter, SnapshotError> {
        let meta = kept.load(&machine.stager())?.unwrap_or_default();
        let (applied, membership) = (meta.last_log_id, meta.last_membership);
        reached.store(applied.map_or(0, |id| id.index), Ordering::Release);
        Ok(Adapter { machine: Mutex::new(machine), applied, reached, membership, kept })
    }

    /// The state as it is now and what it covers; `None` while an earlier cut is being pulled. Called between applies.
    pub fn cut(&mut self) -> Option<(SnapshotMeta, Cut)> {
        Some((self.meta(), self.machine.get_mut().snapshot()?))
    }

    /// The last entry in the state.
    pub fn applied(&self) -> Option<LogId> {
        self.applied
    }

    /// Applies the entry after it, which is committed.
    pub fn apply_one(&mut self, entry: Entry) {
        let id = entry.log_id;
        self.reached.store(id.index, Ordering::Release);
        match entry.payload {
            EntryPayload::Normal(proposal) => {
                let term = id.committed_leader_id().term;
                self.machine.get_mut().apply(id.index, term, &proposal.bytes, proposal.local);
            }
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(id), membership);
            }
            EntryPayload::Blank => {}
        }
        self.applied = Some(id);
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() }
    }
}

impl RaftStateMachine<TypeConfig> for Adapter {
    type SnapshotData = SnapshotBody;
    type SnapshotBuilder = Possible;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut slice_end = Instant::now() + APPLY_SLICE;
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            self.apply_one(entry);
            if let Some(responder) = responder {
                responder.send(());
            }
            if Instant::now() >= slice_end {
                tokio::task::yield_now().await;
                slice_end = Instant::now() + APPLY_SLICE;
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Possible {
        Possible(self.meta())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, body: SnapshotBody) -> Result<(), io::Error> {
        let SnapshotBody::Received(staged, file) = body else {
            return Err(io::Error::other("only a received snapshot can be installed"));
        };
        if let Some(file) = file {
            self.kept.publish(file).await.map_err(io::Error::other)?;
        }
        staged.install().map_err(io::Error::other)?;
        self.reached.store(meta.last_log_id.map_or(0, |id| id.index), Ordering::Release);
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    /// Called between applies: a fresh cut, whenever a follower needs one. While none can be had (as many as may be
    /// are being sent, or this machine's last one is still being pulled) the sender finds nothing to send, and openraft
    /// asks again after a while. `None` would be the end of this member.
    async fn get_current_snapshot(&mut self) -> Result<Option<RaftSnapshot>, io::Error> {
        if self.applied.is_none() {
            return Ok(None); // Asked once at the start, when there is nothing to restore from.
        }
        let body = self.kept.leave_to_send().and_then(|leave| {
            let cut = self.machine.get_mut().snapshot();
            self.kept.note_follower(cut.is_some());
            Some(SnapshotBody::Cut(cut?, leave))
        });
        Ok(Some(Snapshot { meta: self.meta(), snapshot: body.unwrap_or(SnapshotBody::Possible) }))
    }
}

/// "Builds" a snapshot that is only cut when a follower needs it.
pub struct Possible(SnapshotMeta);

impl RaftSnapshotBuilder<TypeConfig> for Possible {
    type SnapshotData = SnapshotBody;

    async fn build_snapshot(&mut self) -> Result<RaftSnapshot, io::Error> {
        Ok(Snapshot { meta: self.0.clone(), snapshot: SnapshotBody::Possible })
    }
}
