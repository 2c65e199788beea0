//! When a member's snapshot is written to disk: once the log since the last one has grown so long that a restart would
//! take longer by it than by the snapshot. The log up to there may then go.
//!
//! Counted is the log of all members together, because that is what the files hold: a member with a single entry in the
//! oldest file keeps all files. Such a cold member is saved too, as often as the others have written its own size.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::raft::inside::Inside;
use crate::wal::Key;
use crate::wal::log::Wal;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// After a snapshot that could not be written.
const PAUSE: Duration = Duration::from_secs(10);

/// What is known of one member's snapshots. Belongs to its driver.
#[derive(Default)]
pub struct Saving {
    /// How much had been written to the log when the last snapshot was cut.
    since: Option<u64>,
    /// The index it covers.
    covered: Option<u64>,
    next_look: Option<Instant>,
    task: Option<tokio::task::JoinHandle<bool>>,
    /// Where the log stood when the one being written was cut.
    cut_at: u64,
}

impl Saving {
    /// Looks whether a snapshot has come to the disk, and whether one should.
    pub async fn look(&mut self, inside: &Arc<Inside>, now: Instant) {
        let Some((wal, key)) = inside.log.behind_it() else { return };
        if self.next_look.is_some_and(|at| now < at) {
            return;
        }
        self.next_look = Some(now + LOOK);
        let mut cut_at = None;
        if let Some(task) = self.task.take_if(|task| task.is_finished()) {
            match task.await {
                Ok(true) => cut_at = Some(self.cut_at),
                _ => self.next_look = Some(now + PAUSE),
            }
        }
        self.release(inside, wal, key, cut_at);
        let since = *self.since.get_or_insert_with(|| wal.written().saturating_sub(wal.behind(key)));
        let grown = wal.written().saturating_sub(since);
        let bound = inside.kept.newest_bytes().max(inside.options.log_bytes as u64);
        if self.task.is_none() && grown > bound && wal.behind(key) > 0 {
            self.cut_at = wal.written();
            self.task = Some(tokio::spawn(save(inside.clone(), grown)));
        }
    }

    /// Lets the log go up to the newest snapshot, whether written here or received.
    fn release(&mut self, inside: &Inside, wal: &Wal, key: Key, cut_at: Option<u64>) {
        let newest = inside.kept.newest();
        if newest > self.covered {
            self.covered = newest;
            self.since = Some(cut_at.unwrap_or_else(|| wal.written()));
            newest.into_iter().for_each(|index| wal.release(key, index));
        }
    }
}

/// Whether it is on the disk.
async fn save(inside: Arc<Inside>, grown: u64) -> bool {
    let group = inside.options.group;
    let Ok(_turn) = inside.saving.acquire().await else { return false };
    let begun = Instant::now();
    match inside.save_snapshot().await {
        Ok(index) => {
            let seconds = begun.elapsed().as_secs_f32();
            tracing::info!(
                "{group}: a snapshot up to entry {index} is on disk after {seconds:.1} s ({} MB of log since the last)",
                grown >> 20
            );
            true
        }
        Err(error) => {
            tracing::warn!("{group}: no snapshot could be written, so the log stays: {error}");
            false
        }
    }
}
