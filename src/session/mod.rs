//! What one connection has asked for, and the commands that are about the connection, the node or the cluster.
//!
//! A session knows no sockets and executes no data command: `server::dispatch` reads a request, looks its row up in
//! [`table`], and for a session command calls the row's function with the [`Session`] and the node's
//! [`context::Context`]; the [`verdict::Verdict`] says what is left to do. Data commands it routes itself.

pub mod clients;
pub mod context;
pub mod table;
pub mod transaction;
pub mod verdict;

use std::sync::Arc;

use slotcast_wire::reply::Proto;

use crate::session::clients::Client;
use crate::session::transaction::Transaction;

/// The state of one connection.
pub struct Session {
    /// RESP version of its replies.
    pub proto: Proto,
    /// Has it authenticated (or is no password set)?
    pub authenticated: bool,
    /// READONLY: replicas may answer its reads.
    pub readonly: bool,
    /// ASKING was just sent: the next request may be for a slot that is being imported.
    pub asking: bool,
    /// CLIENT REPLY.
    pub replies: Replies,
    /// MULTI and WATCH.
    pub transaction: Transaction,
    /// CLIENT TRACKING.
    pub tracking: Tracking,
    /// CLIENT NO-TOUCH: its reads don't count as uses.
    pub no_touch: bool,
    /// What the other connections see of it (CLIENT LIST), and how they close it (CLIENT KILL).
    pub client: Arc<Client>,
}

/// Which replies are sent (CLIENT REPLY).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replies {
    /// All.
    On,
    /// None.
    Off,
    /// All but the next request's.
    SkipNext,
    /// Not this request's.
    Skip,
}

/// The connection's tracking mode (CLIENT TRACKING).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tracking {
    /// Keys it reads are remembered, and it is told when they change.
    pub on: bool,
    /// It is not told of its own changes (NOLOOP).
    pub no_loop: bool,
}

impl Session {
    /// The state a connection begins with.
    pub fn new(client: Arc<Client>, authenticated: bool) -> Self {
        Self {
            proto: Proto::Resp2,
            authenticated,
            readonly: false,
            asking: false,
            replies: Replies::On,
            transaction: Transaction::default(),
            tracking: Tracking::default(),
            no_touch: false,
            client,
        }
    }

    /// Whether a data command can go straight to its keys: nothing about this connection needs a closer look.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.authenticated
            && !self.asking
            && self.replies == Replies::On
            && !self.tracking.on
            && !self.transaction.is_open()
    }
}
