//! What one connection has asked for, and the commands that are about the connection, the node or the cluster.
//!
//! A session knows no sockets and executes no data command: `server::dispatch` reads a request, looks its row up in
//! [`table`], and for a session command calls the row's function with the [`Session`] and the node's
//! [`context::Context`]; the [`verdict::Verdict`] says what is left to do. Data commands it routes itself.

pub mod client;
pub mod client_line;
pub mod client_tracking;
pub mod clients;
pub mod cluster;
pub mod config;
pub mod connection;
pub mod context;
pub mod entry;
pub mod following;
pub mod info;
pub mod introspection;
pub mod invalidations;
pub mod log_stream;
pub mod multi;
pub mod persistence;
pub mod pubsub;
pub mod reading;
pub mod row;
pub mod saves;
pub mod server;
pub mod table;
pub mod tracking;
pub mod transaction;
pub mod verdict;

use std::sync::Arc;

use slotcast_wire::reply::Proto;

use crate::command::error::CommandError;
use crate::pubsub::registry::Kind;
use crate::pubsub::subscriptions::Subscriptions;
use crate::session::clients::Client;
use crate::session::following::Following;
use crate::session::tracking::Tracking;
use crate::session::transaction::Transaction;
use crate::tracking::backlog::Form;

/// The Redis version that HELLO and INFO name. Clients switch features on by it (redis-py caches from 7.4 on), so it
/// is the newest whose connection-level features are here; `slotcast_version` in INFO is our own.
pub const REDIS_VERSION: &str = "7.4.0";
/// Our own version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

const CLUSTER_DISABLED: CommandError = CommandError::text("ERR This instance has cluster support disabled");

/// The state of one connection.
pub struct Session {
    /// RESP version of its replies.
    pub proto: Proto,
    /// Has it authenticated (or is no password set)?
    pub authenticated: bool,
    /// READONLY: replicas may answer its reads.
    pub readonly: bool,
    /// CLIENT READS LINEARIZABLE: before each of its reads a quorum says that this node leads.
    pub linearizable: bool,
    /// ASKING was just sent: the next request may be for a slot that is being imported.
    pub asking: bool,
    /// CLIENT REPLY.
    pub replies: Replies,
    /// MULTI and WATCH.
    pub transaction: Transaction,
    /// CLIENT TRACKING.
    pub tracking: Tracking,
    tracking_changes: u64,
    /// SUBSCRIBE and its kin.
    pub subscriptions: Subscriptions,
    /// INVALIDATIONS SUBSCRIBE.
    pub following: Option<Box<Following>>,
    /// CLIENT STAMP ON: replies say as of when they are true.
    pub stamped: bool,
    /// CLIENT NO-TOUCH: its reads don't count as uses.
    pub no_touch: bool,
    /// The whole name of the command it sent last; the dispatcher notes it.
    pub last_command: &'static str,
    /// What of the above the others have been shown.
    shown: (&'static str, i64),
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

impl Replies {
    /// What holds for the next request, now that one is answered: SKIP is for one, the one behind it.
    pub fn after_request(self) -> Self {
        match self {
            Self::SkipNext => Self::Skip,
            Self::Skip => Self::On,
            lasting => lasting,
        }
    }
}

impl Session {
    /// The state a connection begins with.
    pub fn new(client: Arc<Client>, authenticated: bool) -> Self {
        Self {
            proto: Proto::Resp2,
            authenticated,
            readonly: false,
            linearizable: false,
            asking: false,
            replies: Replies::On,
            transaction: Transaction::default(),
            tracking: Tracking::default(),
            tracking_changes: 0,
            subscriptions: Subscriptions::default(),
            following: None,
            stamped: false,
            no_touch: false,
            last_command: "",
            shown: ("", -1),
            client,
        }
    }

    /// Shows the others what changes with every request: the last command and the length of the transaction. Called
    /// once a turn; takes no lock if both are what they were.
    pub fn show(&mut self) {
        let now = (self.last_command, self.transaction.queued());
        if now != self.shown {
            self.shown = now;
            let mut profile = self.client.profile.lock();
            (profile.last_command, profile.multi) = now;
        }
    }

    /// Whether a replica may answer what it reads.
    pub fn reads_replicas(&self) -> bool {
        self.readonly && !self.linearizable
    }

    /// INVALIDATIONS SUBSCRIBE and UNSUBSCRIBE.
    pub fn follow(&mut self, following: Option<Box<Following>>) {
        self.client.profile.lock().following = following.is_some();
        self.following = following;
    }

    /// Whether the request at hand goes unanswered.
    pub fn is_muted(&self) -> bool {
        matches!(self.replies, Replies::Off | Replies::Skip)
    }

    /// A request is answered (or, muted, done). One that waits and is tried again is not: what holds for it stays.
    pub fn end_request(&mut self) {
        self.replies = self.replies.after_request();
    }

    /// Changes the RESP version.
    pub fn speak(&mut self, proto: Proto) {
        self.proto = proto;
        self.client.profile.lock().resp = if proto == Proto::Resp3 { 3 } else { 2 };
    }

    /// How it can be told what it has not asked for.
    pub fn push_form(&self) -> Form {
        match self.proto {
            Proto::Resp3 => Form::Push,
            Proto::Resp2 if self.subscriptions.is_empty() => Form::Nothing,
            Proto::Resp2 => Form::Message,
        }
    }

    /// READONLY and READWRITE.
    pub fn accept_replicas(&mut self, readonly: bool) {
        self.readonly = readonly;
        self.client.profile.lock().readonly = readonly;
    }

    /// Changes the tracking mode; the tracking table follows by `Verdict::Tracking`.
    pub fn track(&mut self, tracking: Tracking) {
        let mut profile = self.client.profile.lock();
        (profile.tracking, profile.redirect_broken) = (tracking.clone(), false);
        self.tracking = tracking;
        self.tracking_changes += 1;
    }

    /// How often the tracking mode was set.
    pub fn tracking_changes(&self) -> u64 {
        self.tracking_changes
    }

    /// Shows the others how many subscriptions it has.
    pub fn show_subscriptions(&self) {
        let held = &self.subscriptions;
        self.client.profile.lock().subscriptions =
            [held.count(Kind::Channel), held.count(Kind::Pattern), held.count(Kind::Shard)];
    }

    /// Whether it may only subscribe and unsubscribe: without pushes, messages and replies cannot be told apart
    /// (RESP2).
    #[inline]
    pub fn is_confined(&self) -> bool {
        self.proto == Proto::Resp2 && !self.subscriptions.is_empty()
    }

    /// Whether a data command can go straight to its keys: nothing about this connection needs a closer look.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.authenticated
            && !self.asking
            && self.replies == Replies::On
            && !self.tracking.caching
            && !self.transaction.is_open()
            && !self.is_confined()
    }
}
