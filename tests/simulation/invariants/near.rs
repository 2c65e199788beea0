//! At rest near caches are vouched for, and hold nothing that is not so: what was overtaken has been corrected.

use slotcast_near_cache::l1::Lookup;

use crate::client::Client;
use crate::invariants::health::PATIENCE;
use crate::near::Near;
use crate::workload::object_keys;
use crate::world::World;

/// Asks for everything that near caches hold; how much that is.
pub fn check(world: &mut World, caches: &[Near], seed: u64) -> usize {
    let mut count = 0;
    for near in caches {
        let mut held = Vec::new();
        for key in object_keys() {
            match near.look(&key) {
                Lookup::Hit(value) => held.push((key, value)),
                Lookup::Miss => {}
                Lookup::Unverified => {
                    let what = format!("near cache {} is vouched for no more ({key})", near.number);
                    world.trace.violation(what);
                }
            }
        }
        count += held.len();
        let (doors, trace, number) = (world.doors.clone(), world.trace.clone(), near.number);
        let mut reader = Client::new(120 + number, seed, doors, trace.clone());
        let checked = world.spawn(async move {
            for (key, held) in held {
                let found = reader.read(key.as_bytes()).await;
                let found = found.as_ref().and_then(|frame| frame.as_bytes());
                if found != held.as_deref() {
                    trace.violation(format!(
                        "near cache {number} holds {key} = {held:?} for ever: it is {found:?}"
                    ));
                }
            }
        });
        if world.wait_for(checked, PATIENCE).is_none() {
            world.trace.violation("reading what near caches hold takes for ever".into());
        }
    }
    count
}
