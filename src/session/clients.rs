//! The register of a node's connections: what CLIENT LIST shows, what CLIENT KILL closes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::task::AtomicWaker;
use parking_lot::Mutex;

use crate::time::Millis;

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
    /// The last command's name, in lower case, `client|list`.
    pub last_command: &'static str,
    /// Queued requests; -1 outside of MULTI.
    pub multi: i64,
    /// READONLY.
    pub readonly: bool,
    /// CLIENT TRACKING.
    pub tracking: bool,
    /// CLIENT NO-EVICT.
    pub no_evict: bool,
    /// CLIENT NO-TOUCH.
    pub no_touch: bool,
    /// Bytes waiting to be parsed, and to be sent.
    pub query_buffer: usize,
    /// See above.
    pub output_buffer: usize,
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
