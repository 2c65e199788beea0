//! What a caller says and hears.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use crate::id::NodeId;

/// What a call brings.
pub type Answered = Result<Bytes, BusError>;

/// Which of a peer's connections a call takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Heartbeats, votes and small calls: never behind much.
    Control,
    /// Log entries and snapshots.
    Bulk,
    /// What clients have published: however much that is, the log doesn't wait behind it.
    Messages,
}

/// Whom to call: an address, and who must answer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The node that must answer; `None` only while it is not known yet (a seed).
    pub node: Option<NodeId>,
    /// Its bus address.
    pub addr: SocketAddr,
}

/// Why a call brought no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusError {
    /// The peer has certainly not seen the call: no connection, a wrong node there, a full queue.
    NotDelivered(String),
    /// The peer may have seen it: the connection broke, or no answer came in time.
    Unknown(String),
}

impl fmt::Display for BusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BusError::NotDelivered(why) => write!(f, "not delivered: {why}"),
            BusError::Unknown(why) => write!(f, "no answer: {why}"),
        }
    }
}

impl std::error::Error for BusError {}

/// What answers a service's calls: (calling node, request) to answer. It must not block; its synchronous part
/// runs in the order in which the calls of one lane arrived.
pub type Service = Arc<dyn Fn(NodeId, Bytes) -> BoxFuture<'static, Bytes> + Send + Sync>;

/// A call's answer to come.
pub struct PendingAnswer(pub(super) Result<oneshot::Receiver<Answered>, BusError>);

impl PendingAnswer {
    pub(super) fn failed(why: String) -> PendingAnswer {
        PendingAnswer(Err(BusError::NotDelivered(why)))
    }
}

impl Future for PendingAnswer {
    type Output = Answered;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Err(error) => Poll::Ready(Err(error.clone())),
            Ok(receiver) => Pin::new(receiver).poll(context).map(|answer| match answer {
                Ok(answer) => answer,
                Err(_) => Err(BusError::Unknown("the bus is shut down".into())),
            }),
        }
    }
}
