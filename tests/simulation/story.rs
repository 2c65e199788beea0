//! One run, from the first node's start to the last check.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use slotcast::raft::groups::seed_elections;

use crate::client::Client;
use crate::entropy;
use crate::faults::Faults;
use crate::leaders::missing;
use crate::node::NODES;
use crate::object::Pair;
use crate::server::Fault;
use crate::trace::Trace;
use crate::workload::{CLIENTS, Records, key, read_all, read_loyally, work};
use crate::world::World;
use slotcast_verify::linearizability::{Verdict, check};

/// How long things go wrong (ms).
pub const CHAOS: u64 = 5_000;
/// A cluster forms, and is in good health again after all faults, within this (ms).
const PATIENCE: u64 = 20_000;
/// Long enough for every key's time to live to be over and every push to arrive (ms).
const REST: u64 = 1_200;

/// Runs a seed; what it did in one line, or what went wrong and the events before. To be called on a new thread.
pub fn tell(seed: u64, fault: Option<Fault>, shown: bool) -> Result<String, String> {
    entropy::seed(seed);
    seed_elections(seed);
    let trace = Trace::new(shown);
    let mut world = World::new(seed, fault, trace.clone());
    if !world.step_until(PATIENCE, |world| missing(world.nodes()).is_none()) {
        trace.violation(format!("no cluster forms: {:?}", missing(world.nodes())));
        return Err(failure(&trace));
    }
    let (records, stop) = (Records::default(), Arc::new(AtomicBool::new(false)));
    let client = |number| Client::new(number, seed, world.doors.clone(), trace.clone());
    let workers = (0..CLIENTS).map(|number| world.spawn(work(client(number), records.clone(), stop.clone())));
    let readers = (CLIENTS..CLIENTS + NODES)
        .map(|number| world.spawn(read_loyally(client(number), records.clone(), stop.clone())));
    let clients: Vec<_> = workers.chain(readers).collect();

    let mut faults = Faults::new(seed);
    let end = world.now + CHAOS;
    while world.now < end {
        faults.step(&mut world);
        world.step();
    }
    trace.note("all is mended".into());
    faults.heal(&mut world);
    let healed = world.now;
    if !world.step_until(PATIENCE, |world| missing(world.nodes()).is_none()) {
        trace.violation(format!("not in good health after {PATIENCE} ms: {:?}", missing(world.nodes())));
        return Err(failure(&trace));
    }
    let (mended, recovery) = (world.now, world.now - healed);
    world.step_until(1_000, |_| false);
    stop.store(true, Ordering::Relaxed);
    let mut idle = Vec::new();
    for client in clients {
        match world.wait_for(client, PATIENCE) {
            Some(client) => idle.push(client),
            None => trace.violation("a client waits for ever".into()),
        }
    }
    world.step_until(REST, |_| false);

    let caches = check_caches(&mut world, idle, seed);
    check_writes(&mut world, &records, seed);
    check_digests(&world);
    check_histories(&records, mended, &trace);
    if !trace.violations().is_empty() {
        return Err(failure(&trace));
    }
    let ((calls, unknown), (installed, compared)) = (records.counts(), world.replicas.counts());
    Ok(format!(
        "seed {seed}: trace {:016x}, {} ms, {} faults, {calls} calls ({unknown} without an answer), {} leaderships, \
         {installed} snapshots, {compared} digests, {caches} cached values, healthy after {recovery} ms",
        trace.hash(),
        world.now,
        faults.count,
        world.leaders.count(),
    ))
}

fn failure(trace: &Trace) -> String {
    format!("{}\n{}", trace.tail(), trace.violations().join("\n"))
}

/// Invariant: at rest no client believes anything that is not so. Returns how much they believe.
fn check_caches(world: &mut World, idle: Vec<Client>, seed: u64) -> usize {
    let mut count = 0;
    for mut client in idle {
        client.hear();
        let beliefs = std::mem::take(&mut client.cache);
        count += beliefs.len();
        let (doors, trace, number) = (world.doors.clone(), world.trace.clone(), client.number);
        let reader = Client::new(100 + number, seed, doors, trace.clone());
        let checked = world.spawn(async move {
            let mut reader = reader;
            for (key, (node, believed)) in beliefs {
                let found = reader.read(&key).await;
                if found.as_ref() != Some(&believed) {
                    let text = String::from_utf8_lossy(&key).into_owned();
                    trace.violation(format!(
                        "client {number} holds {text} = {believed:?} (from node {node}) for ever: it is {found:?}"
                    ));
                }
            }
        });
        if world.wait_for(checked, PATIENCE).is_none() {
            world.trace.violation("reading what clients hold takes for ever".into());
        }
    }
    count
}

/// Invariant: what was acknowledged and not overwritten is there.
fn check_writes(world: &mut World, records: &Records, seed: u64) {
    let mut reader = Client::new(99, seed, world.doors.clone(), world.trace.clone());
    let told = records.clone();
    let reading = world.spawn(async move { read_all(&mut reader, &told).await });
    match world.wait_for(reading, 10 * PATIENCE) {
        Some(lost) if lost.is_empty() => {}
        Some(lost) => world.trace.violation(format!("{} acknowledged writes lost: {lost:?}", lost.len())),
        None => world.trace.violation("reading all takes for ever".into()),
    }
}

/// Invariant: at rest all copies hold the same.
fn check_digests(world: &World) {
    let nodes = || world.nodes().iter().flatten();
    for (group, keyspace) in
        nodes().next().map(|node| node.server.hosted.keyspaces.load_full()).iter().flat_map(|all| all.iter())
    {
        let first = world.replicas.digest(keyspace);
        let same = |keyspace: &_| world.replicas.digest(keyspace) == first;
        if !nodes()
            .all(|node| node.server.hosted.keyspaces.load().get(group).is_some_and(|other| same(other)))
        {
            world.trace.violation(format!("the copies of {group} differ at rest"));
        }
    }
}

/// Invariant: each object behaves as if there were one copy of it.
fn check_histories(records: &Records, mended: u64, trace: &Trace) {
    for (object, mut history) in records.histories().into_iter().enumerate() {
        let verdict = check(&Pair { mended }, [None; 2], &history);
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
