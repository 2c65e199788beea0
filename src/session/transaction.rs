//! MULTI, EXEC, DISCARD, WATCH, UNWATCH as a state of the session.
//!
//! Requests are only collected here. EXEC gives them to the dispatcher as one [`Batch`], which becomes one unit of
//! the log; a watched key is a precondition inside the unit, checked where it is applied. It doesn't know slots.

use slotcast_wire::args::{Args, OwnedArgs};
use slotcast_wire::reply::Reply;

use crate::command::error::CommandError;
use crate::command::spec::{Flags, all_keys};
use crate::keyspace::slot::Stamp;
use crate::session::Session;
use crate::session::context::Context;
use crate::session::row::Row;
use crate::session::verdict::Verdict;

const QUICK: Flags =
    Flags::NOSCRIPT.or(Flags::LOADING).or(Flags::STALE).or(Flags::FAST).or(Flags::ALLOW_BUSY);
const EXEC: Flags = Flags::NOSCRIPT.or(Flags::LOADING).or(Flags::STALE).or(Flags::SKIP_SLOWLOG);

/// The rows of this file.
#[rustfmt::skip] // a row reads as a row
pub const ROWS: &[Row] = &[
    Row::new("multi", 1, multi).flags(QUICK).at_once()
        .docs("transactions", "1.2.0", "O(1)", "Starts a transaction."),
    Row::new("exec", 1, exec).flags(EXEC).at_once()
        .docs("transactions", "1.2.0", "Depends on commands in the transaction", "Executes the transaction's requests as one."),
    Row::new("discard", 1, discard).flags(QUICK).at_once()
        .docs("transactions", "2.0.0", "O(N), when N is the number of queued commands", "Drops the transaction's requests."),
    Row::new("watch", -2, watch).flags(QUICK).at_once().keys(&[all_keys("RO", 1)])
        .docs("transactions", "2.2.0", "O(1) for every key.", "Makes EXEC depend on the keys staying as they are."),
    Row::new("unwatch", 1, unwatch).flags(QUICK)
        .docs("transactions", "2.2.0", "O(1)", "Forgets all watched keys."),
];

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

/// `multi` in CLIENT LIST follows the transaction's begin and end; how many requests wait, the dispatcher notes.
fn show(session: &Session) {
    session.client.profile.lock().multi = session.transaction.queued();
}

fn multi(
    session: &mut Session,
    _: &Context,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    if !session.transaction.begin() {
        return Err(CommandError::text("ERR MULTI calls can not be nested"));
    }
    show(session);
    reply.ok();
    Ok(Verdict::Replied)
}

fn exec(session: &mut Session, _: &Context, _: Args<'_>, _: &mut Reply<'_>) -> Result<Verdict, CommandError> {
    let exec = session.transaction.exec();
    show(session);
    match exec {
        Exec::Batch(batch) => Ok(Verdict::Execute(batch)),
        Exec::NotOpen => Err(CommandError::text("ERR EXEC without MULTI")),
        Exec::Aborted => {
            Err(CommandError::text("EXECABORT Transaction discarded because of previous errors."))
        }
    }
}

fn discard(
    session: &mut Session,
    _: &Context,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    if !session.transaction.discard() {
        return Err(CommandError::text("ERR DISCARD without MULTI"));
    }
    show(session);
    reply.ok();
    Ok(Verdict::Replied)
}

/// Noting the keys' state takes the keyspace, which the dispatcher reaches.
fn watch(
    session: &mut Session,
    _: &Context,
    args: Args<'_>,
    _: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    if session.transaction.is_open() {
        return Err(CommandError::text("ERR WATCH inside MULTI is not allowed"));
    }
    Ok(Verdict::Watch(OwnedArgs::from(args)))
}

fn unwatch(
    session: &mut Session,
    _: &Context,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    session.transaction.unwatch();
    reply.ok();
    Ok(Verdict::Replied)
}
