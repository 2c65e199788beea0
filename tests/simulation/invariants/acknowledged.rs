//! What was acknowledged and not overwritten is there.

use crate::client::Client;
use crate::invariants::health::PATIENCE;
use crate::workload::{Records, read_all};
use crate::world::World;

/// Reads all there is, as the last calls of the histories too.
pub fn check(world: &mut World, records: &Records, seed: u64) {
    let mut reader = Client::new(99, seed, world.doors.clone(), world.trace.clone());
    let told = records.clone();
    let reading = world.spawn(async move { read_all(&mut reader, &told).await });
    match world.wait_for(reading, 10 * PATIENCE) {
        Some(lost) if lost.is_empty() => {}
        Some(lost) => world.trace.violation(format!("{} acknowledged writes lost: {lost:?}", lost.len())),
        None => world.trace.violation("reading all takes for ever".into()),
    }
}
