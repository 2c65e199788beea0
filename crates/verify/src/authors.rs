//! Who writes the keys that caches hold: each author has keys of its own, and writes one after the other.

use std::time::Duration;

use rand::Rng;

use crate::cached::{KEYS, name, value};
use crate::caches::Watch;
use crate::client::{Client, Outcome};
use crate::connection::request;
use crate::records::Records;
use crate::workload::Stop;

/// How many there are.
pub const AUTHORS: usize = 8;
/// Between two writes of an author, at most.
const THINK: Duration = Duration::from_millis(16);

/// Writes the keys of one author until told to stop.
pub async fn write(mut client: Client, author: usize, watch: Watch, records: Records, stop: Stop) {
    client.refresh().await;
    while !stop.get() {
        client.think(THINK).await;
        let key = client.rng.random_range(0..KEYS / AUTHORS) * AUTHORS + author;
        let number = watch.judge().begin(key);
        let name = name(key);
        let called = client.call(&name, &[request(&["SET", &name, &value(key, number)])]).await;
        records.count(&called.outcome);
        let mut judge = watch.judge();
        match called.outcome {
            Outcome::Answer(_) => judge.acknowledged(key, called.returned),
            Outcome::Unknown => judge.lost(key, called.returned),
            Outcome::Refused(_) => judge.refused(key),
        }
    }
}
