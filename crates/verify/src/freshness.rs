//! What the campaign found about caches, for people: see `staleness` for what the words mean.

use std::time::Duration;

use slotcast_near_cache::cache::Stats;
use slotcast_verify::staleness::{AGES, PROMPT, Tally};

use crate::caches::Caches;
use crate::closing::Closing;

/// Of the entries that are wrong for ever; all are counted.
const SHOWN: usize = 2;

/// See the module's documentation.
pub struct Freshness {
    tally: Tally,
    closing: Result<Closing, String>,
    /// How long the machine kept somebody waiting while all was well.
    waited: Duration,
}

impl Freshness {
    /// Lets the caches come to their end. Nobody writes any more, and no fault is left.
    pub async fn of(caches: Caches) -> Freshness {
        let (watch, processors) = (caches.watch.clone(), caches.processors.clone());
        let closing = caches.end().await;
        let stalls = processors.end();
        watch.judge().settle(&stalls);
        let tally = watch.judge().tally().clone();
        Freshness { tally, closing, waited: Duration::from_nanos(stalls.total()) }
    }

    /// What must not be.
    pub fn violations(&self) -> Vec<String> {
        let Tally { late, beyond_bound, outdated, invented, described, .. } = &self.tally;
        let counts = [
            (
                *late,
                format!("reads served from memory over {PROMPT:?} after a newer write, while all was well"),
            ),
            (*beyond_bound, "reads served from memory after a newer write for longer than the bound".into()),
            (*outdated, "reads that the cluster answered with less than had been acknowledged".into()),
            (*invented, "reads of what nobody had written".into()),
        ];
        let found = counts.into_iter().filter(|(count, _)| *count > 0);
        let mut violations: Vec<String> = found.map(|(count, what)| format!("{count} {what}")).collect();
        match &self.closing {
            Ok(closing) if closing.wrong.is_empty() => {}
            Ok(closing) => {
                violations.push(format!("{} entries never corrected", closing.wrong.len()));
                violations.extend(closing.wrong.iter().take(SHOWN).cloned());
            }
            Err(why) => violations.push(why.clone()),
        }
        violations.extend(described.iter().cloned());
        violations
    }

    /// The figures.
    pub fn print(&self) {
        let (tally, closing) = (&self.tally, self.closing.as_ref());
        let none = Closing::default();
        let (wrong, compared) =
            closing.map_or(("?".into(), 0), |end| (end.wrong.len().to_string(), end.compared));
        let stats = &closing.unwrap_or(&none).stats;
        let sum = |of: fn(&Stats) -> u64| stats.iter().map(of).sum::<u64>();
        println!(
            "{} caches: {} reads from memory, {} from the cluster, {} bypassed; {} streams begun, {} shards resumed, {} flushed",
            stats.len(),
            tally.near,
            tally.fetched,
            tally.bypassed,
            sum(|stats| stats.subscriptions),
            sum(|stats| stats.resumed),
            sum(|stats| stats.flushed),
        );
        println!(
            "overtaken entries: {}; stale over {PROMPT:?} while all was well: {}; stale over the bound: {}; \
             never corrected: {wrong} of {compared}; thrown away needlessly: {} of {}",
            tally.overtaken, tally.late, tally.beyond_bound, tally.needless, tally.shown,
        );
        let line = |name: &str, counts: &[u64], oldest: Duration| {
            let classes = AGES.iter().map(|end| format!("<{end:?}")).chain(["more".to_owned()]);
            let counted = classes.zip(counts).filter(|(_, count)| **count > 0);
            let counted: Vec<String> = counted.map(|(class, count)| format!("{class} {count}")).collect();
            let all: u64 = counts.iter().sum();
            println!("  served stale {name}: {all}, for {oldest:.1?} at most ({})", counted.join(", "));
        };
        line("while all was well", &tally.stale_in_calm, tally.oldest_in_calm);
        line("in and after faults", &tally.stale_in_faults, tally.oldest_in_faults);
        let (excused, waited) = (tally.excused, self.waited);
        println!(
            "  while all was well somebody waited {waited:.1?} for a processor: over {PROMPT:?} only by that: {excused}"
        );
    }
}
