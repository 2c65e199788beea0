//! The end of the caches: nobody writes any more, so what they hold is what the cluster says, or is wrong for ever.

use std::time::{Duration, Instant};

use slotcast_near_cache::cache::{NearCache, Source, Stats};
use slotcast_wire::frame::Frame;
use tokio::time::sleep;

use crate::cached::{KEYS, name};
use crate::client::{Client, Outcome};
use crate::workload::read;

/// Caches are in step with a cluster in good health within this.
const CATCH_UP: Duration = Duration::from_secs(30);
/// Between two looks at whether they are.
const POLL: Duration = Duration::from_millis(20);
/// What differs is compared again so often: a write of unknown outcome may take effect late,
const ROUNDS: usize = 6;
/// and the rounds are so far apart.
const PAUSE: Duration = Duration::from_secs(2);

/// How the caches ended.
#[derive(Debug, Default)]
pub struct Closing {
    /// Entries compared that were served from memory.
    pub compared: usize,
    /// Those that differ from what the cluster says, and stay so.
    pub wrong: Vec<String>,
    /// What each cache has counted.
    pub stats: Vec<Stats>,
}

/// Compares every entry with what the cluster says. An error: it could not be compared.
pub async fn compare(caches: &[NearCache], client: &mut Client) -> Result<Closing, String> {
    let mut closing = Closing { stats: caches.iter().map(NearCache::stats).collect(), ..Closing::default() };
    let mut open: Vec<(usize, usize)> =
        (0..caches.len()).flat_map(|cache| (0..KEYS).map(move |key| (cache, key))).collect();
    for round in 0..ROUNDS {
        if round > 0 {
            sleep(PAUSE).await;
        }
        in_step(caches).await?;
        let truth = read_all(client).await?;
        let (mut differ, mut wrong) = (Vec::new(), Vec::new());
        for (cache, key) in open {
            let held = caches[cache].read(name(key)).await;
            let said = truth[key].as_deref();
            match held.map_err(|error| format!("cache {cache}, {}: {error}", name(key)))? {
                (_, Source::Cluster) => {}
                (held, Source::Near) if held.as_deref() == said => closing.compared += 1,
                (held, source) => {
                    let show =
                        |value: Option<&[u8]>| value.map(|value| String::from_utf8_lossy(value).into_owned());
                    let (held, said) = (show(held.as_deref()), show(said));
                    let text =
                        format!("cache {cache}, {}: {held:?} ({source:?}) instead of {said:?}", name(key));
                    wrong.push(text);
                    differ.push((cache, key));
                }
            }
        }
        (open, closing.wrong) = (differ, wrong);
        if open.is_empty() {
            break;
        }
    }
    Ok(closing)
}

/// Waits until every cache knows of everything that has been acknowledged by now.
async fn in_step(caches: &[NearCache]) -> Result<(), String> {
    let begun = Instant::now();
    for (number, cache) in caches.iter().enumerate() {
        while cache.verified().is_none_or(|age| age >= begun.elapsed()) {
            if begun.elapsed() > CATCH_UP {
                return Err(format!("cache {number} does not catch up: {:?}", cache.stats()));
            }
            sleep(POLL).await;
        }
    }
    Ok(())
}

async fn read_all(client: &mut Client) -> Result<Vec<Option<Vec<u8>>>, String> {
    let mut values = Vec::new();
    for name in (0..KEYS).map(name) {
        let Outcome::Answer(replies) = read(client, &name).await?.outcome else { continue };
        values.push(replies.last().and_then(Frame::as_bytes).map(<[u8]>::to_vec));
    }
    Ok(values)
}
