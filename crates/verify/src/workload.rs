//! What clients do: SET, GET, INCR, DEL and compare-and-set on keys they share, and writes of keys that are never
//! overwritten, which must all be there at the end.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use rand::Rng;
use slotcast_verify::register::Op;
use slotcast_wire::frame::Frame;
use tokio::time::sleep;

use crate::client::{Called, Client, Outcome, outcome};
use crate::clock;
use crate::connection::request;
use crate::records::Records;

/// Keys shared by all clients. Every fourth is a counter: INCR and GET only.
pub const KEYS: usize = 240;
/// Of these: keys that get half of the calls, so that calls overlap.
const HOT: usize = 12;
/// Between two calls of a client, at most.
const THINK: Duration = Duration::from_millis(20);
/// Reads of a client that stays with one node, at most this far apart.
const LOYAL: Duration = Duration::from_millis(10);
/// A key is read at the end this often until it is answered.
const ATTEMPTS: usize = 4;

/// When clients stop.
pub type Stop = Rc<Cell<bool>>;

/// The name of a shared key.
pub fn key(number: usize) -> String {
    format!("key:{number}")
}

fn is_counter(number: usize) -> bool {
    number.is_multiple_of(4)
}

/// Works until told to stop.
pub async fn work(mut client: Client, records: Records, stop: Stop) {
    client.refresh().await;
    while !stop.get() {
        client.think(THINK).await;
        let range = if client.rng.random_bool(0.5) { HOT } else { KEYS };
        let number = client.rng.random_range(0..range);
        let name = key(number);
        let mut worker = Worker { client: &mut client, records: &records, key: &name };
        match worker.client.rng.random_range(0..100) {
            0..35 => worker.get().await,
            35..50 => worker.keep().await,
            _ if is_counter(number) => worker.increment().await,
            50..70 => worker.set().await,
            70..80 => worker.increment().await,
            80..86 => worker.delete().await,
            _ => worker.swap().await,
        }
    }
}

/// Reads from one node only, whatever it says, until told to stop: if a node serves stale values, it is to such a
/// client, whom nobody tells about another leader.
pub async fn read_loyally(mut client: Client, node: usize, records: Records, stop: Stop) {
    while !stop.get() {
        client.think(LOYAL).await;
        let name = key(client.rng.random_range(0..HOT));
        let invoked = clock::now();
        match client.exchange(node, &[request(&["GET", &name])]).await {
            Ok(replies) => match outcome(replies) {
                Outcome::Refused(_) => sleep(LOYAL).await,
                outcome => {
                    let called = Called { invoked, returned: clock::now(), outcome };
                    records.note(client.number, &name, called, |called| Some(Op::Get(integer(called))));
                }
            },
            Err(_) => sleep(LOYAL * 5).await,
        }
    }
}

/// Reads every shared key, as the last call on each, and every key that was written once; gives those of the latter
/// that are not as they were written. An error: a key that nobody answers for.
pub async fn read_all(client: &mut Client, records: &Records) -> Result<Vec<String>, String> {
    for name in (0..KEYS).map(key) {
        let called = read(client, &name).await?;
        records.note(client.number, &name, called, |called| Some(Op::Get(integer(called))));
    }
    let mut lost = Vec::new();
    for (key, value) in records.look(|seen| seen.kept.clone()) {
        let found = integer(Some(&read(client, &key).await?));
        if found != Some(value) {
            let shown = found.map_or("nothing".to_owned(), |value| value.to_string());
            lost.push(format!("{key}: SET {value} was acknowledged, {shown} is there"));
        }
    }
    Ok(lost)
}

/// Reads a key until somebody answers, or it is no use.
pub async fn read(client: &mut Client, key: &str) -> Result<Called, String> {
    for _ in 0..ATTEMPTS {
        let called = client.call(key, &[request(&["GET", key])]).await;
        if matches!(called.outcome, Outcome::Answer(_)) {
            return Ok(called);
        }
    }
    Err(format!("nobody answers for {key} at the end"))
}

struct Worker<'a> {
    client: &'a mut Client,
    records: &'a Records,
    key: &'a str,
}

impl Worker<'_> {
    async fn get(&mut self) {
        self.one(&["GET", self.key], |called| called.map(|called| Op::Get(integer(Some(called))))).await;
    }

    async fn set(&mut self) {
        let value = self.records.value();
        self.one(&["SET", self.key, &value.to_string()], |_| Some(Op::Set(value))).await;
    }

    async fn increment(&mut self) {
        self.one(&["INCR", self.key], |called| Some(Op::Increment(integer(called)))).await;
    }

    async fn delete(&mut self) {
        let existed = |called: &Called| integer(Some(called)) == Some(1);
        self.one(&["DEL", self.key], |called| Some(Op::Delete(called.map(existed)))).await;
    }

    async fn one(&mut self, words: &[&str], op: impl FnOnce(Option<&Called>) -> Option<Op>) {
        let called = self.client.call(self.key, &[request(words)]).await;
        self.records.note(self.client.number, self.key, called, op);
    }

    /// WATCH, GET, and a transaction that is not done if somebody was faster.
    async fn swap(&mut self) {
        let to = self.records.value();
        let get = request(&["GET", self.key]);
        let set = request(&["SET", self.key, &to.to_string()]);
        let transaction = [request(&["MULTI"]), set, request(&["EXEC"])];
        match self.client.guarded(self.key, get, &transaction).await {
            Err(error) => self.records.count(&Outcome::Refused(error)),
            Ok((read, done)) => {
                let from = integer(Some(&read));
                self.records.note(self.client.number, self.key, read, |_| Some(Op::Get(from)));
                self.records.note(self.client.number, self.key, done, |called| {
                    // Somebody was faster: nothing was done.
                    (!called.is_some_and(is_aborted)).then_some(Op::Swap(from, to))
                });
            }
        }
    }

    /// Writes a key of its own.
    async fn keep(&mut self) {
        let value = self.records.value();
        let key = format!("kept:{value}");
        let called = self.client.call(&key, &[request(&["SET", &key, &value.to_string()])]).await;
        self.records.keep(key, value, &called);
    }
}

fn is_aborted(called: &Called) -> bool {
    matches!(&called.outcome, Outcome::Answer(replies) if replies.last() == Some(&Frame::Null))
}

/// The last reply as a number; `None` if it is nothing (or no answer).
fn integer(called: Option<&Called>) -> Option<i64> {
    let Outcome::Answer(replies) = &called?.outcome else { return None };
    match replies.last()? {
        Frame::Integer(n) => Some(*n),
        frame => std::str::from_utf8(frame.as_bytes()?).ok()?.parse().ok(),
    }
}
