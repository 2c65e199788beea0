//! One run, from the first node's start to the last check.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use slotcast::raft::groups::seed_elections;

use crate::client::Client;
use crate::entropy;
use crate::faults::Faults;
use crate::invariants::health::{PATIENCE, recover};
use crate::invariants::linearizable::Pair;
use crate::invariants::staleness::{Counts, Weather};
use crate::invariants::{acknowledged, caches, expiry, linearizable, near, replicas};
use crate::machines::Durability;
use crate::near::{KINDS, LATE, Near, follow, keep_using};
use crate::node::NODES;
use crate::reunion;
use crate::server::Fault;
use crate::trace::Trace;
use crate::workload::{CLIENTS, Records, read_loyally, work};
use crate::world::World;

/// How long things go wrong (ms).
pub const CHAOS: u64 = 5_000;
/// Between two faults, or behind them, caches are right at once; and so long (ms) that is looked at.
const CALM: u64 = 500;
/// Long enough for every key's time to live to be over, every push to arrive, every write to be on the disks (ms).
pub const REST: u64 = 1_200;

/// Runs a seed; what it did in one line, or what went wrong and the events before. To be called on a new thread.
pub fn tell(seed: u64, fault: Option<Fault>, trace: &Trace) -> Result<String, String> {
    entropy::seed(seed);
    seed_elections(seed);
    let mut world = World::new(seed, fault, trace.clone());
    let summary = live(&mut world, seed);
    match summary.filter(|_| trace.violations().is_empty()) {
        Some(summary) => Ok(format!("seed {seed}: trace {:016x}, {} ms, {summary}", trace.hash(), world.now)),
        None => {
            let violations: String =
                trace.violations().iter().map(|what| format!("VIOLATION: {what}\n")).collect();
            Err(format!("{}\n{violations}", trace.tail()))
        }
    }
}

/// `None`: it does not come to an end.
fn live(world: &mut World, seed: u64) -> Option<String> {
    recover(world, seed)?;
    let (records, stop) = (Records::default(), Arc::new(AtomicBool::new(false)));
    let client = |number| Client::new(number, seed, world.doors.clone(), world.trace.clone());
    let workers = (0..CLIENTS).map(|number| world.spawn(work(client(number), records.clone(), stop.clone())));
    let readers = (CLIENTS..CLIENTS + NODES)
        .map(|number| world.spawn(read_loyally(client(number), records.clone(), stop.clone())));
    let caches: Vec<Near> = (0..KINDS.len())
        .map(|number| Near::new(number, world.staleness.clone(), world.doors.clone(), world.trace.clone()))
        .collect();
    let users = caches.iter().map(|near| {
        world.spawn(follow(near.clone(), seed));
        world.spawn(keep_using(near.clone(), client(40 + near.number), records.clone(), stop.clone()))
    });
    let clients: Vec<_> = workers.chain(readers).chain(users).collect();

    world.staleness.set_weather(Weather::Calm);
    world.step_until(CALM, |_| false);
    world.staleness.set_weather(Weather::Storm);
    let mut faults = Faults::new(seed);
    let end = world.now + CHAOS;
    while world.now < end {
        faults.step(world);
        world.step();
    }
    world.trace.note("all is mended".into());
    world.staleness.set_weather(Weather::Mended);
    let heard_all = world.now + LATE.1 + 100;
    faults.heal(world);
    let recovery = recover(world, seed)?;
    let mended = world.now;
    // What is on its way to caches since before has come by then.
    world.step_until(CALM.max(heard_all.saturating_sub(world.now)), |_| false);
    world.staleness.set_weather(Weather::Calm);
    world.step_until(CALM, |_| false);
    stop.store(true, Ordering::Relaxed);
    let mut idle = Vec::new();
    for client in clients {
        match world.wait_for(client, PATIENCE) {
            Some(client) => idle.push(client),
            None => world.trace.violation("a client waits for ever".into()),
        }
    }
    world.step_until(REST, |_| false);
    expiry::check(world);
    let tracked = caches::check(world, idle, seed);
    let near = near::check(world, &caches, seed);
    let after = lose_all_power(world, seed)?;
    acknowledged::check(world, &records, seed);
    replicas::check(world);
    linearizable::check(&records, &Pair { mended, skew: faults.skew }, &world.trace);

    let reunited = match world.durability() {
        Durability::Quorum => reunion::tell(world, seed, &records, &caches)?,
        Durability::Memory | Durability::QuorumFsync => "nothing lost".into(),
    };

    let ((calls, unknown), (installed, compared)) = (records.counts(), world.replicas.counts());
    Some(format!(
        "{} faults, {calls} calls ({unknown} without an answer), {} leaderships, {installed} snapshots, \
         {compared} digests, {tracked} tracked values, {near} near, {}, healthy after {recovery} ms, {after}, {reunited}",
        faults.count,
        world.leaders.count(),
        told(world, &caches),
    ))
}

/// What near caches have been through.
fn told(world: &World, caches: &[Near]) -> String {
    let Counts { overtaken, served, stale, longest, needless } = world.staleness.counts();
    let starts = caches.iter().fold([0; 4], |sum, near| {
        let starts = *near.starts.lock();
        std::array::from_fn(|kind| sum[kind] + starts[kind])
    });
    let [resumed, fresh, flushed, not_served] = starts;
    format!(
        "{overtaken} overtaken, {served} served, {stale} of them late by up to {longest} ms, {needless} dropped \
         needlessly, {resumed} resumed, {fresh} fresh, {flushed} flushed, {not_served} not served"
    )
}

/// All machines die at once. That is the last thing in every other run whose nodes keep anything; all writes are old
/// enough to be on the disks.
fn lose_all_power(world: &mut World, seed: u64) -> Option<String> {
    if world.durability() == Durability::Memory || seed.is_multiple_of(2) {
        return Some("no power lost".into());
    }
    (0..NODES).for_each(|node| world.cut_power(node));
    for node in 0..NODES {
        world.start(node);
    }
    Some(format!("after a power loss {} ms", recover(world, seed)?))
}
