//! Random sequences of data commands, with time passing in between, against a model so simple that one sees it is right: a
//! `BTreeMap` from key to value and deadline. After each sequence keyspace and model hold the same, a replica (restored from
//! a snapshot on the way) too, the totals count what is there, and a flush gives every byte back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use slotcast::command::execute::execute;
use slotcast::command::needs::needs;
use slotcast::keyspace::Keyspace;
use slotcast::keyspace::cut::cut;
use slotcast::keyspace::effect::{Effect, Everybody};
use slotcast::keyspace::expiry::lapsed;
use slotcast::keyspace::locked::{Locked, Needs};
use slotcast::keyspace::snapshot::{Reader, digest};
use slotcast::session::table::resolve;
use slotcast_wire::args::OwnedArgs;
use slotcast_wire::frame::{Frame, FrameDecoder};
use slotcast_wire::reply::{Proto, Reply};
use slotcast_wire::slot::slot_of;

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Text(String),
    Hash(BTreeMap<String, String>),
}

/// What a client may do, and what the model makes of it.
#[derive(Clone, Debug)]
enum Step {
    Set(String, String),
    SetFor(String, String, u64),
    SetKeeping(String, String),
    SetIfAbsent(String, String),
    Append(String, String),
    Overwrite(String, usize, String),
    Increment(String, i64),
    Delete(String),
    Expire(String, i64),
    Persist(String),
    Rename(String, String),
    Copy(String, String),
    HashSet(String, String, String),
    HashDelete(String, String),
    HashIncrement(String, String, i64),
    Wait(u64),
    /// Removes what is past its deadline, as the leader does from time to time.
    Sweep,
    /// The replica is replaced by one that begins with a snapshot of the server.
    Snapshot,
}

#[derive(Clone, Debug, Default)]
struct Model {
    keys: BTreeMap<String, (Value, Option<u64>)>,
    now: u64,
}

/// An answer as far as the model gives one: an error is an error.
#[derive(Debug, PartialEq)]
enum Answer {
    Ok,
    Nil,
    Number(i64),
    Error,
}

impl Model {
    fn drop_lapsed(&mut self) {
        let now = self.now;
        self.keys.retain(|_, (_, deadline)| deadline.is_none_or(|deadline| deadline > now));
    }

    /// Sets a key, unless the deadline has passed.
    fn put(&mut self, key: &str, value: Value, deadline: Option<u64>) {
        self.keys.insert(key.into(), (value, deadline));
        self.drop_lapsed();
    }

    fn deadline(&self, key: &str) -> Option<u64> {
        self.keys.get(key).and_then(|(_, deadline)| *deadline)
    }

    /// The string at a key, empty if there is none.
    fn text(&self, key: &str) -> Result<String, Answer> {
        match self.keys.get(key) {
            None => Ok(String::new()),
            Some((Value::Text(text), _)) => Ok(text.clone()),
            Some(_) => Err(Answer::Error),
        }
    }

    fn fields(&self, key: &str) -> Result<BTreeMap<String, String>, Answer> {
        match self.keys.get(key) {
            None => Ok(BTreeMap::new()),
            Some((Value::Hash(fields), _)) => Ok(fields.clone()),
            Some(_) => Err(Answer::Error),
        }
    }

    fn change_text(
        &mut self,
        key: &str,
        f: impl FnOnce(String) -> Result<(String, i64), Answer>,
    ) -> Result<Answer, Answer> {
        let (text, answer) = f(self.text(key)?)?;
        let deadline = self.deadline(key);
        self.put(key, Value::Text(text), deadline);
        Ok(Answer::Number(answer))
    }

    fn change_fields(
        &mut self,
        key: &str,
        f: impl FnOnce(&mut BTreeMap<String, String>) -> Result<i64, Answer>,
    ) -> Result<Answer, Answer> {
        let mut fields = self.fields(key)?;
        let answer = f(&mut fields)?;
        let deadline = self.deadline(key);
        if fields.is_empty() {
            self.keys.remove(key);
        } else {
            self.put(key, Value::Hash(fields), deadline);
        }
        Ok(Answer::Number(answer))
    }

    fn step(&mut self, step: &Step) -> Result<Answer, Answer> {
        self.drop_lapsed();
        match step {
            Step::Set(key, value) => self.put(key, Value::Text(value.clone()), None),
            Step::SetFor(key, value, millis) => {
                let deadline = self.now + millis;
                self.put(key, Value::Text(value.clone()), Some(deadline));
            }
            Step::SetKeeping(key, value) => {
                let deadline = self.deadline(key);
                self.put(key, Value::Text(value.clone()), deadline);
            }
            Step::SetIfAbsent(key, _) if self.keys.contains_key(key) => return Ok(Answer::Nil),
            Step::SetIfAbsent(key, value) => self.put(key, Value::Text(value.clone()), None),
            Step::Append(key, tail) => {
                return self
                    .change_text(key, |text| Ok((text.clone() + tail, (text.len() + tail.len()) as i64)));
            }
            Step::Overwrite(key, at, part) => return self.overwrite(key, *at, part),
            Step::Increment(key, by) => {
                let absent = !self.keys.contains_key(key);
                return self.change_text(key, |text| {
                    let sum = sum(if absent { "0" } else { &text }, *by)?;
                    Ok((sum.to_string(), sum))
                });
            }
            Step::Delete(key) => return Ok(Answer::Number(self.keys.remove(key).is_some() as i64)),
            Step::Expire(key, millis) => {
                let deadline = self.now.saturating_add_signed(*millis);
                let Some((_, current)) = self.keys.get_mut(key) else { return Ok(Answer::Number(0)) };
                *current = Some(deadline);
                self.drop_lapsed();
                return Ok(Answer::Number(1));
            }
            Step::Persist(key) => {
                let dated = self.keys.get_mut(key).and_then(|(_, deadline)| deadline.take()).is_some();
                return Ok(Answer::Number(dated as i64));
            }
            Step::Rename(from, to) => {
                let moved = self.keys.remove(from).ok_or(Answer::Error)?;
                self.keys.insert(to.clone(), moved);
            }
            Step::Copy(from, to) if from == to => return Err(Answer::Error),
            Step::Copy(from, to) => {
                let copied = self.keys.get(from).cloned().filter(|_| !self.keys.contains_key(to));
                let done = copied.is_some();
                self.keys.extend(copied.map(|copied| (to.clone(), copied)));
                return Ok(Answer::Number(done as i64));
            }
            Step::HashSet(key, field, value) => {
                return self.change_fields(key, |fields| {
                    Ok(fields.insert(field.clone(), value.clone()).is_none() as i64)
                });
            }
            Step::HashDelete(key, field) => {
                return self.change_fields(key, |fields| Ok(fields.remove(field).is_some() as i64));
            }
            Step::HashIncrement(key, field, by) => {
                return self.change_fields(key, |fields| {
                    let sum = sum(fields.get(field).map_or("0", String::as_str), *by)?;
                    fields.insert(field.clone(), sum.to_string());
                    Ok(sum)
                });
            }
            Step::Wait(millis) => self.now += millis,
            Step::Sweep | Step::Snapshot => {}
        }
        self.drop_lapsed();
        Ok(Answer::Ok)
    }

    fn overwrite(&mut self, key: &str, at: usize, part: &str) -> Result<Answer, Answer> {
        let mut text = self.text(key)?.into_bytes();
        if !part.is_empty() {
            text.resize(text.len().max(at + part.len()), 0);
            text[at..at + part.len()].copy_from_slice(part.as_bytes());
            let deadline = self.deadline(key);
            self.put(key, Value::Text(String::from_utf8(text.clone()).expect("ASCII")), deadline);
        }
        Ok(Answer::Number(text.len() as i64))
    }
}

/// `text + by`, if `text` is an integer in canonical form.
fn sum(text: &str, by: i64) -> Result<i64, Answer> {
    let old = text.parse().ok().filter(|old: &i64| old.to_string() == text);
    old.and_then(|old| old.checked_add(by)).ok_or(Answer::Error)
}

/// The request of a step; none for those that are about time.
fn request(step: &Step) -> Option<Vec<String>> {
    let words: Vec<&dyn ToString> = match step {
        Step::Set(key, value) => vec![&"SET", key, value],
        Step::SetFor(key, value, millis) => vec![&"SET", key, value, &"PX", millis],
        Step::SetKeeping(key, value) => vec![&"SET", key, value, &"KEEPTTL"],
        Step::SetIfAbsent(key, value) => vec![&"SET", key, value, &"NX"],
        Step::Append(key, tail) => vec![&"APPEND", key, tail],
        Step::Overwrite(key, at, part) => vec![&"SETRANGE", key, at, part],
        Step::Increment(key, by) => vec![&"INCRBY", key, by],
        Step::Delete(key) => vec![&"DEL", key],
        Step::Expire(key, millis) => vec![&"PEXPIRE", key, millis],
        Step::Persist(key) => vec![&"PERSIST", key],
        Step::Rename(from, to) => vec![&"RENAME", from, to],
        Step::Copy(from, to) => vec![&"COPY", from, to],
        Step::HashSet(key, field, value) => vec![&"HSET", key, field, value],
        Step::HashDelete(key, field) => vec![&"HDEL", key, field],
        Step::HashIncrement(key, field, by) => vec![&"HINCRBY", key, field, by],
        Step::Wait(_) | Step::Sweep | Step::Snapshot => return None,
    };
    Some(words.into_iter().map(|word| word.to_string()).collect())
}

struct Server {
    keyspace: Arc<Keyspace>,
    now: u64,
}

impl Server {
    fn new() -> Self {
        Server { keyspace: Arc::new(Keyspace::new()), now: 0 }
    }

    fn snapshot(&self) -> Self {
        let mut reader = Reader::new(Keyspace::new());
        for chunk in cut(&self.keyspace).expect("the only cut") {
            reader.take(&chunk.expect("nobody gives it up")).expect("a snapshot");
        }
        Server { keyspace: Arc::new(reader.finish().expect("all of it")), now: self.now }
    }

    fn ask(&self, words: &[String]) -> (Frame, Vec<Effect>) {
        let args: OwnedArgs = words.iter().collect();
        let args = args.as_args();
        let command = resolve(args).expect("a command and arguments that fit").command;
        let mut locked =
            Locked::new(&self.keyspace, &needs(command, args).expect("keys"), self.now, 1, &Everybody);
        let mut out = Vec::new();
        execute(command, &mut locked, args, &mut Reply::new(&mut out, Proto::Resp3));
        let frame = FrameDecoder::default().decode(&out).expect("a frame").1.expect("a whole frame");
        (frame, locked.effects().to_vec())
    }

    fn step(&mut self, step: &Step) -> (Answer, Vec<Effect>) {
        match step {
            Step::Wait(millis) => self.now += millis,
            Step::Sweep => {
                for key in lapsed(&self.keyspace, self.now, &mut 0, usize::MAX, usize::MAX) {
                    let needs = Needs::Slot(slot_of(&key));
                    assert!(Locked::new(&self.keyspace, &needs, self.now, 0, &Everybody).expire(&key));
                }
            }
            Step::Snapshot => {}
            _ => {
                let (frame, effects) = self.ask(&request(step).expect("a request"));
                return (answer(&frame), effects);
            }
        }
        (Answer::Ok, Vec::new())
    }
}

fn answer(frame: &Frame) -> Answer {
    match frame {
        Frame::Integer(n) => Answer::Number(*n),
        Frame::Null => Answer::Nil,
        Frame::Error(_) => Answer::Error,
        _ => Answer::Ok,
    }
}

/// Everything the keyspace holds, read through commands.
fn contents(server: &Server) -> BTreeMap<String, (Value, Option<u64>)> {
    let ask = |words: &[&str]| server.ask(&words.iter().map(|word| word.to_string()).collect::<Vec<_>>()).0;
    let text =
        |frame: &Frame| String::from_utf8(frame.as_bytes().expect("a string").to_vec()).expect("ASCII");
    let Frame::Array(keys) = ask(&["KEYS", "*"]) else { panic!("KEYS") };
    let entry = |key: String| {
        let value = match ask(&["HGETALL", &key]) {
            Frame::Map(pairs) => {
                Value::Hash(pairs.iter().map(|(field, value)| (text(field), text(value))).collect())
            }
            _ => Value::Text(text(&ask(&["GET", &key]))),
        };
        let deadline = match ask(&["PEXPIRETIME", &key]) {
            Frame::Integer(at) => u64::try_from(at).ok(),
            other => panic!("{other}"),
        };
        (key, (value, deadline))
    };
    keys.iter().map(|key| entry(text(key))).collect()
}

/// Few keys, so that steps meet; two share a slot.
const KEYS: [&str; 5] = ["a", "b", "{a}2", "c", "d"];

fn slots() -> impl Iterator<Item = u16> {
    BTreeSet::from(KEYS.map(|key| slot_of(key.as_bytes()))).into_iter()
}

fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    let key = || prop::sample::select(&KEYS).prop_map(str::to_owned);
    let field = || prop::sample::select(vec!["f", "g", "h"]).prop_map(str::to_owned);
    let value = || prop_oneof!["[a-z]{0,9}", "[1-9][0-9]{0,3}", "[a-z]{70}"];
    let by = || prop_oneof![-9i64..9, Just(i64::MAX), Just(i64::MIN + 1)];
    let step = prop_oneof![
        (key(), value()).prop_map(|(k, v)| Step::Set(k, v)),
        (key(), value(), 1u64..200).prop_map(|(k, v, t)| Step::SetFor(k, v, t)),
        (key(), value()).prop_map(|(k, v)| Step::SetKeeping(k, v)),
        (key(), value()).prop_map(|(k, v)| Step::SetIfAbsent(k, v)),
        (key(), value()).prop_map(|(k, v)| Step::Append(k, v)),
        (key(), 0usize..20, value()).prop_map(|(k, at, v)| Step::Overwrite(k, at, v)),
        (key(), by()).prop_map(|(k, n)| Step::Increment(k, n)),
        key().prop_map(Step::Delete),
        (key(), -20i64..200).prop_map(|(k, t)| Step::Expire(k, t)),
        key().prop_map(Step::Persist),
        (key(), key()).prop_map(|(k, l)| Step::Rename(k, l)),
        (key(), key()).prop_map(|(k, l)| Step::Copy(k, l)),
        (key(), field(), value()).prop_map(|(k, f, v)| Step::HashSet(k, f, v)),
        (key(), field()).prop_map(|(k, f)| Step::HashDelete(k, f)),
        (key(), field(), by()).prop_map(|(k, f, n)| Step::HashIncrement(k, f, n)),
        (1u64..100).prop_map(Step::Wait),
        Just(Step::Sweep),
        Just(Step::Snapshot),
    ];
    prop::collection::vec(step, 1..80)
}

/// Keys whose value or deadline differs.
fn changed(before: &Model, after: &Model) -> Vec<String> {
    let keys = before.keys.keys().chain(after.keys.keys());
    keys.filter(|key| before.keys.get(*key) != after.keys.get(*key)).cloned().collect()
}

fn names(effects: &[Effect], wanted: &str) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Key { key, .. } if **key == *wanted.as_bytes()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn commands_do_what_the_model_does(steps in steps()) {
        let (mut server, mut replica, mut model) = (Server::new(), Server::new(), Model::default());
        let empty = server.keyspace.usage();
        for step in &steps {
            model.drop_lapsed();
            let before = model.clone();
            let expected = model.step(step).unwrap_or_else(|error| error);
            let (answer, effects) = server.step(step);
            prop_assert_eq!(answer, expected, "{:?}", step);
            for key in changed(&before, &model) {
                prop_assert!(names(&effects, &key) || matches!(step, Step::Wait(_)), "{:?} hides {}", step, key);
            }
            replica.step(step);
            if matches!(step, Step::Snapshot) {
                replica = server.snapshot();
            }
        }
        prop_assert_eq!(contents(&server), model.keys.clone());
        for slot in slots() {
            prop_assert_eq!(digest(&server.keyspace, slot), digest(&replica.keyspace, slot));
        }

        server.step(&Step::Sweep);
        let usage = server.keyspace.usage();
        prop_assert_eq!(usage.keys as usize, model.keys.len());
        let dated = model.keys.values().filter(|(_, deadline)| deadline.is_some());
        prop_assert_eq!(usage.volatile as usize, dated.count());
        let (_, effects) = server.ask(&["FLUSHALL".to_owned()]);
        prop_assert_eq!(effects, [Effect::Flushed]);
        prop_assert_eq!(server.keyspace.usage(), empty);
    }
}
