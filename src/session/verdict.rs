//! What is left to do after a session command's function has run.

use slotcast_wire::args::OwnedArgs;

use crate::session::reading::Reading;
use crate::session::transaction::Batch;

/// What WAIT and WAITAOF wait for.
#[derive(Clone, Copy, Debug)]
pub struct Copies {
    /// WAITAOF: copies count when they are on disks; whether this node's own is waited for. `None`: WAIT.
    pub on_disk: Option<bool>,
    /// Replicas to wait for.
    pub replicas: usize,
    /// At most (zero: without limit).
    pub timeout: std::time::Duration,
}

/// What the dispatcher does next.
pub enum Verdict {
    /// Nothing: the reply is written.
    Replied,
    /// Send what is written, then close the connection.
    Close,
    /// The reply is written; `Session::tracking` may have changed: enter the connection into the tracking table, or
    /// take it out.
    Tracking,
    /// Execute a transaction's requests as one unit and write their replies as an array.
    Execute(Batch),
    /// Note the state of these keys (a WATCH request's arguments), then reply OK.
    Watch(OwnedArgs),
    /// Reply with the number of copies that hold this connection's writes, waiting for so many at most so long.
    Wait(Copies),
    /// Deliver the message of this PUBLISH or SPUBLISH request, then reply with the number of its receivers here.
    Publish {
        /// SPUBLISH.
        sharded: bool,
    },
    /// Reply with what is new in the invalidation logs, once there is anything.
    Read(Box<Reading>),
    /// Reply OK once the save that was asked for has ended well.
    Saved,
    /// Stop the node in order, as SIGTERM does. Nothing is written: Redis answers by closing.
    Shutdown,
}
