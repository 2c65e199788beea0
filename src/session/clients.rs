//! The register of a node's connections: what CLIENT LIST shows, what CLIENT KILL closes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::task::AtomicWaker;
use parking_lot::Mutex;

use crate::session::tracking::Tracking;
use crate::time::Millis;
use crate::tracking::rings::Wake;

/// What other connections may know of one.
pub struct Client {
    /// Its id: ascending, never reused in a run.
    pub id: u64,
    /// The client's end.
    pub addr: SocketAddr,
    /// The server's end.
    pub local_addr: SocketAddr,
    /// When it connected.
    pub since: Millis,
    /// When it last sent a request (Unix ms).
    pub last_active: AtomicU64,
    /// Bytes of a request that is not complete, or waits.
    pub unparsed: AtomicU64,
    /// Reply bytes its socket has not taken.
    pub unsent: AtomicU64,
    /// Bytes of pushes and messages that wait behind them.
    pub queued: AtomicU64,
    /// Since when its socket takes none of them (Unix ms); 0: it does.
    pub stalled_since: AtomicU64,
    /// The fields CLIENT LIST shows that change now and then.
    pub profile: Mutex<Profile>,
    killed: AtomicBool,
    waker: AtomicWaker,
}

/// See [`Client::profile`].
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// CLIENT SETNAME.
    pub name: String,
    /// CLIENT SETINFO LIB-NAME.
    pub lib_name: String,
    /// CLIENT SETINFO LIB-VER.
    pub lib_version: String,
    /// RESP version.
    pub resp: u8,
    /// The last command's whole name in lower case, `client|list`.
    pub last_command: &'static str,
    /// Queued requests; -1 outside of MULTI.
    pub multi: i64,
    /// READONLY.
    pub readonly: bool,
    /// CLIENT TRACKING.
    pub tracking: Tracking,
    /// The connection that its invalidations were redirected to is gone.
    pub redirect_broken: bool,
    /// Channels, patterns and shard channels it subscribes to.
    pub subscriptions: [usize; 3],
    /// INVALIDATIONS SUBSCRIBE.
    pub following: bool,
    /// CLIENT NO-EVICT.
    pub no_evict: bool,
    /// CLIENT NO-TOUCH.
    pub no_touch: bool,
}

impl Profile {
    /// Whether it subscribes to anything: Redis's client type `pubsub`.
    pub fn is_subscriber(&self) -> bool {
        self.subscriptions != [0; 3]
    }
}

impl Client {
    /// Asks its connection to close.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::Release);
        self.wake();
    }

    /// Whether it is to close.
    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }

    /// Wakes its connection, to look at what others have left for it.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// Whom to wake.
    pub fn register(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }
}

impl Wake for Client {
    fn wake(&self) {
        Client::wake(self);
    }
}

/// How much patience connections are met with.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// A client that takes none of its replies for so long is closed (ms).
    pub stall: Millis,
    /// One with more unsent bytes than `soft` that stalls for `soft_time` too (0: no such limit).
    pub soft: u64,
    /// See above.
    pub soft_time: Millis,
    /// One that has asked nothing for so long (0: never) (`timeout`).
    pub idle: Millis,
}

impl Client {
    /// Why it should be closed, if it should.
    pub fn exhausts(&self, patience: Patience, now: Millis) -> Option<&'static str> {
        let stalled = match self.stalled_since.load(Ordering::Relaxed) {
            0 => 0,
            since => now.saturating_sub(since),
        };
        let idle = now.saturating_sub(self.last_active.load(Ordering::Relaxed));
        let unsent = self.unsent.load(Ordering::Relaxed) + self.queued.load(Ordering::Relaxed);
        if stalled >= patience.stall {
            return Some("it does not read its replies");
        }
        if patience.soft > 0 && unsent > patience.soft && stalled >= patience.soft_time {
            return Some("its replies exceed the soft client-output-buffer-limit");
        }
        let profile = self.profile.lock();
        let listens = profile.tracking.on || profile.following || profile.is_subscriber();
        (patience.idle > 0 && idle >= patience.idle && !listens)
            .then_some("it is idle for longer than timeout")
    }
}

/// All connections of a node.
#[derive(Default)]
pub struct Clients {
    next: AtomicU64,
    all: Mutex<BTreeMap<u64, Arc<Client>>>,
}

impl Clients {
    /// Registers a connection.
    pub fn register(&self, addr: SocketAddr, local_addr: SocketAddr, now: Millis) -> Arc<Client> {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let client = Arc::new(Client {
            id,
            addr,
            local_addr,
            since: now,
            last_active: AtomicU64::new(now),
            unparsed: AtomicU64::new(0),
            unsent: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            stalled_since: AtomicU64::new(0),
            profile: Mutex::new(Profile { resp: 2, multi: -1, ..Profile::default() }),
            killed: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        self.all.lock().insert(id, client.clone());
        client
    }

    /// Forgets a connection that has closed.
    pub fn forget(&self, id: u64) {
        self.all.lock().remove(&id);
    }

    /// Whether there is one with this id.
    pub fn contains(&self, id: u64) -> bool {
        self.all.lock().contains_key(&id)
    }

    /// All of them, by id.
    pub fn list(&self) -> Vec<Arc<Client>> {
        self.all.lock().values().cloned().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_for_stalled_and_idle_clients_only() {
        let nowhere = ([127, 0, 0, 1], 0).into();
        let client = Clients::default().register(nowhere, nowhere, 1_000);
        let patience = Patience { stall: 500, soft: 10, soft_time: 100, idle: 10_000 };
        assert_eq!(client.exhausts(patience, 5_000), None);
        client.stalled_since.store(4_900, Ordering::Relaxed);
        assert_eq!(client.exhausts(patience, 5_000), None);
        client.unsent.store(11, Ordering::Relaxed);
        assert!(client.exhausts(patience, 5_000).is_some_and(|why| why.contains("soft")));
        client.unsent.store(1, Ordering::Relaxed);
        assert!(client.exhausts(patience, 5_400).is_some_and(|why| why.contains("read")));
        client.stalled_since.store(0, Ordering::Relaxed);
        assert!(client.exhausts(patience, 11_000).is_some_and(|why| why.contains("idle")));
        assert_eq!(client.exhausts(Patience { idle: 0, ..patience }, 11_000), None);
    }
}
