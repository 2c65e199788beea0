//! At rest no client believes anything that is not so.

use crate::client::Client;
use crate::invariants::health::PATIENCE;
use crate::world::World;

/// Asks for everything that clients hold; how much that is.
pub fn check(world: &mut World, idle: Vec<Client>, seed: u64) -> usize {
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
