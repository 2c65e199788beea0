//! The handle to the log, and its flusher.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};

use crate::wal::disk::Disk;
use crate::wal::flush::{Condition, Done};
use crate::wal::record::{Kind, Record};
use crate::wal::scan::Located;
use crate::wal::segment::name;
use crate::wal::trust::Boot;
use crate::wal::writer::{BALLAST, BALLAST_BYTES, Writer};
use crate::wal::{Key, NODE};

/// The disk has what was written at most so long ago.
pub const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// A full disk is tried again this often.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// A disk that takes longer for the last flush is given up.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// The next segment is zeroed in pieces of this size.
const ZEROS: usize = 1 << 20;

/// A cheap handle, usable from every thread. When the last one goes, the flusher ends.
#[derive(Clone)]
pub struct Wal {
    shared: Arc<Shared>,
    _alive: Arc<Alive>,
}

struct Shared {
    disk: Arc<dyn Disk>,
    writer: Mutex<Writer>,
    wake: Notify,
    condition: watch::Sender<Condition>,
    closed: AtomicBool,
    boot: Option<Boot>,
    doubted: AtomicBool,
}

struct Alive(Arc<Shared>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.wake.notify_one();
    }
}

impl Wal {
    /// Around a writer; with the flusher, which somebody must run.
    pub(in crate::wal) fn new(
        disk: Arc<dyn Disk>,
        writer: Writer,
        boot: Option<Boot>,
        doubted: bool,
    ) -> (Wal, Flusher) {
        let shared = Arc::new(Shared {
            disk,
            writer: Mutex::new(writer),
            wake: Notify::new(),
            condition: watch::Sender::new(Condition::Good),
            closed: AtomicBool::new(false),
            boot,
            doubted: AtomicBool::new(doubted),
        });
        (Wal { shared: shared.clone(), _alive: Arc::new(Alive(shared.clone())) }, Flusher(shared))
    }

    /// Appends records, in this order and after all earlier ones; `done` is told when they are kept (see
    /// [`crate::wal::trust::Sync`]).
    pub fn append<'a>(&self, records: impl IntoIterator<Item = Record<'a>>, done: Done) {
        self.write(records, done, false);
    }

    /// The same; `done` is told when they are on the disk.
    pub fn append_durably<'a>(&self, records: impl IntoIterator<Item = Record<'a>>, done: Done) {
        self.write(records, done, true);
    }

    fn write<'a>(&self, records: impl IntoIterator<Item = Record<'a>>, done: Done, durable: bool) {
        let mut writer = self.shared.writer.lock();
        let told = writer.append(records, done, durable);
        self.shared.turn(&writer);
        drop(writer);
        match told {
            Some((done, result)) => done(result),
            // Somebody waits for the disk, for room, or to hear that it has failed.
            None => self.shared.wake.notify_one(),
        }
    }

    /// Waits until a record is on the disk.
    pub async fn save(&self, record: Record<'_>) -> io::Result<()> {
        let (done, kept) = oneshot::channel();
        self.append_durably([record], Box::new(move |result| drop(done.send(result))));
        kept.await.map_err(|_| io::Error::other("the log is closed"))?
    }

    /// Waits until everything written so far is on the disk.
    pub async fn flush(&self) -> io::Result<()> {
        let (done, kept) = oneshot::channel();
        self.append_durably([], Box::new(move |result| drop(done.send(result))));
        kept.await.map_err(|_| io::Error::other("the log is closed"))?
    }

    /// Waits until the node's note is on the disk.
    pub async fn note(&self, note: &[u8]) -> io::Result<()> {
        self.save(Record { body: [&[], note], ..Record::new(Kind::Note, NODE, 0, 0) }).await
    }

    /// Waits until nothing written so far counts any more.
    pub async fn clear(&self) -> io::Result<()> {
        let (done, kept) = oneshot::channel();
        let done: Done = Box::new(move |result| drop(done.send(result)));
        let told = {
            let mut writer = self.shared.writer.lock();
            // What is not used any more is in no doubt.
            self.shared.doubted.store(false, Ordering::Release);
            writer.clear(self.shared.boot, done)
        };
        self.shared.wake.notify_one();
        if let Some((done, result)) = told {
            done(result);
        }
        kept.await.map_err(|_| io::Error::other("the log is closed"))?
    }

    /// This is its group's only member here from now on: earlier ones of the same group are forgotten.
    pub fn succeed(&self, key: Key) {
        let forget = self.others_of(key).into_iter().map(|former| Record::new(Kind::Forget, former, 0, 0));
        self.append(forget, Box::new(drop));
    }

    /// Other members of this one's group that the log knows.
    pub fn others_of(&self, key: Key) -> BTreeSet<Key> {
        self.shared.writer.lock().others_of(key)
    }

    /// A snapshot on the disk covers this member's entries up to `index`: they may go.
    pub fn release(&self, key: Key, index: u64) {
        self.shared.writer.lock().ledger.release(key, index);
        self.shared.wake.notify_one();
    }

    /// Bytes of log, of all members, that a snapshot of this member would set free at best.
    pub fn behind(&self, key: Key) -> u64 {
        self.shared.writer.lock().ledger.behind(key)
    }

    /// Bytes ever written to it, as far as that is known: only differences mean something.
    pub fn written(&self) -> u64 {
        self.shared.writer.lock().ledger.written()
    }

    /// An entry's body.
    pub fn read(&self, entry: &Located) -> io::Result<Bytes> {
        let (segment, at) = entry.at;
        self.shared.disk.open(&name(segment))?.read_at(at, entry.length).map(Bytes::from)
    }

    /// Ends the doubt there was when it was opened.
    pub fn believe(&self) -> io::Result<()> {
        self.shared.writer.lock().believe(self.shared.boot)?;
        self.shared.doubted.store(false, Ordering::Release);
        Ok(())
    }

    /// Whether it will never take anything again.
    pub fn has_failed(&self) -> bool {
        matches!(*self.shared.condition.borrow(), Condition::Failed(_))
    }

    /// How it is, and each change.
    pub fn condition(&self) -> watch::Receiver<Condition> {
        self.shared.condition.subscribe()
    }

    /// Says that the node stops in order, and waits for the disk. Blocks. Nothing should be appended after it.
    pub fn stop(&self) -> io::Result<()> {
        let (done, kept) = std::sync::mpsc::channel();
        let done: Done = Box::new(move |result| drop(done.send(result)));
        let whole = !self.shared.doubted.load(Ordering::Acquire);
        self.append_durably(whole.then_some(Record::new(Kind::Stopped, NODE, 0, 0)), done);
        self.shared.flush();
        if *self.shared.condition.borrow() == Condition::Full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        // The flusher may be at it.
        kept.recv_timeout(STOP_TIMEOUT).map_err(io::Error::other)?
    }
}

impl Shared {
    /// Publishes how the writer is, if that has changed.
    fn turn(&self, writer: &Writer) {
        let condition = writer.condition();
        self.condition.send_if_modified(|published| {
            let changed = *published != condition;
            *published = condition;
            changed
        });
    }

    /// Waits for the disk on behalf of everybody who has something written. Blocks.
    fn flush(&self) {
        let (flush, told) = {
            let lacks_ballast = self.writer.lock().lacks_ballast();
            let room = !lacks_ballast || self.take_ballast();
            let mut writer = self.writer.lock();
            let told = if room { writer.retry() } else { Vec::new() };
            (writer.unflushed(), told)
        };
        told.into_iter().for_each(|(done, result)| done(result));
        if let Some(mut flush) = flush {
            let result = flush.sync();
            {
                let mut writer = self.writer.lock();
                writer.flushed(&flush, &result);
                // Before those who wait hear of a failure: what they do about it, others must not disturb.
                self.turn(&writer);
            }
            for done in flush.done.drain(..) {
                done(
                    result.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string())).copied(),
                );
            }
        }
        let mut writer = self.writer.lock();
        let (failed, waiting) = writer.take_failed();
        self.turn(&writer);
        drop(writer);
        let failed = failed.unwrap_or_default();
        waiting.into_iter().for_each(|done| done(Err(io::Error::other(failed.clone()))));
    }

    /// `false`: there is no room for it.
    fn take_ballast(&self) -> bool {
        match zeroed(&*self.disk, BALLAST, BALLAST_BYTES) {
            Ok(_) => {
                self.writer.lock().ballasted();
                true
            }
            Err(_) => {
                // What of it was written goes again, if it can.
                let _ = self.disk.remove(BALLAST);
                false
            }
        }
    }

    fn tidy_up(&self) {
        let unneeded = self.writer.lock().ledger.take_unneeded();
        for number in unneeded {
            if let Err(error) = self.disk.remove(&name(number)) {
                tracing::warn!(segment = number, %error, "a segment of the log that is not needed cannot be removed");
            }
        }
        let wanted = self.writer.lock().unprepared();
        if let Some((disk, called, size)) = wanted {
            // Without room for it the log goes on in a file that grows.
            if let Ok(file) = zeroed(&*disk, &called, size) {
                self.writer.lock().prepared(file, &called, size);
            } else if let Err(error) = disk.remove(&called) {
                tracing::debug!(%error, "no next segment");
            }
        }
    }
}

fn zeroed(disk: &dyn Disk, called: &str, size: u64) -> io::Result<Arc<dyn crate::wal::disk::DiskFile>> {
    let file = disk.create(called)?;
    let zeros = vec![0; ZEROS.min(size as usize)];
    for at in (0..size).step_by(zeros.len()) {
        file.write_at(at, &zeros)?;
    }
    file.sync()?;
    Ok(file)
}

/// Waits for the disk on behalf of all. Its calls block: run it on a thread of its own ([`Flusher::spawn_thread`]), or
/// on a simulation's, where the disk takes no time.
pub struct Flusher(Arc<Shared>);

impl Flusher {
    /// Runs until the last handle of the log is gone.
    pub async fn run(self) {
        while !self.0.closed.load(Ordering::Acquire) {
            let full = *self.0.condition.borrow() == Condition::Full;
            let pause = if full { RETRY_INTERVAL } else { FLUSH_INTERVAL };
            let woken = tokio::time::timeout(pause, self.0.wake.notified()).await;
            if full && woken.is_ok() {
                // Whoever appends to a full disk wakes us; room does not come sooner for that.
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            self.turn();
        }
    }

    /// One turn: what is written goes to the disk, and who waits for that hears of it.
    pub fn turn(&self) {
        self.0.flush();
        self.0.tidy_up();
    }

    /// Runs on a thread of its own.
    pub fn spawn_thread(self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        std::thread::Builder::new().name("wal".into()).spawn(move || runtime.block_on(self.run()))?;
        Ok(())
    }
}
