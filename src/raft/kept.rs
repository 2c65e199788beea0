//! What a member keeps of its snapshots, and the leave to send one: shared by its state machine, inbox and handle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{MutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::raft::machine::Stager;
use crate::raft::snapshot_file::{Finished, SnapshotDir, SnapshotError, Unfinished};
use crate::raft::types::SnapshotMeta;

/// A follower that had to do without a cut is waited for so long; it asks again sooner than that.
const WAY: Duration = Duration::from_secs(1);

/// See the module.
pub struct Kept {
    /// Where snapshots are kept on disk; nowhere, with `durability memory`.
    dir: Option<SnapshotDir>,
    /// The index up to which the newest file goes.
    newest: Mutex<Option<u64>>,
    /// Snapshots one node may send at a time.
    sending: Arc<Semaphore>,
    /// One file at a time.
    saving: tokio::sync::Mutex<()>,
    /// When a follower last had to do without a cut, since a file was being written.
    wanting: Mutex<Option<Instant>>,
    /// Whether openraft runs: what it asks before, it asks about what is on disk.
    running: AtomicBool,
}

impl Kept {
    /// Nothing known of `dir` yet.
    pub fn new(dir: Option<SnapshotDir>, sending: Arc<Semaphore>) -> Kept {
        let (newest, saving, wanting) = (Mutex::default(), tokio::sync::Mutex::default(), Mutex::default());
        Kept { dir, newest, sending, saving, wanting, running: AtomicBool::new(false) }
    }

    /// Brings the newest snapshot on disk, if there is one, into the machine; what it covers.
    pub fn load(&self, stager: &Stager) -> Result<Option<SnapshotMeta>, SnapshotError> {
        let Some(dir) = &self.dir else { return Ok(None) };
        let mut staged = stager();
        let Some(meta) = dir.load(&mut *staged)? else { return Ok(None) };
        staged.install().map_err(|error| dir.unfit(error))?;
        self.note(meta.last_log_id.map_or(0, |id| id.index));
        Ok(Some(meta))
    }

    /// From here on openraft may ask for cuts.
    pub fn run(&self) {
        self.running.store(true, Ordering::Release);
    }

    /// The index up to which a restart needs no log.
    pub fn newest(&self) -> Option<u64> {
        *self.newest.lock()
    }

    /// Bytes of the newest file; 0: there is none.
    pub fn newest_bytes(&self) -> u64 {
        self.dir.as_ref().zip(self.newest()).map_or(0, |(dir, index)| dir.bytes(index))
    }

    /// Begins the file of a snapshot on its way in, where there are files.
    pub fn begin(&self) -> Result<Option<Unfinished>, SnapshotError> {
        self.dir.as_ref().map(SnapshotDir::begin).transpose()
    }

    /// Makes a whole file the one a restart begins with.
    pub async fn publish(&self, file: Finished) -> Result<(), SnapshotError> {
        let index = file.index();
        file.publish().await?;
        self.note(index);
        Ok(())
    }

    /// Leave to send a snapshot, unless as many as may be are being sent.
    pub fn leave_to_send(&self) -> Option<OwnedSemaphorePermit> {
        if !self.running.load(Ordering::Acquire) {
            return None;
        }
        self.sending.clone().try_acquire_owned().ok()
    }

    /// Notes whether a follower got the cut it needs. One that lacks entries matters more than a file.
    pub fn note_follower(&self, got_one: bool) {
        *self.wanting.lock() = (!got_one).then(Instant::now);
    }

    /// Whether a follower is waiting for a cut.
    pub fn is_follower_waiting(&self) -> bool {
        self.wanting.lock().is_some_and(|since| since.elapsed() < WAY)
    }

    /// The one place and the turn to write a snapshot there; `None` where nothing is kept.
    pub async fn turn_to_save(&self) -> Option<(&SnapshotDir, MutexGuard<'_, ()>)> {
        Some((self.dir.as_ref()?, self.saving.lock().await))
    }

    /// The newest file goes up to this index.
    pub fn note(&self, index: u64) {
        let mut newest = self.newest.lock();
        *newest = (*newest).max(Some(index));
    }
}
