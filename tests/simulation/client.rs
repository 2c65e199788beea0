//! A client: does one thing after the other, follows redirects, reconnects, and keeps a cache of what it reads by the
//! pushes it gets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use slotcast_wire::args::OwnedArgs;
use slotcast_wire::frame::Frame;
use slotcast_wire::redirect::Redirect;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::{sleep, timeout};

use crate::messages::{Message, Request};
use crate::node::{Door, NODES, node_of};
use crate::trace::Trace;

/// A request that is not answered within a time between these (ms) is given up, with its connection.
const PATIENCE: std::ops::Range<u64> = 100..1500;
/// Attempts at a request that is refused or sent elsewhere.
const ATTEMPTS: usize = 24;
/// After an attempt that found nobody.
const PAUSE: Duration = Duration::from_millis(100);

/// Where to find the nodes that live.
pub type Doors = Arc<Mutex<[Option<Door>; NODES]>>;
/// What a client believes that keys hold, and from which of its connections (by node) it knows.
pub type Cache = BTreeMap<Vec<u8>, (usize, Frame)>;

/// What became of a request.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It was done.
    Replies(Vec<Frame>),
    /// It was certainly not done.
    Refused,
    /// Nobody knows.
    Unknown,
}

struct Connection {
    requests: UnboundedSender<Request>,
    messages: UnboundedReceiver<Message>,
}

/// See the module's documentation.
pub struct Client {
    pub number: usize,
    pub rng: SmallRng,
    pub trace: Trace,
    pub doors: Doors,
    connections: [Option<Connection>; NODES],
    at: usize,
    pub cache: Cache,
}

impl Client {
    /// A client that knows nothing yet.
    pub fn new(number: usize, seed: u64, doors: Doors, trace: Trace) -> Client {
        let rng = SmallRng::seed_from_u64(seed.wrapping_mul(101).wrapping_add(number as u64));
        let (connections, cache) = (Default::default(), Cache::new());
        Client { number, rng, trace, doors, connections, at: number % NODES, cache }
    }

    /// Waits up to so many milliseconds.
    pub async fn pause(&mut self, longest: u64) {
        let pause = self.rng.random_range(0..=longest);
        sleep(Duration::from_millis(pause)).await;
    }

    /// Has a request done by whoever can.
    pub async fn request(&mut self, request: &Request) -> Outcome {
        for _ in 0..ATTEMPTS {
            self.pause(2).await;
            match self.request_here(request).await {
                Ok(outcome) => return outcome,
                Err(Some(node)) => self.at = node,
                Err(None) => {
                    self.at = self.rng.random_range(0..NODES);
                    sleep(PAUSE).await;
                }
            }
        }
        Outcome::Refused
    }

    /// Reads a key, again if there was no answer; `None`: there never is.
    pub async fn read(&mut self, key: &[u8]) -> Option<Frame> {
        let words: [&[u8]; 2] = [b"GET", key];
        let get = Request::Commands(vec![words.iter().collect()]);
        for _ in 0..ATTEMPTS {
            if let Outcome::Replies(replies) = self.request(&get).await {
                return replies.into_iter().next();
            }
        }
        None
    }

    /// Has a request done by the node asked last; otherwise whom to ask instead, if that was said.
    pub async fn request_here(&mut self, request: &Request) -> Result<Outcome, Option<usize>> {
        self.request_at(self.at, request).await
    }

    /// Has a request done by a node; otherwise whom to ask instead, if that was said.
    pub async fn request_at(&mut self, node: usize, request: &Request) -> Result<Outcome, Option<usize>> {
        self.hear();
        if self.connections[node].is_none() {
            let door = self.doors.lock()[node].clone().ok_or(None)?;
            let (requests, messages) = door.connect();
            self.connections[node] = Some(Connection { requests, messages });
        }
        let sent =
            self.connections[node].as_ref().is_some_and(|there| there.requests.send(request.clone()).is_ok());
        if !sent {
            self.disconnect(node);
            return Err(None);
        }
        let patience = Duration::from_millis(self.rng.random_range(PATIENCE));
        let answer = timeout(patience, self.answer(node)).await;
        match answer {
            Ok(Some(Message::Replies(replies))) => {
                self.pause(1).await;
                self.remember(node, request, &replies);
                Ok(Outcome::Replies(replies))
            }
            Ok(Some(Message::Redirect(Redirect::Moved { port, .. }))) => Err(Some(node_of(port))),
            Ok(Some(Message::Uncertain)) => Ok(Outcome::Unknown),
            Ok(Some(_)) => Err(None),
            Ok(None) | Err(_) => {
                self.disconnect(node);
                self.at = self.rng.random_range(0..NODES);
                Ok(Outcome::Unknown)
            }
        }
    }

    /// The next message of a node that is no push.
    async fn answer(&mut self, node: usize) -> Option<Message> {
        loop {
            match self.connections[node].as_mut()?.messages.recv().await? {
                Message::Invalidate(key) => self.invalidate(node, key),
                message => return Some(message),
            }
        }
    }

    /// Takes the pushes that have come, and notes connections that have broken.
    pub fn hear(&mut self) {
        for node in 0..NODES {
            while let Some(connection) = &mut self.connections[node] {
                match connection.messages.try_recv() {
                    Ok(Message::Invalidate(key)) => self.invalidate(node, key),
                    Ok(_) => {}
                    Err(tokio::sync::mpsc::error::TryRecvError::Empty) => break,
                    Err(tokio::sync::mpsc::error::TryRecvError::Disconnected) => self.disconnect(node),
                }
            }
        }
    }

    fn disconnect(&mut self, node: usize) {
        self.connections[node] = None;
        self.cache.retain(|_, (known_from, _)| *known_from != node);
    }

    fn invalidate(&mut self, node: usize, key: Option<Vec<u8>>) {
        match key {
            Some(key) => drop(self.cache.remove(&key)),
            None => self.cache.retain(|_, (known_from, _)| *known_from != node),
        }
    }

    /// Caches what was read. Pushes of this connection that came before the replies have been heard.
    fn remember(&mut self, node: usize, request: &Request, replies: &[Frame]) {
        let (Request::Commands(requests) | Request::Transaction(requests)) = request else { return };
        if requests.len() != replies.len() {
            return; // An aborted transaction has one reply, and read nothing.
        }
        for (args, reply) in requests.iter().zip(replies) {
            let args: &OwnedArgs = args;
            if args.as_args().name() == b"GET" {
                self.cache.insert(args.as_args().at(1).to_vec(), (node, reply.clone()));
            }
        }
    }
}
