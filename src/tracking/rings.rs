//! A node's invalidation logs, one a shard, and who waits for news of them.
//!
//! Wherever the stream is read from, it is pulled: news only wakes a reader, once, until it has looked again. With many
//! readers even that would take the applying thread too long; a task does it then ([`Rings::wake_many`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use parking_lot::RwLock;
use tokio::sync::Notify;

use crate::id::GroupId;
use crate::time::Millis;
use crate::tracking::ring::Ring;

/// Readers that the applying thread wakes by itself; more are woken by a task.
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

/// See the module's documentation.
#[derive(Default)]
pub struct Rings {
    rings: ArcSwap<BTreeMap<GroupId, Arc<Ring>>>,
    readers: RwLock<Vec<Arc<Reader>>>,
    many: Notify,
    /// Somebody has asked for a position: from then on nothing is left out.
    wanted: AtomicBool,
}

impl Reader {
    /// To be called before looking at the rings: news after this wakes again.
    pub fn looks(&self) {
        self.woken.store(false, Ordering::SeqCst);
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
    rings: Arc<Rings>,
    reader: Arc<Reader>,
}

impl Listening {
    /// From now on.
    pub fn join(rings: Arc<Rings>, wake: Arc<dyn Wake>) -> Self {
        let reader = rings.join(wake);
        Self { rings, reader }
    }

    /// See [`Reader`].
    pub fn reader(&self) -> &Arc<Reader> {
        &self.reader
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.rings.leave(&self.reader);
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

    /// All of them.
    pub fn all(&self) -> Arc<BTreeMap<GroupId, Arc<Ring>>> {
        self.rings.load_full()
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

    fn join(&self, wake: Arc<dyn Wake>) -> Arc<Reader> {
        self.want();
        let reader = Arc::new(Reader { wake, woken: AtomicBool::new(false) });
        self.readers.write().push(reader.clone());
        reader
    }

    fn leave(&self, reader: &Arc<Reader>) {
        self.readers.write().retain(|other| !Arc::ptr_eq(other, reader));
    }

    /// There is news.
    pub fn notify(&self) {
        let readers = self.readers.read();
        match readers.len() > FEW {
            true => self.many.notify_one(),
            false => readers.iter().for_each(|reader| reader.notify()),
        }
    }

    /// Wakes readers when there are many of them, for ever.
    pub async fn wake_many(&self) {
        loop {
            self.many.notified().await;
            self.readers.read().iter().for_each(|reader| reader.notify());
        }
    }

    /// See [`Ring::retire`].
    pub fn retire(&self, now: Millis, age: Millis, limit: usize) {
        self.rings.load().values().for_each(|ring| ring.retire(now, age, limit));
    }
}
