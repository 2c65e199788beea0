//! Power losses that may take acknowledged writes along: under `durability quorum` some or all machines die within a
//! second of writes. What clients were told is then not to be had any more, and nobody has promised it; but the copies
//! must find together again, and caches must not go on with what was lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::client::Client;
use crate::invariants::health::{PATIENCE, recover};
use crate::invariants::near;
use crate::invariants::staleness::Weather;
use crate::near::{Near, keep_using};
use crate::node::NODES;
use crate::story::REST;
use crate::workload::{CLIENTS, OBJECTS, Records, command, key, work};
use crate::world::World;

/// How long clients have been at work before (ms).
const WORK: std::ops::Range<u64> = 300..1_300;
/// How long one node hears nothing of the others before those die (ms).
const ALONE: std::ops::Range<u64> = 1..400;
/// When a node dies once more, after all have started (ms).
const ON_THE_WAY: std::ops::Range<u64> = 1..2_000;
/// Writes to each object afterwards: more than were lost.
const ROUNDS: usize = 40;

/// Lets it happen, and looks at the caches; what came of it in words. `None`: they do not find together.
pub fn tell(world: &mut World, seed: u64, records: &Records, caches: &[Near]) -> Option<String> {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x10_5e);
    let stop = Arc::new(AtomicBool::new(false));
    world.staleness.set_weather(Weather::Mended);
    let client = |number| Client::new(number, seed, world.doors.clone(), world.trace.clone());
    let workers = (0..CLIENTS).map(|n| world.spawn(work(client(60 + n), records.clone(), stop.clone())));
    let users = caches.iter().map(|near| {
        let client = client(70 + near.number);
        world.spawn(keep_using(near.clone(), client, records.clone(), stop.clone()))
    });
    let clients: Vec<_> = workers.chain(users).collect();
    world.step_until(rng.random_range(WORK), |_| false);

    let spared = rng.random_bool(0.75).then(|| rng.random_range(0..NODES));
    let links = |spared: usize| (0..NODES).filter(move |other| *other != spared).map(move |o| (spared, o));
    let cut_off: Vec<(usize, usize)> = spared.into_iter().flat_map(links).collect();
    for (one, other) in &cut_off {
        world.network.cut(*one, *other);
        world.network.cut(*other, *one);
    }
    world.step_until(rng.random_range(ALONE), |_| false);
    stop.store(true, Ordering::Relaxed);
    let dead: Vec<usize> = (0..NODES).filter(|node| Some(*node) != spared).collect();
    dead.iter().for_each(|node| world.cut_power(*node));
    world.replicas.lost();
    world.staleness.lost();
    world.step_until(rng.random_range(1..500), |_| false);
    for (one, other) in &cut_off {
        world.network.mend(*one, *other);
        world.network.mend(*other, *one);
    }
    for node in dead {
        world.step_until(rng.random_range(1..200), |_| false);
        world.start(node);
    }
    if rng.random() {
        stumble(world, &mut rng);
    }
    let recovery = recover(world, seed)?;
    for client in clients {
        if world.wait_for(client, PATIENCE).is_none() {
            world.trace.violation("a client waits for ever".into());
        }
    }
    overtake(world, seed)?;
    world.step_until(REST, |_| false);
    let held = near::check(world, caches, seed);
    Some(format!("reunited after {recovery} ms with {spared:?} spared, {held} near"))
}

/// Some node dies once more on the way, at times with its machine, and comes back.
fn stumble(world: &mut World, rng: &mut SmallRng) {
    let (node, with_machine) = (rng.random_range(0..NODES), rng.random_ratio(1, 3));
    world.step_until(rng.random_range(ON_THE_WAY), |_| false);
    match with_machine {
        true => world.cut_power(node),
        false => world.kill(node, rng.random()),
    }
    world.step_until(rng.random_range(1..500), |_| false);
    world.start(node);
}

/// Writes one field of each object, so that logs outgrow what was lost, and leaves the other as it is.
fn overtake(world: &mut World, seed: u64) -> Option<()> {
    let mut writer = Client::new(97, seed, world.doors.clone(), world.trace.clone());
    let writing = world.spawn(async move {
        for round in 0..ROUNDS {
            for object in 0..OBJECTS {
                let set = command(&["SET", &key(object, 0), &format!("{round}")]);
                writer.request(&crate::messages::Request::Commands(vec![set])).await;
            }
        }
    });
    if world.wait_for(writing, PATIENCE).is_none() {
        world.trace.violation("writing takes for ever".into());
        return None;
    }
    Some(())
}
