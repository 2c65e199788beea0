//! A node's invalidation logs, one a shard, and who waits for news of them.
//!
//! Wherever the stream is read from, it is pulled: news only wakes a reader, once, until it has looked again. With many
//! readers even that would take the applying thread too long, and a wake-up from another thread is a system call: so the
//! readers of a thread are woken there, all by one wake-up ([`Rings::wake_here`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::ThreadId;

use arc_swap::{ArcSwap, Guard};
use parking_lot::RwLock;
use tokio::sync::Notify;

use crate::id::GroupId;
use crate::time::Millis;
use crate::tracking::ring::Ring;

/// Readers of a thread that the applying thread wakes by itself; more are woken by a task of theirs.
const FEW: usize = 8;

/// What news wakes.
pub trait Wake: Send + Sync {
    /// Called from any thread; must be short.
    fn wake(&self);
}

/// Somebody who reads rings.
pub struct Reader {
    wake: Arc<dyn Wake>,
    woken: AtomicBool,
}

/// The readers that one thread owns.
struct Crowd {
    thread: ThreadId,
    readers: RwLock<Vec<Arc<Reader>>>,
    /// How many they are.
    count: AtomicUsize,
    news: Notify,
    /// A task there wakes them.
    is_served: AtomicBool,
}

impl Crowd {
    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Reader>>)) {
        let mut readers = self.readers.write();
        change(&mut readers);
        self.count.store(readers.len(), Ordering::SeqCst);
    }

    fn notify(&self) {
        match self.count.load(Ordering::SeqCst) {
            0 => {}
            FEW.. if self.is_served.load(Ordering::SeqCst) => self.news.notify_one(),
            _ => self.notify_each(),
        }
    }

    fn notify_each(&self) {
        self.readers.read().iter().for_each(|reader| reader.notify());
    }
}

/// See the module's documentation.
#[derive(Default)]
pub struct Rings {
    rings: ArcSwap<BTreeMap<GroupId, Arc<Ring>>>,
    /// One a thread.
    crowds: RwLock<Vec<Arc<Crowd>>>,
    /// Somebody has asked for a position: from then on nothing is left out.
    wanted: AtomicBool,
}

impl Reader {
    /// To be called before looking at the rings: news after this wakes again. Whether there was any before.
    pub fn looks(&self) -> bool {
        self.woken.swap(false, Ordering::SeqCst)
    }

    /// Whether there has been news since it looked.
    pub fn is_woken(&self) -> bool {
        self.woken.load(Ordering::SeqCst)
    }

    fn notify(&self) {
        if !self.woken.swap(true, Ordering::SeqCst) {
            self.wake.wake();
        }
    }
}

/// Somebody who is woken by news until this is dropped.
pub struct Listening {
    crowd: Arc<Crowd>,
    reader: Arc<Reader>,
}

impl Listening {
    /// From now on, as one of this thread's.
    pub fn join(rings: Arc<Rings>, wake: Arc<dyn Wake>) -> Self {
        rings.want();
        let reader = Arc::new(Reader { wake, woken: AtomicBool::new(false) });
        let crowd = rings.crowd_here();
        crowd.change(|readers| readers.push(reader.clone()));
        Self { crowd, reader }
    }

    /// See [`Reader`].
    pub fn reader(&self) -> &Arc<Reader> {
        &self.reader
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.crowd.change(|readers| readers.retain(|other| !Arc::ptr_eq(other, &self.reader)));
    }
}

impl Rings {
    /// A new ring for a shard's new copy; it takes the place of the former copy's.
    pub fn open(&self, shard: GroupId, limit: usize) -> Arc<Ring> {
        let ring = Arc::new(Ring::new(limit));
        self.rings.rcu(|rings| {
            let mut rings = BTreeMap::clone(rings);
            rings.insert(shard, ring.clone());
            rings
        });
        ring
    }

    /// The copy is gone; another one's ring that has taken its place stays.
    pub fn close(&self, shard: GroupId, ring: &Arc<Ring>) {
        self.rings.rcu(|rings| {
            let mut rings = BTreeMap::clone(rings);
            if rings.get(&shard).is_some_and(|present| Arc::ptr_eq(present, ring)) {
                rings.remove(&shard);
            }
            rings
        });
    }

    /// All of them, as they are now: not to be held for long.
    pub fn all(&self) -> Guard<Arc<BTreeMap<GroupId, Arc<Ring>>>> {
        self.rings.load()
    }

    /// A shard's.
    pub fn ring(&self, shard: GroupId) -> Option<Arc<Ring>> {
        self.rings.load().get(&shard).cloned()
    }

    /// Somebody is about to ask for a position: from here on every change is noted.
    pub fn want(&self) {
        self.wanted.store(true, Ordering::SeqCst);
    }

    /// Whether anybody has ever asked for a position.
    #[inline]
    pub fn are_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst)
    }

    fn crowd_here(&self) -> Arc<Crowd> {
        let thread = std::thread::current().id();
        let mut crowds = self.crowds.write();
        if let Some(crowd) = crowds.iter().find(|crowd| crowd.thread == thread) {
            return crowd.clone();
        }
        let crowd = Arc::new(Crowd {
            thread,
            readers: RwLock::default(),
            count: AtomicUsize::new(0),
            news: Notify::new(),
            is_served: AtomicBool::new(false),
        });
        crowds.push(crowd.clone());
        crowd
    }

    /// There is news.
    pub fn notify(&self) {
        self.crowds.read().iter().for_each(|crowd| crowd.notify());
    }

    /// Wakes this thread's readers when they are many, for ever.
    pub async fn wake_here(&self) {
        let crowd = self.crowd_here();
        crowd.is_served.store(true, Ordering::SeqCst);
        loop {
            crowd.news.notified().await;
            crowd.notify_each();
        }
    }

    /// See [`Ring::retire`].
    pub fn retire(&self, now: Millis, age: Millis, limit: usize) {
        self.rings.load().values().for_each(|ring| ring.retire(now, age, limit));
    }
}
