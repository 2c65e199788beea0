//! What clients and nodes say to each other.

use slotcast_wire::args::OwnedArgs;
use slotcast_wire::frame::Frame;
use slotcast_wire::redirect::Redirect;

/// What a client sends. All keys of a request are in one slot.
#[derive(Clone, Debug)]
pub enum Request {
    /// Commands, one behind the other.
    Commands(Vec<OwnedArgs>),
    /// WATCH.
    Watch(Vec<u8>),
    /// MULTI, these, EXEC.
    Transaction(Vec<OwnedArgs>),
    /// A command of a connection with CLIENT STAMP ON; any copy may answer it, if `anywhere` (READONLY).
    Stamped { command: OwnedArgs, anywhere: bool },
}

impl Request {
    /// Its commands; WATCH is none.
    pub fn commands(&self) -> &[OwnedArgs] {
        match self {
            Request::Commands(all) | Request::Transaction(all) => all,
            Request::Stamped { command, .. } => std::slice::from_ref(command),
            Request::Watch(_) => &[],
        }
    }
}

/// What a client is sent.
#[derive(Clone, Debug)]
pub enum Message {
    /// The replies to the request.
    Replies(Vec<Frame>),
    /// It belongs elsewhere.
    Redirect(Redirect),
    /// Nobody leads the slot; nothing was done.
    Down,
    /// Nobody knows what became of it.
    Uncertain,
    /// A push: this key has changed; `None`: any may have.
    Invalidate(Option<Vec<u8>>),
}
