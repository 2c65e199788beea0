//! What a campaign found, for people.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use slotcast_verify::history::Event;
use slotcast_verify::linearizability::Verdict;
use slotcast_verify::register::{Op, base, shortest_broken, verdict};

use crate::campaign::Past;
use crate::records::Seen;

/// Broken keys and lost writes shown; all are counted.
const SHOWN: usize = 3;
/// Calls shown around the end of a proof.
const AROUND: usize = 12;

/// What the search said about all keys.
#[derive(Default)]
pub struct Findings {
    /// Keys whose history no order explains.
    pub broken: Vec<String>,
    /// Keys about which the search gave up.
    pub undecided: Vec<String>,
    /// Acknowledged writes that are not there at the end.
    pub lost: Vec<String>,
    /// What caches served or kept too long.
    pub stale: Vec<String>,
    /// Whatever else must not be.
    pub other: Vec<String>,
}

impl Findings {
    /// Checks all histories; whether they end with a read of every key.
    pub fn of(seen: &Seen, read: bool) -> Findings {
        let mut findings = Findings::default();
        for (key, history) in &seen.histories {
            match verdict(history) {
                Verdict::Linearizable => {}
                Verdict::Broken(_) => findings.broken.push(key.clone()),
                Verdict::Undecided => findings.undecided.push(key.clone()),
            }
            let lost = lost_writes(history);
            if read && lost > 0 {
                findings.lost.push(format!("{key}: {lost} acknowledged writes are later than what is there"));
            }
        }
        findings
    }

    /// Whether anything is wrong.
    pub fn is_empty(&self) -> bool {
        let lists = [&self.broken, &self.undecided, &self.lost, &self.stale, &self.other];
        lists.iter().all(|list| list.is_empty())
    }

    /// Prints what is wrong and writes the histories behind it to a folder.
    pub fn explain(&self, seen: &Seen, folder: &Path) {
        for key in self.broken.iter().take(SHOWN) {
            let history = &seen.histories[key];
            let proof = shortest_broken(history);
            let held = if proof.from_any { "whatever it held before" } else { "which was absent before" };
            println!("\n{key}, {held}, cannot have answered this:");
            proof.events.iter().for_each(|event| println!("  {event}"));
            println!("what else happened to it around then:");
            around(history, &proof.events).for_each(|event| println!("  {event}"));
        }
        let lists = [
            ("lost", &self.lost),
            ("undecided", &self.undecided),
            ("stale", &self.stale),
            ("also", &self.other),
        ];
        for (title, list) in lists {
            list.iter().take(SHOWN * 3).for_each(|line| println!("{title}: {line}"));
        }
        for key in self.broken.iter().chain(&self.undecided) {
            let lines: String = seen.histories[key].iter().map(|event| format!("{event}\n")).collect();
            let path = folder.join(format!("history-{}.txt", key.replace(':', "-")));
            if let Err(error) = fs::write(&path, lines) {
                println!("{} cannot be written: {error}", path.display());
            }
        }
    }
}

/// The calls next to the end of a proof, in the order in which they began.
fn around<'a>(history: &'a [Event], proof: &[Event]) -> impl Iterator<Item = &'a Event> {
    let end = proof.iter().map(|event| event.invoked).max().unwrap_or(0);
    let mut events: Vec<&Event> = history.iter().collect();
    events.sort_by_key(|event| event.invoked);
    let at = events.partition_point(|event| event.invoked <= end);
    let first = at.saturating_sub(AROUND);
    events.into_iter().skip(first).take(AROUND + AROUND / 2)
}

/// Acknowledged writes that came after the one whose value is there at the end.
fn lost_writes(history: &[Event]) -> usize {
    let Some(Event { op: Op::Get(last), .. }) = history.iter().max_by_key(|event| event.invoked) else {
        return 0;
    };
    let writes: Vec<&Event> = history.iter().filter(|event| event.op.is_write()).collect();
    if writes.iter().all(|event| matches!(event.op, Op::Increment(_))) {
        let acknowledged = writes.iter().filter(|event| event.returned.is_some()).count();
        return acknowledged.saturating_sub(last.unwrap_or(0) as usize);
    }
    let wrote = |event: &&&Event| match (event.op, last) {
        (Op::Set(value) | Op::Swap(_, value), Some(last)) => value == base(*last),
        (Op::Delete(_), None) => true,
        _ => false,
    };
    // If any of those that may have written it has no answer, or none is known, nothing can be said.
    let authors: Vec<Option<u64>> = writes.iter().filter(wrote).map(|event| event.returned).collect();
    let Some(written) = authors.into_iter().try_fold(0, |latest, at| at.map(|at| latest.max(at))) else {
        return 0;
    };
    let overwrites = |event: &&&Event| matches!(event.op, Op::Set(_) | Op::Swap(..) | Op::Delete(_));
    let later = |event: &&&Event| event.returned.is_some() && event.invoked > written && written > 0;
    writes.iter().filter(overwrites).filter(later).count()
}

/// The figures of all faults, by kind.
pub fn print_faults(past: &[Past]) {
    let mut kinds: BTreeMap<&str, Vec<&Past>> = BTreeMap::new();
    past.iter().for_each(|fault| kinds.entry(&fault.name).or_default().push(fault));
    println!("{:<18} {:>6} {:>24} {:>8}", "fault", "count", "write gap p50", "max");
    for (kind, faults) in &kinds {
        print_gaps(kind, faults);
    }
    let single: Vec<&Past> = past.iter().filter(|fault| !fault.name.contains('+')).collect();
    print_gaps("one at a time", &single);
}

fn print_gaps(name: &str, faults: &[&Past]) {
    let mut gaps: Vec<Duration> = faults.iter().filter_map(|fault| fault.gap).collect();
    gaps.sort_unstable();
    let ms = |gap: Option<&Duration>| gap.map_or("-".into(), |gap| format!("{} ms", gap.as_millis()));
    let (median, most) = (ms(gaps.get(gaps.len() / 2)), ms(gaps.last()));
    println!("{name:<18} {:>6} {median:>24} {most:>8}", faults.len());
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotcast_verify::register::SPREAD;

    fn event(op: Op, at: u64) -> Event {
        Event { client: 0, op, invoked: at, returned: Some(at + 1) }
    }

    #[test]
    fn acknowledged_writes_after_the_last_one_that_is_there_are_lost() {
        let set = |n: i64| event(Op::Set(n * SPREAD), n as u64 * 10);
        let lost = |last: Option<i64>| {
            let events = [set(1), set(2), event(Op::Delete(Some(true)), 25), set(3), set(4)];
            let read = event(Op::Get(last), 90);
            lost_writes(&events.into_iter().chain([read]).collect::<Vec<_>>())
        };
        assert_eq!(lost(Some(4 * SPREAD + 2)), 0);
        assert_eq!(lost(Some(3 * SPREAD)), 1);
        assert_eq!(lost(Some(SPREAD)), 4);
        assert_eq!(lost(None), 2);
        let counts =
            [event(Op::Increment(Some(1)), 1), event(Op::Increment(Some(2)), 3), event(Op::Get(Some(1)), 9)];
        assert_eq!(lost_writes(&counts), 1);
    }
}
