//! What all clients saw, gathered while they work.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use slotcast_verify::history::Event;
use slotcast_verify::register::{Op, SPREAD};

use crate::client::{Called, Outcome};

/// Kinds of errors listed; beyond that they are only counted.
const LISTED: usize = 20;

/// A cheap handle on what was seen.
#[derive(Clone, Default)]
pub struct Records(Rc<RefCell<Seen>>);

/// See [`Records`].
#[derive(Default)]
pub struct Seen {
    /// Each key's history.
    pub histories: BTreeMap<String, Vec<Event>>,
    /// Acknowledged writes of keys that are written once.
    pub kept: Vec<(String, i64)>,
    /// Keys that expired too early or too late.
    pub untimely: Vec<String>,
    /// Calls made.
    pub calls: usize,
    /// Of these: writes whose outcome is unknown, and reads without an answer.
    pub unknown: usize,
    /// Of these: refused to the last.
    pub refused: usize,
    /// The refusals by what the error said.
    pub errors: BTreeMap<String, usize>,
    next: i64,
}

impl Records {
    /// A value that was never written before.
    pub fn value(&self) -> i64 {
        let mut seen = self.0.borrow_mut();
        seen.next += SPREAD;
        seen.next
    }

    /// Notes a call; `op` makes what was done of its replies, which are none if there was no answer.
    pub fn note(
        &self,
        client: u16,
        key: &str,
        called: Called,
        op: impl FnOnce(Option<&Called>) -> Option<Op>,
    ) {
        self.count(&called.outcome);
        let (op, returned) = match &called.outcome {
            Outcome::Answer(_) => (op(Some(&called)), Some(called.returned)),
            Outcome::Unknown => (op(None), None),
            Outcome::Refused(_) => return,
        };
        let Some(op) = op.filter(|op| returned.is_some() || op.is_write()) else { return };
        let event = Event { client, op, invoked: called.invoked, returned };
        self.0.borrow_mut().histories.entry(key.to_owned()).or_default().push(event);
    }

    /// Notes the write of a key that is written once.
    pub fn keep(&self, key: String, value: i64, called: &Called) {
        self.count(&called.outcome);
        if let Outcome::Answer(_) = called.outcome {
            self.0.borrow_mut().kept.push((key, value));
        }
    }

    /// Notes a key that expired too early or too late.
    pub fn blame(&self, why: String) {
        self.0.borrow_mut().untimely.push(why);
    }

    /// Counts a call that leaves nothing to check.
    pub fn count(&self, outcome: &Outcome) {
        let mut seen = self.0.borrow_mut();
        seen.calls += 1;
        match outcome {
            Outcome::Answer(_) => {}
            Outcome::Unknown => seen.unknown += 1,
            Outcome::Refused(error) => {
                seen.refused += 1;
                // Slots and addresses make no kinds.
                let kind = error.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default().to_owned();
                if seen.errors.len() < LISTED || seen.errors.contains_key(&kind) {
                    *seen.errors.entry(kind).or_default() += 1;
                }
            }
        }
    }

    /// Looks at all of it.
    pub fn look<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.0.borrow())
    }
}
