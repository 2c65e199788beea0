//! A cluster of three nodes in virtual time, with everything going wrong that a seed says; then what must hold.
//!
//! One seed is one run: formation; [`CHAOS`] of clients at work while nodes are killed, paused and cut off; healing,
//! and bounded time to be in good health; rest; the checks, a file each: [`leaders`] (one a term), [`replicas`]
//! (same entries, same keys), linearizability per [`object`] (`crates/verify` has the search), acknowledged writes that
//! nobody overwrote (all there), clients' caches (nothing stale). A third of the seeds keep their logs in memory, the
//! others on disks of their [`machines`], which lose power, and there all nodes may die at once. Each run has a process
//! of its own, since some of tokio's randomness counts what the process has done before.
//!
//! `SIMULATION_SEED=n cargo test --test simulation one_seed -- --nocapture` shows seed n, event by event;
//! `SIMULATION_SEEDS=1000` runs so many; `SIMULATION_FROM=n` from there on.

mod client;
mod entropy;
mod faults;
mod leaders;
mod machines;
mod network;
mod node;
mod object;
mod replicas;
mod runs;
mod server;
mod story;
mod trace;
mod workload;
mod world;

use crate::runs::{Run, number, run, run_all};
use crate::server::Fault;

/// Seeds run if nothing else is said.
const SEEDS: u64 = 200;
/// A broken rule is noticed within so many seeds.
const NOTICED_WITHIN: u64 = 100;

#[test]
fn one_seed() {
    let fault = std::env::var("SIMULATION_FAULT").ok();
    let fault =
        fault.and_then(|name| Fault::ALL.iter().find(|(known, _)| *known == name)).map(|(_, fault)| *fault);
    let shown = std::env::var("SIMULATION_QUIET").is_err() && number("SIMULATION_SEED").is_some();
    let seed = number("SIMULATION_SEED").unwrap_or(1);
    let told = std::thread::spawn(move || story::tell(seed, fault, shown)).join();
    match told {
        Ok(Ok(summary)) => println!("{summary}"),
        Ok(Err(failure)) => panic!("seed {seed}:\n{failure}"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

#[test]
fn what_must_hold_holds_for_every_seed() {
    let first = number("SIMULATION_FROM").unwrap_or(1);
    let seeds = first..first + number("SIMULATION_SEEDS").unwrap_or(SEEDS);
    let failed: Vec<Run> = run_all(seeds, None).into_iter().filter(|run| !run.passed).collect();
    let tell = |run: &Run| format!("SIMULATION_SEED={} fails:\n{}\n", run.seed, run.output);
    assert!(failed.is_empty(), "{}", failed.iter().map(tell).collect::<String>());
}

#[test]
fn a_seed_replays_exactly() {
    let [once, again, other] = [3, 3, 4].map(|seed| run(seed, None));
    assert!(once.passed && other.passed, "{}{}", once.output, other.output);
    assert_eq!(once.hash(), again.hash());
    assert_ne!(once.hash(), other.hash());
}

#[test]
fn broken_rules_are_noticed() {
    for (name, _) in Fault::ALL {
        let noticed = (1..=NOTICED_WITHIN).find(|seed| !run(*seed, Some(name)).passed);
        println!("{name} is noticed with seed {noticed:?}");
        assert!(noticed.is_some(), "{name} is not noticed within {NOTICED_WITHIN} seeds");
    }
}
