//! From bytes to replies: listening, connections, and the way of a request through them.
//!
//! A connection lives on one thread from its first byte to its last; everything between reading its requests and
//! writing their replies is synchronous there ([`connection`], [`dispatch`]), except where a request has to wait
//! for the log, for a leader, or for a socket. This floor is the only one that knows sockets, and the place where
//! sessions, shards and tracking meet.

pub mod backlog;
pub mod batch;
pub mod connection;
mod copies;
pub mod dispatch;
pub mod feeding;
pub mod invalidation;
pub mod listener;
mod log_reading;
pub mod notifications;
pub mod observed;
pub mod outbox;
pub mod pending;
pub mod piece;
pub mod publisher;
mod reads;
pub mod room;
mod sending;
mod subscribing;
pub mod territory;
pub mod transaction;
pub mod waiting;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use crate::id::GroupId;
use crate::server::invalidation::Invalidation;
use crate::server::outbox::Outbox;
use crate::server::publisher::Publisher;
use crate::session::Session;
use crate::session::context::Context;
use crate::session::pubsub::leave_all;
use crate::shard::Shard;

/// What all connections of a node share.
pub struct Server {
    /// What session commands look at.
    pub context: Arc<Context>,
    /// The shards with a copy here; in single-node mode one.
    pub shards: Arc<ArcSwap<BTreeMap<GroupId, Arc<Shard>>>>,
    /// Tracking.
    pub invalidation: Arc<Invalidation>,
    /// Pub/Sub.
    pub publisher: Arc<Publisher>,
    /// Changes whenever routing may have; `None` in single-node mode.
    pub routes: Option<watch::Receiver<u64>>,
    /// Notified when a client asks the server to stop (SHUTDOWN).
    pub shutdown: Notify,
}

/// The only shard of single-node mode.
pub const SINGLE: GroupId = GroupId(1);

impl Server {
    /// Unsent bytes beyond which a connection is closed; 0: no limit.
    pub fn output_limit(&self, session: &Session) -> u64 {
        let limits = self.context.config.live().client_output_buffer_limit;
        if session.subscriptions.is_empty() { limits.normal.hard } else { limits.pubsub.hard }
    }

    /// A connection has closed: nobody needs to know it any more.
    pub fn farewell(&self, session: &mut Session) {
        let id = session.client.id;
        leave_all(session, &self.context);
        self.publisher.disconnect(id);
        self.invalidation.close(id);
        self.context.clients.forget(id);
    }

    /// Enters a connection into the tracking tables, or takes it out, as its session says.
    pub fn follow_tracking(&self, session: &Session, outbox: &Arc<Outbox>) {
        self.invalidation.follow(outbox, &session.tracking, session.proto, |id| self.publisher.outbox(id));
    }
}
