//! MULTI, EXEC, DISCARD, WATCH, UNWATCH as a state of the session.
//!
//! Requests are only collected here. EXEC gives them to the dispatcher as one [`Batch`], which becomes one unit of
//! the log; a watched key is a precondition inside the unit, checked where it is applied. It doesn't know slots.

use slotcast_wire::args::{Args, OwnedArgs};

use crate::keyspace::slot::Stamp;

/// Requests a transaction may hold; one more is refused and the transaction aborts.
pub const MAX_QUEUED: usize = 1 << 16;
/// Bytes they may hold together, likewise.
pub const MAX_QUEUED_BYTES: usize = 256 << 20;
/// Keys a session may watch; WATCH refuses more.
pub const MAX_WATCHED: usize = 1 << 14;

/// A session's transaction.
#[derive(Default)]
pub struct Transaction {
    open: bool,
    aborted: bool,
    queued: Vec<OwnedArgs>,
    bytes: usize,
    watched: Vec<(Box<[u8]>, Stamp)>,
}

/// What EXEC executes.
pub struct Batch {
    /// The requests, in order.
    pub requests: Vec<OwnedArgs>,
    /// Keys and the state they must still have.
    pub watched: Vec<(Box<[u8]>, Stamp)>,
}

/// What EXEC finds.
pub enum Exec {
    /// There is no MULTI.
    NotOpen,
    /// A request could not be queued.
    Aborted,
    /// Execute this.
    Batch(Batch),
}

/// More than a limit of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

impl Transaction {
    /// Between MULTI and EXEC?
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// MULTI; false if there is one already.
    pub fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.open, true)
    }

    /// Queues a request.
    pub fn queue(&mut self, args: Args<'_>) -> Result<(), TooLarge> {
        let owned = OwnedArgs::from(args);
        self.bytes += args.iter().map(<[u8]>::len).sum::<usize>();
        if self.queued.len() >= MAX_QUEUED || self.bytes > MAX_QUEUED_BYTES {
            self.abort();
            return Err(TooLarge);
        }
        self.queued.push(owned);
        Ok(())
    }

    /// A request could not be queued: EXEC will refuse.
    pub fn abort(&mut self) {
        self.aborted = true;
        self.queued = Vec::new();
        self.bytes = 0;
    }

    /// Number of requests in the queue; -1 outside of MULTI (CLIENT LIST's `multi`).
    pub fn queued(&self) -> i64 {
        if self.open { self.queued.len() as i64 } else { -1 }
    }

    /// EXEC: ends the transaction, watching included.
    pub fn exec(&mut self) -> Exec {
        let ended = std::mem::take(self);
        match ended {
            Self { open: false, .. } => {
                *self = ended;
                Exec::NotOpen
            }
            Self { aborted: true, .. } => Exec::Aborted,
            Self { queued, watched, .. } => Exec::Batch(Batch { requests: queued, watched }),
        }
    }

    /// DISCARD: ends the transaction, watching included; false if there is none.
    pub fn discard(&mut self) -> bool {
        let open = self.open;
        if open {
            *self = Self::default();
        }
        open
    }

    /// Keys being watched.
    pub fn watched(&self) -> &[(Box<[u8]>, Stamp)] {
        &self.watched
    }

    /// Watches a key; the first stamp of a key holds.
    pub fn watch(&mut self, key: &[u8], stamp: Stamp) -> Result<(), TooLarge> {
        if self.watched.iter().any(|(watched, _)| **watched == *key) {
            return Ok(());
        }
        if self.watched.len() >= MAX_WATCHED {
            return Err(TooLarge);
        }
        self.watched.push((key.into(), stamp));
        Ok(())
    }

    /// UNWATCH.
    pub fn unwatch(&mut self) {
        self.watched = Vec::new();
    }
}
