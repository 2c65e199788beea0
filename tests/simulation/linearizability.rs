//! Whether a history could have come from one object that does one thing at a time.
//!
//! Wing & Gong's search with Lowe's memory ("Testing for linearizability", 2017): calls are put in order one after
//! the other; the next may be any call that began before every unfinished-in-the-order call had returned. A set of
//! calls in order together with the state it leads to is looked at once. A call without a return may have taken
//! effect at any time after it began, or never.

use std::collections::HashSet;
use std::hash::Hash;

/// Sets of calls looked at, at most; a history that takes more is undecided.
const LIMIT: usize = 2_000_000;

/// A call, with the moments (of one clock that never stands still) between which it took effect.
#[derive(Clone, Debug)]
pub struct Call<O> {
    /// What was done, and what came of it.
    pub op: O,
    /// When it was asked for.
    pub invoked: u64,
    /// When its answer was there; `None`: there was none.
    pub returned: Option<u64>,
}

/// What an object does: the states it may be in after a call that gave what it gave; none: it can't have.
pub trait Object<O> {
    /// Its state.
    type State: Clone + Eq + Hash;
    /// See above.
    fn after(&self, state: &Self::State, call: &Call<O>) -> Vec<Self::State>;
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    /// So many calls could be put in order at most.
    Broken(usize),
    /// Given up at the limit.
    Undecided,
}

/// Which calls are in order already.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Taken(Box<[u64]>);

impl Taken {
    fn has(&self, call: usize) -> bool {
        self.0[call / 64] >> (call % 64) & 1 == 1
    }

    fn with(&self, call: usize) -> Taken {
        let mut more = self.clone();
        more.0[call / 64] |= 1 << (call % 64);
        more
    }

    fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }
}

/// Checks a history. Its order does not matter.
pub fn check<O: Clone, X: Object<O>>(object: &X, initial: X::State, history: &[Call<O>]) -> Verdict {
    let mut calls = history.to_vec();
    calls.sort_by_key(|call| call.invoked);
    let begin = (Taken(vec![0; calls.len().div_ceil(64)].into()), initial);
    let mut seen = HashSet::from([begin.clone()]);
    let mut open = vec![begin];
    let mut most = 0;
    while let Some((taken, state)) = open.pop() {
        let next = candidates(&calls, &taken);
        let Some(next) = next else { return Verdict::Linearizable };
        most = most.max(taken.count());
        for call in next.into_iter().rev() {
            for state in object.after(&state, &calls[call]) {
                let reached = (taken.with(call), state);
                if seen.insert(reached.clone()) {
                    open.push(reached);
                }
            }
        }
        if seen.len() > LIMIT {
            return Verdict::Undecided;
        }
    }
    Verdict::Broken(most)
}

/// The calls that may come next; `None`: all that returned are in order.
fn candidates<O>(calls: &[Call<O>], taken: &Taken) -> Option<Vec<usize>> {
    let mut first_return = u64::MAX;
    let mut candidates = Vec::new();
    for (at, call) in calls.iter().enumerate() {
        if call.invoked > first_return {
            break;
        }
        if !taken.has(at) {
            first_return = first_return.min(call.returned.unwrap_or(u64::MAX));
            candidates.push(at);
        }
    }
    (first_return < u64::MAX).then_some(candidates)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Op {
        Write(u8),
        Read(u8),
    }

    struct Register;

    impl Object<Op> for Register {
        type State = u8;

        fn after(&self, state: &u8, call: &Call<Op>) -> Vec<u8> {
            match call.op {
                Op::Write(value) => vec![value],
                Op::Read(value) if value == *state => vec![*state],
                Op::Read(_) => Vec::new(),
            }
        }
    }

    fn call(op: Op, invoked: u64, returned: u64) -> Call<Op> {
        Call { op, invoked, returned: Some(returned) }
    }

    /// By trying every order of every choice of the unanswered calls.
    fn brute_force(calls: &[Call<Op>], state: u8, taken: &mut Vec<usize>) -> bool {
        let rest = || (0..calls.len()).filter(|at| !taken.contains(at));
        if rest().all(|at| calls[at].returned.is_none()) {
            return true;
        }
        let first_return = rest().filter_map(|at| calls[at].returned).min().unwrap_or(u64::MAX);
        for at in rest().filter(|at| calls[*at].invoked < first_return).collect::<Vec<_>>() {
            for state in Register.after(&state, &calls[at]) {
                taken.push(at);
                let found = brute_force(calls, state, taken);
                taken.pop();
                if found {
                    return true;
                }
            }
        }
        false
    }

    #[test]
    fn it_agrees_with_brute_force() {
        let (mut rng, mut verdicts) = (SmallRng::seed_from_u64(1), [0; 2]);
        for _ in 0..4_000 {
            let mut moments: Vec<u64> = (0..14).collect();
            let mut moment = || moments.swap_remove(rng.random_range(0..moments.len()));
            let pairs: Vec<(u64, u64)> = (0..7).map(|_| (moment(), moment())).collect();
            let history: Vec<Call<Op>> = pairs
                .into_iter()
                .map(|(one, other)| {
                    let value = rng.random_range(0..3);
                    let op = if rng.random() { Op::Write(value) } else { Op::Read(value) };
                    let lost = rng.random_bool(0.2);
                    let (invoked, returned) = (one.min(other), one.max(other));
                    Call { op, invoked, returned: (!lost).then_some(returned) }
                })
                .collect();
            let expected = brute_force(&history, 0, &mut Vec::new());
            let found = check(&Register, 0, &history);
            assert_eq!(found == Verdict::Linearizable, expected, "{history:?}");
            verdicts[usize::from(expected)] += 1;
        }
        assert!(verdicts.iter().all(|count| *count > 400), "both kinds occur: {verdicts:?}");
    }

    #[test]
    fn a_stale_read_is_found_in_a_long_history() {
        let write = |n: u64| call(Op::Write(n as u8), n * 10, n * 10 + 5);
        let read = |n: u64| call(Op::Read(n as u8), n * 10 + 6, n * 10 + 9);
        let mut history: Vec<Call<Op>> = (0..200).flat_map(|n| [write(n), read(n)]).collect();
        assert_eq!(check(&Register, 0, &history), Verdict::Linearizable);
        history[301].op = Op::Read(149);
        assert_eq!(check(&Register, 0, &history), Verdict::Broken(301));
    }

    #[test]
    fn an_unanswered_write_may_show_late_or_never_but_not_come_and_go() {
        let lost = Call { op: Op::Write(7), invoked: 0, returned: None };
        let read = |value, at| call(Op::Read(value), at, at + 1);
        let verdict = |reads: &[u8]| {
            let reads = (1..).zip(reads).map(|(n, value)| read(*value, n * 10));
            let history: Vec<Call<Op>> = std::iter::once(lost.clone()).chain(reads).collect();
            check(&Register, 0, &history) == Verdict::Linearizable
        };
        assert!(verdict(&[0, 0, 0]) && verdict(&[0, 0, 7]) && verdict(&[7, 7, 7]));
        assert!(!verdict(&[0, 7, 0]));
    }
}
