//! The object of the campaign: one key that holds an integer or nothing, with SET, GET, INCR, DEL and compare-and-set.
//!
//! Every SET and every swap writes a value of its own, a multiple of [`SPREAD`], so that a value tells who wrote it
//! even after increments. That is what makes lost answers cheap to decide, in two exact steps: a write of unknown
//! outcome whose value somebody saw took effect before the first who saw it got it; writes whose value nobody saw
//! all write the same [`UNSEEN`] value, and calls that do the same are interchangeable.

use std::collections::{HashMap, HashSet};
use std::fmt;

use crate::history::Event;
use crate::linearizability::{Call, Object, Verdict, check, check_from};

/// Values that are SET are multiples of this; more increments than this of one value don't occur.
pub const SPREAD: i64 = 1_000_000;

/// Stands for every value that nobody ever saw.
const UNSEEN: i64 = -SPREAD;

/// What a client did and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// GET: what it gave.
    Get(Option<i64>),
    /// SET.
    Set(i64),
    /// INCR: what it gave, if that is known.
    Increment(Option<i64>),
    /// DEL: whether there was something, if that is known.
    Delete(Option<bool>),
    /// WATCH, GET (it gave the first), MULTI, SET (of the second), EXEC: done, so nobody had changed the key.
    Swap(Option<i64>, i64),
}

impl Op {
    /// Whether it may change the key.
    pub fn is_write(&self) -> bool {
        !matches!(self, Op::Get(_) | Op::Delete(Some(false)))
    }

    /// What the key held just before it, as far as it tells.
    fn seen(&self) -> Option<i64> {
        match self {
            Op::Get(value) | Op::Swap(value, _) => *value,
            Op::Increment(value) => value.map(|value| value - 1),
            Op::Set(_) | Op::Delete(_) => None,
        }
    }

    fn written(&self) -> Option<i64> {
        match self {
            Op::Set(value) | Op::Swap(_, value) => Some(*value),
            _ => None,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<i64>| value.map_or("nothing".to_owned(), |value| value.to_string());
        match self {
            Op::Get(value) => write!(f, "GET -> {}", shown(value)),
            Op::Set(value) => write!(f, "SET {value}"),
            Op::Increment(Some(value)) => write!(f, "INCR -> {value}"),
            Op::Increment(None) => write!(f, "INCR"),
            Op::Delete(Some(existed)) => write!(f, "DEL -> {}", u8::from(*existed)),
            Op::Delete(None) => write!(f, "DEL"),
            Op::Swap(from, to) => write!(f, "CAS {} -> {to}", shown(from)),
        }
    }
}

/// See the module's documentation. The state is the key's value.
pub struct Register;

impl Object<Op> for Register {
    type State = Option<i64>;

    fn after(&self, state: &Option<i64>, call: &Call<Op>) -> Vec<Option<i64>> {
        let next = match call.op {
            Op::Get(value) => (value == *state).then_some(*state),
            Op::Set(value) => Some(Some(value)),
            Op::Increment(value) => {
                let more = state.unwrap_or(0) + 1;
                value.is_none_or(|value| value == more).then_some(Some(more))
            }
            Op::Delete(existed) => existed.is_none_or(|existed| existed == state.is_some()).then_some(None),
            Op::Swap(from, to) => (from == *state).then_some(Some(to)),
        };
        next.into_iter().collect()
    }

    fn are_alike(&self, one: &Op, other: &Op) -> bool {
        one == other
    }
}

/// The value that was SET, of one that may have been incremented since.
pub fn base(value: i64) -> i64 {
    value - value.rem_euclid(SPREAD)
}

/// The calls of the whole history of a key, made ready for the search.
fn calls(history: &[Event]) -> Vec<Call<Op>> {
    let mut first_seen: HashMap<i64, u64> = HashMap::new();
    for event in history {
        if let (Some(value), Some(returned)) = (event.op.seen(), event.returned) {
            let first = first_seen.entry(base(value)).or_insert(returned);
            *first = returned.min(*first);
        }
    }
    let call = |event: &Event| {
        let seen =
            event.op.written().filter(|_| event.returned.is_none()).and_then(|value| first_seen.get(&value));
        // If it was seen before it was asked for: let the search say so, with the call in its place.
        let returned = event.returned.or(seen.map(|seen| event.invoked.max(*seen)));
        Call { op: event.op, invoked: event.invoked, returned }
    };
    let mut calls: Vec<Call<Op>> = telling(history).map(call).collect();
    forget_unseen(&mut calls);
    calls
}

/// Those that say something: a read without an answer doesn't.
fn telling(history: &[Event]) -> impl Iterator<Item = &Event> {
    history.iter().filter(|event| event.returned.is_some() || event.op.is_write())
}

/// Unanswered writes of values that nobody saw write the same value.
fn forget_unseen(calls: &mut [Call<Op>]) {
    let seen: HashSet<i64> = calls.iter().filter_map(|call| call.op.seen()).map(base).collect();
    for call in calls.iter_mut().filter(|call| call.returned.is_none()) {
        if let Op::Set(value) | Op::Swap(_, value) = &mut call.op
            && !seen.contains(value)
        {
            *value = UNSEEN;
        }
    }
}

/// Checks one key's whole history; the key was absent before.
pub fn verdict(history: &[Event]) -> Verdict {
    check(&Register, None, &calls(history))
}

/// Calls that no order explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// In the order in which they began.
    pub events: Vec<Event>,
    /// Whether that is so whatever the key held before them; else it was absent.
    pub from_any: bool,
}

/// A small part of a broken history that no order explains either.
///
/// Cut at the end: calls that had not begun are gone, those that had not returned count as unanswered. Cut at the
/// beginning: calls that had returned are gone, those on their way may have taken effect before, later or never, and
/// any value is allowed to begin with. Then without the reads that can be missed. All three only make a history easier
/// to explain, so that what is left is a proof by itself.
pub fn shortest_broken(history: &[Event]) -> Proof {
    let mut moments: Vec<u64> = history.iter().filter_map(|event| event.returned).collect();
    moments.sort_unstable();
    let ends = moments.partition_point(|end| verdict(&until(history, *end)) == Verdict::Linearizable);
    let beginning = moments.get(ends).map_or(history.to_vec(), |end| until(history, *end));
    let begins = moments.partition_point(|begin| is_broken(&since(&beginning, *begin)));
    let cut = begins.checked_sub(1).map(|last| since(&beginning, moments[last]));
    let (from_any, mut events) = (cut.is_some(), cut.unwrap_or(beginning));
    for at in (0..events.len()).rev() {
        let mut without = events.clone();
        if without.remove(at).op.is_write() {
            continue;
        }
        if if from_any { is_broken(&without) } else { matches!(verdict(&without), Verdict::Broken(_)) } {
            events = without;
        }
    }
    events.sort_by_key(|event| event.invoked);
    Proof { events, from_any }
}

fn until(history: &[Event], end: u64) -> Vec<Event> {
    let begun = history.iter().filter(|event| event.invoked <= end);
    let as_of = |event: &Event| match event.returned {
        Some(returned) if returned <= end => Some(event.clone()),
        _ => unanswered(event),
    };
    begun.filter_map(as_of).collect()
}

fn since(history: &[Event], begin: u64) -> Vec<Event> {
    let later = history.iter().filter(|event| event.returned.is_none_or(|returned| returned > begin));
    later
        .filter_map(|event| if event.invoked > begin { Some(event.clone()) } else { unanswered(event) })
        .collect()
}

/// A call as it is known without its answer; a read isn't worth knowing then.
fn unanswered(event: &Event) -> Option<Event> {
    let op = match event.op {
        Op::Get(_) => return None,
        Op::Increment(_) => Op::Increment(None),
        Op::Delete(_) => Op::Delete(None),
        other => other,
    };
    Some(Event { op, returned: None, ..event.clone() })
}

/// Whether no value at the beginning explains it. A value seen may have been written before the beginning, so that
/// it says nothing about when a call of this history took effect.
fn is_broken(history: &[Event]) -> bool {
    let call = |event: &Event| Call { op: event.op, invoked: event.invoked, returned: event.returned };
    let mut calls: Vec<Call<Op>> = telling(history).map(call).collect();
    forget_unseen(&mut calls);
    let lost = calls.iter().filter(|call| call.op == Op::Increment(None)).count() as i64;
    let seen = calls.iter().filter_map(|call| call.op.seen());
    let before_increments = seen.flat_map(|value| value - lost..=value).map(Some);
    let initials: HashSet<Option<i64>> = before_increments.chain([None, Some(UNSEEN)]).collect();
    matches!(check_from(&Register, initials, &calls), Verdict::Broken(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// By trying every order of every choice of the unanswered calls, on what the clients noted.
    fn brute_force(history: &[Event], state: Option<i64>, taken: &mut Vec<usize>) -> bool {
        let open: Vec<usize> = (0..history.len()).filter(|at| !taken.contains(at)).collect();
        let first_return = open.iter().filter_map(|at| history[*at].returned).min();
        let Some(first_return) = first_return else { return true };
        open.into_iter().filter(|at| history[*at].invoked < first_return).any(|at| {
            let Event { op, invoked, returned, .. } = history[at].clone();
            Register.after(&state, &Call { op, invoked, returned }).into_iter().any(|state| {
                taken.push(at);
                let found = brute_force(history, state, taken);
                taken.pop();
                found
            })
        })
    }

    /// A few values, so that most reads see one that was written.
    fn value() -> impl Strategy<Value = Option<i64>> {
        (0..4_i64, 0..3_i64).prop_map(|(set, more)| Some(set * SPREAD + more).filter(|value| *value > 0))
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => value().prop_map(Op::Get),
            2 => Just(Op::Set(0)),
            2 => value().prop_map(|value| Op::Increment(Some(value.unwrap_or(1)))),
            1 => any::<bool>().prop_map(|existed| Op::Delete(Some(existed))),
            2 => value().prop_map(|from| Op::Swap(from, 0)),
        ]
    }

    /// Every write writes a value of its own; one call in four has no answer.
    fn history() -> impl Strategy<Value = Vec<Event>> {
        let moments = Just((0..14_u64).collect::<Vec<_>>()).prop_shuffle();
        (prop::collection::vec((op(), 0..4_u8), 7), moments).prop_map(|(ops, moments)| {
            let mut next = 0;
            let mut event = |((op, chance), pair): ((Op, u8), &[u64])| {
                let (invoked, returned) = (pair[0].min(pair[1]), pair[0].max(pair[1]));
                next += SPREAD;
                let op = match op {
                    Op::Set(_) => Op::Set(next),
                    Op::Swap(from, _) => Op::Swap(from, next),
                    other => other,
                };
                let event = Event { client: 0, op, invoked, returned: Some(returned) };
                if chance == 0 { unanswered(&event) } else { Some(event) }
            };
            ops.into_iter().zip(moments.chunks(2)).filter_map(&mut event).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn it_agrees_with_brute_force(history in history()) {
            let expected = brute_force(&history, None, &mut Vec::new());
            prop_assert_eq!(verdict(&history) == Verdict::Linearizable, expected);
        }

        #[test]
        fn what_is_shown_of_a_broken_history_is_broken_by_itself(history in history()) {
            if verdict(&history) != Verdict::Linearizable {
                let shown = shortest_broken(&history);
                let values = (0..8).flat_map(|set| (0..8).map(move |more| Some(set * SPREAD + more)));
                let any = values.chain([Some(UNSEEN)]).filter(|_| shown.from_any);
                let mut initials = std::iter::once(None).chain(any);
                prop_assert!(!initials.any(|state| brute_force(&shown.events, state, &mut Vec::new())));
            }
        }
    }

    fn event(op: Op, invoked: u64, returned: u64) -> Event {
        Event { client: 1, op, invoked, returned: Some(returned) }
    }

    #[test]
    fn a_stale_read_in_a_long_history_is_shown_with_what_it_contradicts() {
        let mut history = Vec::new();
        for n in 1..=3_000 {
            history.push(event(Op::Set(n * SPREAD), n as u64 * 10, n as u64 * 10 + 3));
            history.push(event(Op::Get(Some(n * SPREAD)), n as u64 * 10 + 4, n as u64 * 10 + 6));
        }
        assert_eq!(verdict(&history), Verdict::Linearizable);
        history.push(event(Op::Get(Some(1_999 * SPREAD)), 20_007, 20_008));
        assert!(matches!(verdict(&history), Verdict::Broken(_)));
        let events = vec![
            event(Op::Get(Some(2_000 * SPREAD)), 20_004, 20_006),
            event(Op::Get(Some(1_999 * SPREAD)), 20_007, 20_008),
        ];
        assert_eq!(shortest_broken(&history), Proof { events, from_any: true });
    }

    #[test]
    fn many_lost_answers_on_one_key_are_decided() {
        let mut history = Vec::new();
        for n in 1..=400_u64 {
            let op = match n % 4 {
                0 => Op::Increment(None),
                1 => Op::Delete(None),
                _ => Op::Set(n as i64 * SPREAD),
            };
            history.push(Event { client: 0, op, invoked: n * 10, returned: None });
            history.push(event(Op::Set((1_000 + n as i64) * SPREAD), n * 10 + 1, n * 10 + 2));
            history.push(event(Op::Get(Some((1_000 + n as i64) * SPREAD)), n * 10 + 3, n * 10 + 4));
        }
        // A lost write shows, much later.
        history.push(event(Op::Get(Some(2 * SPREAD)), 9_000, 9_001));
        assert_eq!(verdict(&history), Verdict::Linearizable);
        history.push(event(Op::Get(Some(1_399 * SPREAD)), 9_002, 9_003));
        assert!(matches!(verdict(&history), Verdict::Broken(_)));
    }
}
