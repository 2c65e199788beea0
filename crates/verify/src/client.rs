//! A small cluster client that never guesses: it follows redirects, repeats what certainly did nothing, and says of
//! everything else that the outcome is unknown.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use slotcast_wire::frame::Frame;
use slotcast_wire::redirect::Redirect;
use slotcast_wire::slot::{SLOTS, slot_of};
use tokio::time::sleep;

use crate::clock;
use crate::connection::{Connection, Silence, request};
use crate::slots;

/// How long a client waits for one answer: some give up early and leave their request behind, some outlast the
/// server's own limit (five seconds).
const PATIENCE: [Duration; 4] = [
    Duration::from_millis(700),
    Duration::from_millis(1_500),
    Duration::from_millis(3_000),
    Duration::from_millis(7_000),
];
/// A call that certainly did nothing so far is repeated for so long.
const REPEAT: Duration = Duration::from_secs(8);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(20);
/// Between the two halves of a guarded call, at most.
const SWAP: Duration = Duration::from_millis(4);
/// Redirects followed at once; after these there is a pause before each.
const HURRY: u32 = 3;

/// The refusal of a node that isn't there.
const NO_CONNECTION: &str = "no connection";

/// What came of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The replies. None is an error but where a transaction has one.
    Answer(Vec<Frame>),
    /// Nobody knows whether it was done.
    Unknown,
    /// It certainly was not; the last error.
    Refused(String),
}

/// A call's outcome and when it was made: the last attempt counts, those before it did nothing.
pub struct Called {
    pub invoked: u64,
    pub returned: u64,
    pub outcome: Outcome,
}

/// One client: one call at a time, a connection to each node it needs.
pub struct Client {
    /// Its number.
    pub number: u16,
    /// What it draws its choices from.
    pub rng: SmallRng,
    nodes: Rc<[SocketAddr]>,
    patience: Duration,
    /// Index of the node that is believed to lead a slot.
    owners: Vec<u8>,
    connections: Vec<Option<Connection>>,
}

impl Client {
    /// A client that knows all nodes, but not yet who serves what.
    pub fn new(number: u16, nodes: Rc<[SocketAddr]>, seed: u64) -> Client {
        let rng = SmallRng::seed_from_u64(seed ^ (u64::from(number) << 32));
        let connections = nodes.iter().map(|_| None).collect();
        let patience = PATIENCE[usize::from(number) % PATIENCE.len()];
        Client { number, rng, nodes, patience, owners: vec![0; SLOTS], connections }
    }

    /// The node that is believed to lead a key's slot.
    pub fn owner(&self, key: &str) -> usize {
        usize::from(self.owners[usize::from(slot_of(key.as_bytes()))])
    }

    /// Asks some node who serves what.
    pub async fn refresh(&mut self) {
        let Some(node) = self.nodes.choose(&mut self.rng).copied() else { return };
        for (range, owner) in slots::leads(node).await.unwrap_or_default() {
            if let Some(index) = self.nodes.iter().position(|node| *node == owner) {
                range.for_each(|slot| self.owners[usize::from(slot)] = index as u8);
            }
        }
    }

    /// Requests about one key, sent together to whoever serves it.
    pub async fn call(&mut self, key: &str, requests: &[Vec<String>]) -> Called {
        let until = Instant::now() + REPEAT;
        let mut ask = None;
        for attempt in 0.. {
            let invoked = clock::now();
            let answer = match ask.take() {
                Some(node) => self.exchange_asking(node, requests).await,
                None => self.exchange(self.owner(key), requests).await,
            };
            let returned = clock::now();
            let outcome = match answer {
                Ok(replies) => outcome(replies),
                Err(silence) => {
                    self.refresh().await;
                    match silence {
                        Silence::Lost => Outcome::Unknown,
                        Silence::NotSent => Outcome::Refused(NO_CONNECTION.to_owned()),
                    }
                }
            };
            match &outcome {
                Outcome::Refused(error) if is_passing(error) && Instant::now() < until => {
                    ask = self.learn(error);
                    if !error.starts_with("MOVED") || attempt > HURRY {
                        sleep(PAUSE).await;
                    }
                }
                _ => return Called { invoked, returned, outcome },
            }
        }
        unreachable!("the loop above ends by returning")
    }

    /// Learns from a redirect; gives the node to ask this once.
    fn learn(&mut self, error: &str) -> Option<usize> {
        let position = |host: &str, port: u16| {
            let matches = |node: &SocketAddr| node.port() == port && node.ip().to_string() == host;
            self.nodes.iter().position(matches)
        };
        match Redirect::parse(error)? {
            Redirect::Moved { slot, host, port } => {
                self.owners[usize::from(slot)] = position(&host, port)? as u8;
                None
            }
            Redirect::Ask { host, port, .. } => position(&host, port),
            _ => None,
        }
    }

    async fn exchange_asking(
        &mut self,
        node: usize,
        requests: &[Vec<String>],
    ) -> Result<Vec<Frame>, Silence> {
        let asking: Vec<_> = std::iter::once(request(&["ASKING"])).chain(requests.iter().cloned()).collect();
        self.exchange(node, &asking).await.map(|replies| replies[1..].to_vec())
    }

    /// Requests to one node, whatever it serves.
    pub async fn exchange(&mut self, node: usize, requests: &[Vec<String>]) -> Result<Vec<Frame>, Silence> {
        let mut connection = self.take(node).await?;
        let replies = connection.exchange(requests, self.patience).await?;
        self.connections[node] = Some(connection);
        Ok(replies)
    }

    /// The connection to a node, a new one if there is none that lives.
    async fn take(&mut self, node: usize) -> Result<Connection, Silence> {
        match self.connections[node].take().filter(|connection| !connection.is_stale()) {
            Some(connection) => Ok(connection),
            None => Connection::open(self.nodes[node]).await,
        }
    }

    /// WATCH and a read, then a transaction, all on one connection. If the first part fails, nothing was done: it is
    /// repeated like any call.
    pub async fn guarded(
        &mut self,
        key: &str,
        read: Vec<String>,
        transaction: &[Vec<String>],
    ) -> Result<(Called, Called), String> {
        let watch = [request(&["WATCH", key]), read];
        let until = Instant::now() + REPEAT;
        let (node, mut connection, read) = loop {
            let node = self.owner(key);
            let invoked = clock::now();
            let refused = match self.begin(node, &watch).await {
                Ok((connection, replies)) => match outcome(replies) {
                    Outcome::Refused(error) => error,
                    outcome => {
                        break (node, connection, Called { invoked, returned: clock::now(), outcome });
                    }
                },
                Err(_) => {
                    self.refresh().await;
                    NO_CONNECTION.to_owned()
                }
            };
            self.learn(&refused);
            if Instant::now() > until || !is_passing(&refused) {
                return Err(refused);
            }
            sleep(PAUSE).await;
        };
        self.think(SWAP).await;
        let invoked = clock::now();
        let outcome = match connection.exchange(transaction, self.patience).await {
            Ok(replies) => {
                self.connections[node] = Some(connection);
                outcome(replies)
            }
            Err(_) => Outcome::Unknown,
        };
        Ok((read, Called { invoked, returned: clock::now(), outcome }))
    }

    async fn begin(
        &mut self,
        node: usize,
        watch: &[Vec<String>],
    ) -> Result<(Connection, Vec<Frame>), Silence> {
        let mut connection = self.take(node).await?;
        let replies = connection.exchange(watch, self.patience).await?;
        Ok((connection, replies))
    }

    /// Does nothing for up to so long.
    pub async fn think(&mut self, longest: Duration) {
        let pause = self.rng.random_range(Duration::ZERO..longest);
        sleep(pause).await;
    }
}

/// What replies to requests that were sent together say: to a single one, or to those of a transaction.
pub fn outcome(replies: Vec<Frame>) -> Outcome {
    let errors: Vec<String> =
        replies.iter().filter_map(|reply| Some(reply.as_error()?.into_owned())).collect();
    if errors.iter().any(|error| error.starts_with("UNCERTAIN")) {
        return Outcome::Unknown;
    }
    // A redirect tells more than the EXECABORT behind it.
    let first = errors.iter().find(|error| Redirect::parse(error).is_some()).or(errors.first());
    first.map_or(Outcome::Answer(replies), |error| Outcome::Refused(error.clone()))
}

/// Whether to try again is of use.
fn is_passing(error: &str) -> bool {
    let code = error.split(' ').next().unwrap_or_default();
    error == "no connection"
        || ["MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "LOADING", "NOREPLICAS"].contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_did_nothing_are_told_from_those_nobody_knows() {
        let error = |text: &str| Frame::Error(text.to_owned());
        let ok = Frame::Simple("OK".into());
        assert_eq!(outcome(vec![ok.clone(), Frame::Null]), Outcome::Answer(vec![ok.clone(), Frame::Null]));
        assert_eq!(outcome(vec![ok.clone(), error("UNCERTAIN maybe")]), Outcome::Unknown);
        let moved = vec![ok, error("MOVED 1 a:1"), error("EXECABORT no")];
        assert_eq!(outcome(moved), Outcome::Refused("MOVED 1 a:1".into()));
        assert!(is_passing("CLUSTERDOWN The cluster is down") && !is_passing("ERR unknown command"));
    }
}
