//! Each object behaves as if there were one copy of it. What it is, and what it may answer, is a specification.
//!
//! Two keys share a hash tag, so that a transaction can touch both; together they are one object. Values are
//! integers. A key with a time to live vanishes for all at one moment between the earliest and the latest its
//! deadline can be, and does not come back by itself.

use std::fmt;

use slotcast_verify::linearizability::{Call, Object, Verdict};

use crate::story::CHAOS;
use crate::trace::Trace;
use crate::workload::{Records, key};

/// Which of the two keys.
pub type Field = usize;

/// What a client did, and what came of it (meaningless if the call has no return).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Get {
        field: Field,
        got: Option<i64>,
    },
    Set {
        field: Field,
        value: i64,
        ttl: Option<u64>,
    },
    Increment {
        field: Field,
        got: i64,
    },
    Delete {
        field: Field,
        existed: bool,
    },
    Expire {
        field: Field,
        ttl: u64,
        existed: bool,
    },
    /// MULTI, SET, SET, EXEC.
    SetBoth {
        values: [i64; 2],
    },
    /// MULTI, GET, GET, EXEC.
    GetBoth {
        got: [Option<i64>; 2],
    },
    /// WATCH, GET, MULTI, SET, EXEC: it was done, so nobody changed the key since.
    Swap {
        field: Field,
        from: Option<i64>,
        to: i64,
    },
}

/// An operation in real time (ms), as deadlines follow from that.
#[derive(Clone, Debug)]
pub struct Timed {
    pub op: Op,
    pub invoked: u64,
    /// `u64::MAX`: no answer.
    pub returned: u64,
}

/// A key's value and the bounds (ms) of its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cell {
    value: i64,
    deadline: Option<(u64, u64)>,
}

/// See the module's documentation.
pub struct Pair {
    /// Until then (ms) things go wrong.
    pub mended: u64,
    /// Clocks are wrong by so much (ms), at most.
    pub skew: u64,
}

/// Deadlines are whole milliseconds, and so is this simulation's time.
const SLACK: u64 = 2;
/// A key may live so much (ms) longer than its deadline: reads do not run ahead of the entries under way, and those
/// take a round trip.
const LATE: u64 = 100;

impl Pair {
    /// While things go wrong an entry may be under way for as long as they do.
    fn late(&self, invoked: u64) -> u64 {
        if invoked <= self.mended { CHAOS } else { LATE }
    }

    /// Each way to see a field at a call's time: alive, or expired.
    fn views(&self, state: &[Option<Cell>; 2], field: Field, timed: &Timed) -> Vec<[Option<Cell>; 2]> {
        let Some((earliest, latest)) = state[field].and_then(|cell| cell.deadline) else {
            return vec![*state];
        };
        let mut views = Vec::new();
        if timed.invoked <= latest.saturating_add(self.late(timed.invoked) + 2 * self.skew) {
            views.push(*state);
        }
        if timed.returned.saturating_add(SLACK + 2 * self.skew) >= earliest {
            let mut expired = *state;
            expired[field] = None;
            views.push(expired);
        }
        views
    }
}

impl Object<Timed> for Pair {
    type State = [Option<Cell>; 2];

    fn after(&self, state: &Self::State, call: &Call<Timed>) -> Vec<Self::State> {
        let (timed, answered) = (&call.op, call.returned.is_some());
        let deadline = |ttl: u64| (timed.invoked + ttl, timed.returned.saturating_add(ttl));
        let fields: &[Field] = match &timed.op {
            Op::SetBoth { .. } | Op::Set { .. } => &[],
            Op::GetBoth { .. } => &[0, 1],
            Op::Get { field, .. }
            | Op::Increment { field, .. }
            | Op::Delete { field, .. }
            | Op::Expire { field, .. }
            | Op::Swap { field, .. } => std::slice::from_ref(field),
        };
        let mut views = vec![*state];
        for field in fields {
            views = views.iter().flat_map(|view| self.views(view, *field, timed)).collect();
        }
        let mut outcomes = Vec::new();
        for mut view in views {
            let value = |view: &[Option<Cell>; 2], field: Field| view[field].map(|cell| cell.value);
            let fits = match &timed.op {
                Op::Get { field, got } => *got == value(&view, *field),
                Op::GetBoth { got } => *got == [value(&view, 0), value(&view, 1)],
                Op::Set { field, value, ttl } => {
                    view[*field] = Some(Cell { value: *value, deadline: ttl.map(deadline) });
                    true
                }
                Op::SetBoth { values } => {
                    view = values.map(|value| Some(Cell { value, deadline: None }));
                    true
                }
                Op::Increment { field, got } => {
                    let cell = view[*field].get_or_insert(Cell { value: 0, deadline: None });
                    cell.value += 1;
                    cell.value == *got || !answered
                }
                Op::Delete { field, existed } => view[*field].take().is_some() == *existed || !answered,
                Op::Expire { field, ttl, existed } => {
                    let cell = view[*field].as_mut();
                    let found = cell.map(|cell| cell.deadline = Some(deadline(*ttl))).is_some();
                    found == *existed || !answered
                }
                Op::Swap { field, from, to } => {
                    let fits = value(&view, *field) == *from;
                    view[*field] = Some(Cell { value: *to, deadline: None });
                    fits
                }
            };
            if fits {
                outcomes.push(view);
            }
        }
        outcomes
    }
}

impl fmt::Display for Timed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.returned {
            u64::MAX => write!(f, "{} .. ?      {:?}", self.invoked, self.op),
            returned => write!(f, "{} .. {returned} {:?}", self.invoked, self.op),
        }
    }
}

/// Searches each object's history for an order that explains it.
pub fn check(records: &Records, pair: &Pair, trace: &Trace) {
    for (object, mut history) in records.histories().into_iter().enumerate() {
        let verdict = slotcast_verify::linearizability::check(pair, [None; 2], &history);
        if verdict == Verdict::Linearizable {
            continue;
        }
        history.sort_by_key(|call| call.invoked);
        let at = if let Verdict::Broken(at) = verdict { at } else { 0 };
        let shown = history.iter().skip(at.saturating_sub(12)).take(30);
        let calls: String = shown.map(|call| format!("  {}\n", call.op)).collect();
        trace.violation(format!(
            "object {object} ({}) of {} calls is {verdict:?}; around there:\n{calls}",
            key(object, 0),
            history.len()
        ));
    }
}
