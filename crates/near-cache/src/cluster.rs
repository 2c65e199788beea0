//! The cluster as a client sees it: which node serves which slot, and a request brought to the one that does.
//!
//! What the nodes say is followed: MOVED changes one slot's node at once, a lost connection or CLUSTERDOWN asks for all of
//! them again. Requests are repeated, with a pause that grows and is never the same, as long as they certainly did nothing
//! and there is time; a read is repeated whatever became of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use rand::Rng;
use rand::seq::SliceRandom;
use slotcast_wire::frame::Frame;
use slotcast_wire::redirect::Redirect;
use slotcast_wire::slot::SLOTS;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::connection::{Answer, Connection, Lost, request};
use crate::error::Error;
use crate::options::Options;

/// Of the pauses between attempts: the first is up to this, each may be twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(320);
/// MOVED is followed so often in a row without a pause.
const QUICK_REDIRECTS: u32 = 3;
/// How long one node is asked for the slots.
const ASK_SLOTS: Duration = Duration::from_millis(1500);
/// The slots aren't asked for more often than this.
const REFRESH_PAUSE: Duration = Duration::from_millis(50);

const NO_REPLY: &str = "no reply in time";

/// What a request does, which decides whether it may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// May be repeated.
    Read,
    /// May not, once it may have been seen.
    Write,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Cluster {
    options: Options,
    /// The node of each slot, as the cluster names it; an empty name: not known.
    slots: Mutex<Vec<Arc<str>>>,
    nodes: Mutex<HashMap<Arc<str>, Arc<Node>>>,
    refreshed: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Node {
    connection: tokio::sync::Mutex<Option<Connection>>,
}

/// What became of a request, and when the attempt that was answered began.
pub type Outcome = Result<(Answer, Instant), Error>;

/// A read that isn't answered yet.
struct Unread {
    place: usize,
    /// It is known where to.
    moved: bool,
    why: String,
}

/// What to do about an answer that isn't the one wanted.
enum Next {
    Done(Answer),
    At(Arc<str>),
    Later(String),
    Fail(Error),
}

impl Cluster {
    /// Nothing is connected yet.
    pub fn new(options: Options) -> Self {
        let slots = Mutex::new(vec![Arc::from(""); SLOTS]);
        Self { options, slots, nodes: Mutex::default(), refreshed: tokio::sync::Mutex::default() }
    }

    /// Brings a request to the node that serves `slot`. The time is when the attempt that was answered began.
    pub async fn request(&self, slot: u16, kind: Kind, words: &[&[u8]]) -> Outcome {
        let deadline = Instant::now() + self.options.timeout;
        let (mut pause, mut redirects, mut node) = (FIRST_PAUSE, 0, self.node_of(slot));
        loop {
            let begun = Instant::now();
            let answer = match timeout_at(deadline, self.ask(&node, request(words))).await {
                Ok(answer) => answer,
                Err(_) if kind == Kind::Write => return Err(Error::Uncertain(NO_REPLY.into())),
                Err(_) => return Err(Error::Unserved(NO_REPLY.into())),
            };
            let why = match judge(answer, kind, &node) {
                Next::Done(answer) => return Ok((answer, begun)),
                Next::Fail(error) => return Err(error),
                Next::At(at) if redirects < QUICK_REDIRECTS => {
                    self.slots.lock()[slot as usize] = at.clone();
                    redirects += 1;
                    node = at;
                    continue;
                }
                Next::At(_) => "it was redirected again and again".to_owned(),
                Next::Later(why) => why,
            };
            let pause_now = jittered(pause);
            if Instant::now() + pause_now >= deadline {
                return Err(Error::Unserved(why));
            }
            sleep(pause_now).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            // Where it isn't told, what is known is tried again.
            let _ = self.refresh(deadline).await;
            (node, redirects) = (self.node_of(slot), 0);
        }
    }

    /// Brings reads to the nodes that serve their slots, each node's in one go. `each` is called with a read's place among
    /// them and what became of it, once for each of them, as soon as its node has answered.
    pub async fn read_all(&self, reads: &[(u16, Vec<u8>)], each: impl FnMut(usize, Outcome) + Send) {
        let deadline = Instant::now() + self.options.timeout;
        let (mut pause, mut redirects) = (FIRST_PAUSE, 0);
        let each = Mutex::new(each);
        let mut left: Vec<usize> = (0..reads.len()).collect();
        while !left.is_empty() {
            let mut nodes: HashMap<Arc<str>, Vec<usize>> = HashMap::new();
            for place in left {
                nodes.entry(self.node_of(reads[place].0)).or_default().push(place);
            }
            let asked = nodes.iter().map(|(node, places)| self.read_at(node, reads, places, deadline, &each));
            let unread: Vec<Unread> = join_all(asked).await.into_iter().flatten().collect();
            left = unread.iter().map(|unread| unread.place).collect();
            redirects += 1;
            if redirects <= QUICK_REDIRECTS && unread.iter().all(|unread| unread.moved) {
                continue;
            }
            let pause_now = jittered(pause);
            if Instant::now() + pause_now >= deadline {
                let fail = |unread: Unread| each.lock()(unread.place, Err(Error::Unserved(unread.why)));
                return unread.into_iter().for_each(fail);
            }
            sleep(pause_now).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            let _ = self.refresh(deadline).await; // or what is known is tried again
            redirects = 0;
        }
    }

    /// Asks one node for its part of them. Gives those that it did not answer.
    async fn read_at(
        &self,
        node: &Arc<str>,
        reads: &[(u16, Vec<u8>)],
        places: &[usize],
        deadline: Instant,
        each: &Mutex<impl FnMut(usize, Outcome)>,
    ) -> Vec<Unread> {
        let begun = Instant::now();
        let requests = places.iter().map(|place| reads[*place].1.clone()).collect();
        let asked = async {
            let connection = self.connection(node).await?;
            Ok::<_, String>(connection.ask_all(requests).await)
        };
        let answers = timeout_at(deadline, asked).await.unwrap_or_else(|_| Err(NO_REPLY.to_owned()));
        let unread = |place: &usize, moved, why: &str| Unread { place: *place, moved, why: why.to_owned() };
        let answers = match answers {
            Err(why) => return places.iter().map(|place| unread(place, false, &why)).collect(),
            Ok(answers) => answers,
        };
        let mut left = Vec::new();
        for (place, answer) in places.iter().zip(answers) {
            let answer = answer.map_err(|lost| (lost, format!("the connection to {node} broke")));
            match judge(answer, Kind::Read, node) {
                Next::Done(answer) => each.lock()(*place, Ok((answer, begun))),
                Next::Fail(error) => each.lock()(*place, Err(error)),
                Next::Later(why) => left.push(unread(place, false, &why)),
                Next::At(node) => {
                    self.slots.lock()[reads[*place].0 as usize] = node;
                    left.push(unread(place, true, "it was redirected again and again"));
                }
            }
        }
        left
    }

    /// Sends a request to one node.
    pub async fn ask(&self, node: &Arc<str>, bytes: Vec<u8>) -> Result<Answer, (Lost, String)> {
        let connection = self.connection(node).await.map_err(|why| (Lost::Unsent, why))?;
        connection.ask(bytes).await.map_err(|lost| (lost, format!("the connection to {node} broke")))
    }

    /// The connection to a node, made if there is none. Those who want the same wait for each other.
    async fn connection(&self, address: &Arc<str>) -> Result<Connection, String> {
        if address.is_empty() {
            return Err("nobody is known to serve the slot".to_owned());
        }
        let node = self.nodes.lock().entry(address.clone()).or_default().clone();
        let mut connection = node.connection.lock().await;
        if let Some(open) = connection.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(open.clone());
        }
        let opened = Connection::open(&self.options.reached(address)).await?;
        *connection = Some(opened.clone());
        Ok(opened)
    }

    fn node_of(&self, slot: u16) -> Arc<str> {
        self.slots.lock().get(slot as usize).cloned().unwrap_or_default()
    }

    /// Where nodes may be: those that serve slots, and the seeds; in no order.
    pub fn addresses(&self) -> Vec<String> {
        let mut addresses: Vec<String> = self.slots.lock().iter().map(|node| node.to_string()).collect();
        addresses.extend(self.options.seeds.iter().cloned());
        addresses.sort();
        addresses.dedup();
        addresses.retain(|address| !address.is_empty());
        addresses.shuffle(&mut rand::rng());
        addresses
    }

    /// Asks one node after the other for the slots, unless somebody has just done so. The text says why
    /// none told.
    pub async fn refresh(&self, deadline: Instant) -> Result<(), String> {
        let mut refreshed = self.refreshed.lock().await;
        if refreshed.is_some_and(|at| at.elapsed() < REFRESH_PAUSE) {
            return Ok(());
        }
        let mut why = "no time is left".to_owned();
        for address in self.addresses() {
            if Instant::now() >= deadline {
                break;
            }
            let asked = async {
                let connection = self.connection(&Arc::from(address.as_str())).await?;
                let answer = connection.ask(request(&["CLUSTER", "SLOTS"])).await;
                let answer = answer.map_err(|_| format!("the connection to {address} broke"))?;
                let told = read_slots(&answer.frame, &address);
                told.ok_or_else(|| format!("{address} names no slots: {}", answer.frame))
            };
            let told = timeout(ASK_SLOTS, asked).await;
            match told.unwrap_or_else(|_| Err(format!("{address} does not answer"))) {
                Err(error) => why = error,
                Ok(ranges) => {
                    self.learn(ranges);
                    *refreshed = Some(Instant::now());
                    return Ok(());
                }
            }
        }
        Err(why)
    }

    fn learn(&self, ranges: Vec<(usize, usize, Arc<str>)>) {
        let mut slots = self.slots.lock();
        for (first, last, node) in ranges {
            slots.iter_mut().take(last + 1).skip(first).for_each(|slot| *slot = node.clone());
        }
        // Connections to nodes that serve nothing any more are closed.
        self.nodes.lock().retain(|address, _| slots.contains(address));
    }
}
/// What an answer means for the request.
fn judge(answer: Result<Answer, (Lost, String)>, kind: Kind, node: &str) -> Next {
    let answer = match answer {
        Ok(answer) => answer,
        Err((Lost::Sent, why)) if kind == Kind::Write => return Next::Fail(Error::Uncertain(why)),
        Err((_, why)) => return Next::Later(why),
    };
    let Some(error) = answer.frame.as_error() else { return Next::Done(answer) };
    let target = |host: String, port: u16| -> Arc<str> {
        match host.is_empty() {
            true => format!("{}:{port}", node.rsplit_once(':').map_or("", |(host, _)| host)).into(),
            false => format!("{host}:{port}").into(),
        }
    };
    match Redirect::parse(&error) {
        Some(Redirect::Moved { host, port, .. }) => Next::At(target(host, port)),
        // Of a slot on its way (ASK) either node serves all soon.
        Some(Redirect::Ask { .. } | Redirect::TryAgain | Redirect::ClusterDown(_)) => {
            Next::Later(error.into_owned())
        }
        Some(Redirect::CrossSlot) => Next::Fail(Error::Refused(error.into_owned())),
        None if error.starts_with("UNCERTAIN") && kind == Kind::Write => {
            Next::Fail(Error::Uncertain(error.into_owned()))
        }
        None if ["UNCERTAIN", "LOADING", "READONLY", "MASTERDOWN"]
            .iter()
            .any(|code| error.starts_with(code)) =>
        {
            Next::Later(error.into_owned())
        }
        None => Next::Fail(Error::Refused(error.into_owned())),
    }
}

/// The reply to CLUSTER SLOTS: first and last slot, and the node that serves them.
fn read_slots(frame: &Frame, asked: &str) -> Option<Vec<(usize, usize, Arc<str>)>> {
    let Frame::Array(ranges) = frame else { return None };
    let range = |range: &Frame| {
        let Frame::Array(range) = range else { return None };
        let [Frame::Integer(first), Frame::Integer(last), Frame::Array(node), ..] = range.as_slice() else {
            return None;
        };
        let (host, Some(Frame::Integer(port))) = (node.first()?.as_bytes()?, node.get(1)) else {
            return None;
        };
        let host = match std::str::from_utf8(host).ok()? {
            "" => asked.rsplit_once(':')?.0,
            host => host,
        };
        let slot = |slot: i64| usize::try_from(slot).ok().filter(|slot| *slot < SLOTS);
        Some((slot(*first)?, slot(*last)?, Arc::from(format!("{host}:{port}"))))
    };
    ranges.iter().map(range).collect::<Option<Vec<_>>>().filter(|ranges| !ranges.is_empty())
}

/// Between half of it and all of it.
pub fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.5..=1.0))
}
