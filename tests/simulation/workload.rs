//! What clients do, and the histories that come of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rand::Rng;
use slotcast_wire::args::OwnedArgs;
use slotcast_wire::frame::Frame;
use slotcast_wire::slot::slot_of;

use crate::client::{Client, Outcome};
use crate::invariants::linearizable::{Field, Op, Timed};
use crate::messages::Request;
use crate::node::NODES;
use slotcast_verify::linearizability::Call;

/// Objects that all clients work on.
pub const OBJECTS: usize = 8;
/// Clients; each has a slot of its own for writes that are never overwritten.
pub const CLIENTS: usize = 6;
/// Between two operations of a client (ms), at most.
const THINK: u64 = 20;
/// Times to live (ms).
const TTL: std::ops::Range<u64> = 20..400;

/// What the clients have done. A cheap handle.
#[derive(Clone, Default)]
pub struct Records(Arc<Mutex<Written>>);

#[derive(Default)]
struct Written {
    histories: [Vec<Call<Timed>>; OBJECTS],
    /// Acknowledged writes of keys that are written once.
    kept: Vec<(String, i64)>,
    unknown: usize,
    next: i64,
}

impl Records {
    /// Each object's history.
    pub fn histories(&self) -> [Vec<Call<Timed>>; OBJECTS] {
        self.0.lock().histories.clone()
    }

    /// Acknowledged writes of keys that are written once.
    pub fn kept(&self) -> Vec<(String, i64)> {
        self.0.lock().kept.clone()
    }

    /// Calls, and those without an answer.
    pub fn counts(&self) -> (usize, usize) {
        let written = self.0.lock();
        (written.histories.iter().map(Vec::len).sum::<usize>() + written.kept.len(), written.unknown)
    }

    /// A value that was never written before; increments keep their distance.
    fn value(&self) -> i64 {
        let mut written = self.0.lock();
        written.next += 10_000;
        written.next
    }
}

/// The key of an object's field.
pub fn key(object: usize, field: Field) -> String {
    format!("{{o{object}}}{field}")
}

/// All of these.
pub fn object_keys() -> impl Iterator<Item = String> {
    (0..OBJECTS).flat_map(|object| (0..2).map(move |field| key(object, field)))
}

fn kept_key(client: usize, number: i64) -> String {
    format!("{{kept{client}}}{number}")
}

/// A write to a client's own slot; all of these slots together are in all shards.
pub fn probe(client: usize) -> Request {
    Request::Commands(vec![command(&["SET", &kept_key(client, -1), "probe"])])
}

/// All slots that ever hold keys.
pub fn slots() -> Vec<u16> {
    let objects = (0..OBJECTS).map(|object| key(object, 0));
    objects.chain((0..CLIENTS).map(|client| kept_key(client, 0))).map(|key| slot_of(key.as_bytes())).collect()
}

/// Works until told to stop.
pub async fn work(mut client: Client, records: Records, stop: Arc<AtomicBool>) -> Client {
    while !stop.load(Ordering::Relaxed) {
        client.pause(THINK).await;
        let [one, other] = [(); 2].map(|()| client.rng.random_range(0..OBJECTS));
        let (object, field) = (one.min(other), client.rng.random_range(0..2)); // Some are hotter than others.
        let mut worker = Worker { client: &mut client, records: &records, object };
        worker.something(field).await;
    }
    client
}

/// Reads until told to stop, from one node alone, as long as that answers at all: whoever serves a stale value serves
/// it to such a client.
pub async fn read_loyally(mut client: Client, records: Records, stop: Arc<AtomicBool>) -> Client {
    while !stop.load(Ordering::Relaxed) {
        client.pause(THINK).await;
        let (object, field) = (client.rng.random_range(0..OBJECTS), client.rng.random_range(0..2));
        let request = Request::Commands(vec![command(&["GET", &key(object, field)])]);
        let (moment, now) = (client.trace.moment(), client.trace.now());
        if let Ok(outcome) = client.request_at(client.number % NODES, &request).await {
            let mut worker = Worker { client: &mut client, records: &records, object };
            worker.record(&request, (moment, now), outcome, |replies| {
                vec![Op::Get { field, got: integer(replies.first()) }]
            });
        }
    }
    client
}

/// Reads all keys, as the last calls of the histories; looks for the writes that were never to be overwritten.
pub async fn read_all(client: &mut Client, records: &Records) -> Vec<(String, i64)> {
    for object in 0..OBJECTS {
        for field in 0..2 {
            let (moment, invoked) = (client.trace.moment(), client.trace.now());
            let Some(reply) = client.read(key(object, field).as_bytes()).await else { continue };
            let op = Op::Get { field, got: integer(Some(&reply)) };
            let timed = Timed { op, invoked, returned: client.trace.now() };
            let returned = Some(client.trace.moment());
            records.0.lock().histories[object].push(Call { op: timed, invoked: moment, returned });
        }
    }
    let mut lost = Vec::new();
    for (key, value) in records.kept() {
        if integer(client.read(key.as_bytes()).await.as_ref()) != Some(value) {
            lost.push((key, value));
        }
    }
    lost
}

/// A write of a client that keeps a cache, with stamps: its value and the reply, if there was one.
pub async fn set_stamped(
    client: &mut Client,
    records: &Records,
    (object, field): (usize, Field),
) -> (String, Outcome) {
    let (value, ttl) = (records.value(), client.rng.random_ratio(1, 4).then(|| client.rng.random_range(TTL)));
    let text = value.to_string();
    let name = key(object, field);
    let mut words = vec!["SET", &name, &text];
    let ttl_text = ttl.map(|ttl| ttl.to_string());
    if let Some(ttl) = &ttl_text {
        words.extend(["PX", ttl.as_str()]);
    }
    let request = Request::Stamped { command: command(&words), anywhere: false };
    let (moment, now) = (client.trace.moment(), client.trace.now());
    let outcome = client.request(&request).await;
    Worker { client, records, object }
        .record(&request, (moment, now), outcome.clone(), |_| vec![Op::Set { field, value, ttl }]);
    (text, outcome)
}

struct Worker<'a> {
    client: &'a mut Client,
    records: &'a Records,
    object: usize,
}

impl Worker<'_> {
    async fn something(&mut self, field: Field) {
        let key = key(self.object, field);
        let (value, ttl) = (self.records.value(), self.client.rng.random_range(TTL));
        let (value_text, ttl_text) = (value.to_string(), ttl.to_string());
        match self.client.rng.random_range(0..100) {
            0..32 => self.get(field).await,
            32..44 => {
                let command = command(&["SET", &key, &value_text]);
                self.one(command, |_| Op::Set { field, value, ttl: None }).await;
            }
            44..52 => {
                let command = command(&["SET", &key, &value_text, "PX", &ttl_text]);
                self.one(command, |_| Op::Set { field, value, ttl: Some(ttl) }).await;
            }
            52..62 => {
                let got = |reply: Option<&Frame>| integer(reply).unwrap_or_default();
                self.one(command(&["INCR", &key]), |reply| Op::Increment { field, got: got(reply) }).await;
            }
            62..66 => {
                let existed = |reply: Option<&Frame>| integer(reply) == Some(1);
                self.one(command(&["DEL", &key]), |reply| Op::Delete { field, existed: existed(reply) })
                    .await;
            }
            66..70 => {
                let existed = |reply: Option<&Frame>| integer(reply) == Some(1);
                let command = command(&["PEXPIRE", &key, &ttl_text]);
                self.one(command, |reply| Op::Expire { field, ttl, existed: existed(reply) }).await;
            }
            70..75 => self.pipeline(field, value).await,
            75..79 => self.set_both().await,
            79..83 => self.get_both().await,
            83..90 => self.swap(field, value).await,
            _ => self.keep(value).await,
        }
    }

    async fn get(&mut self, field: Field) {
        let command = command(&["GET", &key(self.object, field)]);
        self.one(command, |reply| Op::Get { field, got: integer(reply) }).await;
    }

    async fn one(&mut self, command: OwnedArgs, op: impl Fn(Option<&Frame>) -> Op) {
        let request = Request::Commands(vec![command]);
        self.call(&request, |replies| vec![op(replies.first())]).await;
    }

    /// A write and a read behind it, as one piece.
    async fn pipeline(&mut self, field: Field, value: i64) {
        let key = key(self.object, field);
        let commands = vec![command(&["SET", &key, &value.to_string()]), command(&["GET", &key])];
        let set = Op::Set { field, value, ttl: None };
        self.call(&Request::Commands(commands), |replies| {
            vec![set.clone(), Op::Get { field, got: integer(replies.get(1)) }]
        })
        .await;
    }

    async fn set_both(&mut self) {
        let values = [self.records.value(), self.records.value()];
        let set = |field: Field| command(&["SET", &key(self.object, field), &values[field].to_string()]);
        let request = Request::Transaction(vec![set(0), set(1)]);
        self.call(&request, |_| vec![Op::SetBoth { values }]).await;
    }

    async fn get_both(&mut self) {
        let get = |field: Field| command(&["GET", &key(self.object, field)]);
        let request = Request::Transaction(vec![get(0), get(1)]);
        self.call(&request, |replies| {
            vec![Op::GetBoth { got: [integer(replies.first()), integer(replies.get(1))] }]
        })
        .await;
    }

    /// WATCH, GET, and a transaction that must not happen if somebody was faster.
    async fn swap(&mut self, field: Field, to: i64) {
        let key = key(self.object, field);
        let watch = Request::Watch(key.clone().into_bytes());
        if !matches!(self.client.request(&watch).await, Outcome::Replies(_)) {
            return;
        }
        let get = Request::Commands(vec![command(&["GET", &key])]);
        let Ok(Outcome::Replies(replies)) = self.client.request_here(&get).await else { return };
        let from = integer(replies.first());
        self.client.pause(THINK).await;
        let request = Request::Transaction(vec![command(&["SET", &key, &to.to_string()])]);
        let (moment, now) = (self.client.trace.moment(), self.client.trace.now());
        let outcome = self.client.request_here(&request).await.unwrap_or(Outcome::Refused);
        self.record(&request, (moment, now), outcome, |_| vec![Op::Swap { field, from, to }]);
    }

    /// Writes a key that nobody overwrites.
    async fn keep(&mut self, value: i64) {
        let key = kept_key(self.client.number, value);
        let request = Request::Commands(vec![command(&["SET", &key, &value.to_string()])]);
        if let Outcome::Replies(_) = self.client.request(&request).await {
            self.records.0.lock().kept.push((key, value));
        }
    }

    async fn call(&mut self, request: &Request, ops: impl Fn(&[Frame]) -> Vec<Op>) {
        let (moment, now) = (self.client.trace.moment(), self.client.trace.now());
        let outcome = self.client.request(request).await;
        self.record(request, (moment, now), outcome, ops);
    }

    fn record(
        &mut self,
        request: &Request,
        (moment, invoked): (u64, u64),
        outcome: Outcome,
        ops: impl Fn(&[Frame]) -> Vec<Op>,
    ) {
        let trace = &self.client.trace;
        let may_abort = matches!(request, Request::Transaction(_));
        let (replies, answered) = match outcome {
            // An aborted transaction (of two keys, or of SET) did nothing and needs no reason here.
            Outcome::Replies(replies) if may_abort && replies == [Frame::Null] => return,
            Outcome::Replies(replies) => (replies, true),
            Outcome::Unknown => (Vec::new(), false),
            Outcome::Refused => return,
        };
        if let Some(error) = replies.iter().find_map(Frame::as_error) {
            return trace.violation(format!("client {} is told {error}", self.client.number));
        }
        let mut written = self.records.0.lock();
        written.unknown += usize::from(!answered);
        for op in ops(&replies) {
            if !answered && matches!(op, Op::Get { .. } | Op::GetBoth { .. }) {
                continue;
            }
            let timed = Timed { op, invoked, returned: if answered { trace.now() } else { u64::MAX } };
            trace.note(format!("client {} object {}: {timed}", self.client.number, self.object));
            let returned = answered.then(|| trace.moment());
            written.histories[self.object].push(Call { op: timed, invoked: moment, returned });
        }
    }
}

/// A request's words.
pub fn command(words: &[&str]) -> OwnedArgs {
    words.iter().collect()
}

fn integer(frame: Option<&Frame>) -> Option<i64> {
    match frame? {
        Frame::Integer(n) => Some(*n),
        frame => std::str::from_utf8(frame.as_bytes()?).ok()?.parse().ok(),
    }
}
