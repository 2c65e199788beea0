//! openraft's watch channel, waking its receivers in the order they began to wait.
//!
//! tokio's own wakes them in random order (it spreads them over buckets), which is good for many threads and makes
//! a simulation unrepeatable: two followers' streams would be woken now in this order, now in that.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use openraft::async_runtime::watch::{self, RecvError, SendError};
use openraft::{OptionalSend, OptionalSync};
use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::Notify;

/// The kind of channel.
pub struct OrderedWatch;

/// Sets the value. Cloneable; when the last one is gone, receivers hear so.
pub struct Sender<T>(Arc<Shared<T>>);

/// Sees the value and its changes.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: usize,
}

struct Shared<T> {
    value: RwLock<T>,
    /// Counts the changes; moves under the value's write lock.
    version: AtomicUsize,
    changed: Notify,
    senders: AtomicUsize,
    receivers: AtomicUsize,
}

impl<T> Sender<T> {
    fn modify(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        let mut value = self.0.value.write();
        let modified = modify(&mut value);
        if modified {
            self.0.version.fetch_add(1, Ordering::Release);
        }
        drop(value);
        if modified {
            self.0.changed.notify_waiters();
        }
        modified
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        Sender(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

impl<T> Receiver<T> {
    fn new(shared: Arc<Shared<T>>, seen: usize) -> Receiver<T> {
        shared.receivers.fetch_add(1, Ordering::Relaxed);
        Receiver { shared, seen }
    }

    /// Whether there is an unseen value; it counts as seen from now on.
    fn take_change(&mut self) -> bool {
        let version = self.shared.version.load(Ordering::Acquire);
        std::mem::replace(&mut self.seen, version) != version
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        Receiver::new(self.shared.clone(), self.seen)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receivers.fetch_sub(1, Ordering::AcqRel);
    }
}

impl watch::Watch for OrderedWatch {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = RwLockReadGuard<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Sender<T>, Receiver<T>) {
        let shared = Arc::new(Shared {
            value: RwLock::new(init),
            version: AtomicUsize::new(0),
            changed: Notify::new(),
            senders: AtomicUsize::new(1),
            receivers: AtomicUsize::new(0),
        });
        (Sender(shared.clone()), Receiver::new(shared, 0))
    }
}

impl<T: OptionalSend + OptionalSync> watch::WatchSender<OrderedWatch, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.0.receivers.load(Ordering::Acquire) == 0 {
            return Err(SendError(value));
        }
        self.modify(|current| {
            *current = value;
            true
        });
        Ok(())
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        self.modify(modify)
    }

    fn borrow_watched(&self) -> RwLockReadGuard<'_, T> {
        self.0.value.read()
    }

    fn subscribe(&self) -> Receiver<T> {
        Receiver::new(self.0.clone(), self.0.version.load(Ordering::Acquire))
    }
}

impl<T: OptionalSend + OptionalSync> watch::WatchReceiver<OrderedWatch, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        let shared = self.shared.clone();
        loop {
            let mut changed = pin!(shared.changed.notified());
            // Enlisted before looking, so that no change slips in between.
            changed.as_mut().enable();
            if self.take_change() {
                return Ok(());
            }
            if shared.senders.load(Ordering::Acquire) == 0 {
                return Err(RecvError(()));
            }
            changed.await;
        }
    }

    fn borrow_watched(&self) -> RwLockReadGuard<'_, T> {
        self.shared.value.read()
    }

    fn borrow_and_update(&mut self) -> RwLockReadGuard<'_, T> {
        let value = self.shared.value.read();
        self.seen = self.shared.version.load(Ordering::Acquire);
        value
    }
}
