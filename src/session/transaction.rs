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

    /// Queues a request; drops it if the transaction is to be refused anyway.
    pub fn queue(&mut self, args: Args<'_>) -> Result<(), TooLarge> {
        if self.aborted {
            return Ok(());
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn request(words: &[&str]) -> OwnedArgs {
        words.iter().collect()
    }

    #[test]
    fn exec_takes_the_requests_and_what_was_watched() {
        let mut transaction = Transaction::default();
        transaction.watch(b"a", Stamp::Present(1)).unwrap();
        transaction.watch(b"a", Stamp::Present(2)).unwrap();
        assert_eq!((transaction.begin(), transaction.begin(), transaction.queued()), (true, false, 0));
        transaction.queue(request(&["set", "a", "1"]).as_args()).unwrap();
        let Exec::Batch(batch) = transaction.exec() else { panic!("a batch") };
        assert_eq!(batch.requests, [request(&["set", "a", "1"])]);
        assert_eq!(batch.watched, [(b"a"[..].into(), Stamp::Present(1))], "the first look counts");
        assert!(matches!(transaction.exec(), Exec::NotOpen));
        assert_eq!((transaction.queued(), transaction.watched().len()), (-1, 0));
    }

    #[test]
    fn exec_without_multi_keeps_watching() {
        let mut transaction = Transaction::default();
        transaction.watch(b"a", Stamp::Absent(1)).unwrap();
        assert!(matches!(transaction.exec(), Exec::NotOpen));
        assert!(!transaction.discard());
        assert_eq!(transaction.watched().len(), 1);
        transaction.begin();
        assert!(transaction.discard());
        assert_eq!(transaction.watched().len(), 0);
    }

    #[test]
    fn an_aborted_transaction_collects_nothing_more_and_is_refused_whole() {
        let mut transaction = Transaction::default();
        transaction.begin();
        transaction.queue(request(&["set", "a", "1"]).as_args()).unwrap();
        transaction.abort();
        transaction.queue(request(&["set", "a", "2"]).as_args()).unwrap();
        assert_eq!(transaction.queued(), 0);
        assert!(matches!(transaction.exec(), Exec::Aborted));
        assert!(transaction.begin(), "the next begins anew");
        assert!(matches!(transaction.exec(), Exec::Batch(_)));
    }

    #[test]
    fn requests_and_watched_keys_are_limited() {
        let mut transaction = Transaction::default();
        transaction.begin();
        let ping = request(&["ping"]);
        (0..MAX_QUEUED).for_each(|_| transaction.queue(ping.as_args()).unwrap());
        assert_eq!(transaction.queue(ping.as_args()), Err(TooLarge));
        assert!(matches!(transaction.exec(), Exec::Aborted));
        for key in 0..MAX_WATCHED as u32 {
            transaction.watched.push((key.to_be_bytes().into(), Stamp::Absent(0)));
        }
        assert_eq!(transaction.watch(b"one more", Stamp::Absent(0)), Err(TooLarge));
        assert_eq!(transaction.watch(&[0; 4], Stamp::Absent(0)), Ok(()), "watched already");
    }
}
