//! Whether a history could have come from one object that does one thing at a time.
//!
//! Wing & Gong's search with Lowe's memory ("Testing for linearizability", 2017): calls are put in order one after
//! the other; the next may be any call that began before every unfinished-in-the-order call had returned. A set of
//! calls in order together with the state it leads to is looked at once. A call without a return may have taken
//! effect at any time after it began, or never.
//!
//! Two things keep long histories cheap. A set is kept as how many of the answered calls are in order without a hole
//! and which are ahead of the hole: its size follows the number of clients, not the history's length. And of two ways
//! to put the same answered calls in order, with the same state, the one that used fewer of the unanswered ones can
//! do all that the other can, so that the other is not followed.

use std::collections::HashMap;
use std::hash::Hash;

/// Sets of calls looked at, at most; a history that takes more is undecided.
const LIMIT: usize = 2_000_000;

/// A call, with the moments (of one clock that never stands still) between which it took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<O> {
    /// What was done, and what came of it.
    pub op: O,
    /// When it was asked for.
    pub invoked: u64,
    /// When it had certainly taken effect: its answer was there. `None`: maybe later, maybe never.
    pub returned: Option<u64>,
}

/// What an object does.
pub trait Object<O> {
    /// Its state.
    type State: Clone + Eq + Hash;

    /// The states it may be in after a call that gave what it gave; none: it can't have.
    fn after(&self, state: &Self::State, call: &Call<O>) -> Vec<Self::State>;

    /// Whether two calls without a return have the same effect. Of these, the one that began first is tried first: that
    /// loses nothing, and many of them cost little.
    fn are_alike(&self, _one: &O, _other: &O) -> bool {
        false
    }
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order.
    Linearizable,
    /// There is none. So many calls could be put in order at most.
    Broken(usize),
    /// Given up at the limit.
    Undecided,
}

/// Which calls are in order already: indices into [`Calls`].
#[derive(Clone, PartialEq, Eq, Hash, Default)]
struct Answered {
    /// All answered calls before this one,
    prefix: u32,
    /// and these behind it (sorted).
    ahead: Vec<u32>,
}

/// Which calls without an answer are in order (sorted).
type Lost = Vec<u32>;

impl Answered {
    fn with(&self, call: u32) -> Answered {
        let mut ahead = with(&self.ahead, call);
        let whole = ahead.iter().zip(self.prefix..).take_while(|(call, next)| *call == next).count();
        ahead.drain(..whole);
        Answered { prefix: self.prefix + whole as u32, ahead }
    }
}

fn with(sorted: &[u32], call: u32) -> Vec<u32> {
    let mut more = sorted.to_vec();
    more.insert(sorted.partition_point(|other| *other < call), call);
    more
}

fn is_part(some: &[u32], all: &[u32]) -> bool {
    some.iter().all(|call| all.binary_search(call).is_ok())
}

/// A history, in the order in which the calls began.
struct Calls<O> {
    answered: Vec<Call<O>>,
    lost: Vec<Call<O>>,
    /// For each lost call, the one before it that is alike.
    alike: Vec<Option<u32>>,
}

impl<O: Clone> Calls<O> {
    fn new<X: Object<O>>(object: &X, history: &[Call<O>]) -> Calls<O> {
        let mut calls = history.to_vec();
        calls.sort_by_key(|call| call.invoked);
        let (answered, lost): (Vec<_>, Vec<_>) = calls.into_iter().partition(|call| call.returned.is_some());
        let before = |at: usize| (0..at).rev().find(|other| object.are_alike(&lost[*other].op, &lost[at].op));
        let alike = (0..lost.len()).map(|at| before(at).map(|other| other as u32)).collect();
        Calls { answered, lost, alike }
    }

    /// The answered calls and the lost ones that may come next; `None`: all that were answered are in order.
    fn candidates(&self, taken: &Answered, lost: &Lost) -> Option<(Vec<u32>, Vec<u32>)> {
        let mut first_return = u64::MAX;
        let mut answered = Vec::new();
        for (at, call) in (taken.prefix..).zip(&self.answered[taken.prefix as usize..]) {
            if call.invoked > first_return {
                break;
            }
            if taken.ahead.binary_search(&at).is_err() {
                first_return = first_return.min(call.returned.unwrap_or(u64::MAX));
                answered.push(at);
            }
        }
        if answered.is_empty() {
            return None;
        }
        // Most likely in the order of their answers.
        answered.sort_by_key(|at| self.answered[*at as usize].returned);
        let is_taken = |at: &u32| lost.binary_search(at).is_ok();
        let began = self.lost.iter().take_while(|call| call.invoked <= first_return);
        let open = (0..).zip(began).map(|(at, _)| at).filter(|at| !is_taken(at));
        let first = open.filter(|at| self.alike[*at as usize].is_none_or(|other| is_taken(&other)));
        Some((answered, first.collect()))
    }
}

/// Checks a history that began in one state. Its order does not matter.
pub fn check<O: Clone, X: Object<O>>(object: &X, initial: X::State, history: &[Call<O>]) -> Verdict {
    check_from(object, [initial], history)
}

/// Checks a history that began in any of these states.
pub fn check_from<O: Clone, X: Object<O>>(
    object: &X,
    initials: impl IntoIterator<Item = X::State>,
    history: &[Call<O>],
) -> Verdict {
    let calls = Calls::new(object, history);
    let mut search = Search { seen: HashMap::new(), open: Vec::new(), count: 0 };
    initials.into_iter().for_each(|state| search.visit(Answered::default(), state, Lost::new()));
    let mut most = 0;
    while let Some((taken, state, used)) = search.open.pop() {
        let Some((answered, lost)) = calls.candidates(&taken, &used) else { return Verdict::Linearizable };
        most = most.max(taken.prefix as usize + taken.ahead.len() + used.len());
        // The last one visited is followed first: lost calls only if need be.
        for at in lost.into_iter().rev() {
            for state in object.after(&state, &calls.lost[at as usize]) {
                search.visit(taken.clone(), state, with(&used, at));
            }
        }
        for at in answered.into_iter().rev() {
            for state in object.after(&state, &calls.answered[at as usize]) {
                search.visit(taken.with(at), state, used.clone());
            }
        }
        if search.count > LIMIT {
            return Verdict::Undecided;
        }
    }
    Verdict::Broken(most)
}

/// Where the search has been, and where it has still to go.
struct Search<S> {
    seen: HashMap<(Answered, S), Vec<Lost>>,
    open: Vec<(Answered, S, Lost)>,
    count: usize,
}

impl<S: Clone + Eq + Hash> Search<S> {
    fn visit(&mut self, taken: Answered, state: S, used: Lost) {
        let known = self.seen.entry((taken.clone(), state.clone())).or_default();
        if !known.iter().any(|fewer| is_part(fewer, &used)) {
            known.push(used.clone());
            self.open.push((taken, state, used));
            self.count += 1;
        }
    }
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
