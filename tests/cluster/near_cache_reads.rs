//! Reads through the near cache that don't find what they want there: put together, pipelined, and never older than one's
//! own writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use slotcast_near_cache::cache::{NearCache, Source};
use slotcast_near_cache::options::Options;

use crate::near_cache::play;
use crate::nodes::{Cluster, LIMIT, ask};

fn options(cluster: &Cluster) -> Options {
    let seeds = cluster.ports.iter().map(|port| format!("127.0.0.1:{port}"));
    Options { timeout: LIMIT, heartbeat: Duration::from_millis(50), ..Options::new(seeds) }
}

/// A cache that follows all shards.
async fn cache(options: Options) -> NearCache {
    let cache = NearCache::connect(options).await.unwrap();
    in_step(&cache).await;
    cache
}

async fn in_step(cache: &NearCache) {
    let begun = Instant::now();
    while cache.verified().is_none_or(|age| age >= begun.elapsed()) {
        assert!(begun.elapsed() < LIMIT, "never in step: {:?}", cache.stats());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Keys that the nodes have been asked for and had.
fn found(cluster: &Cluster) -> u64 {
    let hits = |port: &u16| -> u64 {
        let stats = ask(*port, &["INFO", "stats"]).unwrap();
        let hits = stats.lines().find_map(|line| line.strip_prefix("keyspace_hits:").map(str::to_owned));
        hits.unwrap().parse().unwrap()
    };
    cluster.ports.iter().map(hits).sum()
}

fn text(value: &Option<Bytes>) -> &str {
    value.as_ref().map_or("", |value| std::str::from_utf8(value).unwrap())
}

#[test]
fn of_many_who_want_what_is_not_here_one_asks() {
    play(async {
        let cluster = Cluster::start("near-once", &[]);
        let (writer, cache) = (cache(options(&cluster)).await, cache(options(&cluster)).await);
        writer.set("wanted", "v", None).await.unwrap();
        writer.set("single", "v", None).await.unwrap();
        let none = found(&cluster);
        cache.get("single").await.unwrap();
        let before = found(&cluster);
        let all = futures::future::join_all((0..200).map(|_| cache.get("wanted"))).await;
        assert!(all.iter().all(|value| text(value.as_ref().unwrap()) == "v"));
        assert_eq!(found(&cluster) - before, before - none, "as with one read: {:?}", cache.stats());
        let stats = cache.stats();
        assert_eq!((stats.misses, stats.coalesced, stats.hits), (201, 199, 0));
        assert_eq!(cache.read("wanted").await.unwrap().1, Source::Near);
        // Whoever began to ask gives up; the others don't.
        writer.set("other", "v", None).await.unwrap();
        let mut leader = Box::pin(cache.get("other"));
        assert!(futures::poll!(&mut leader).is_pending());
        let mut waiting: Vec<_> = (0..10).map(|_| Box::pin(cache.get("other"))).collect();
        for one in &mut waiting {
            assert!(futures::poll!(one).is_pending());
        }
        drop(leader);
        let all = futures::future::join_all(waiting).await;
        assert!(all.iter().all(|value| text(value.as_ref().unwrap()) == "v"));
    });
}

#[test]
fn many_keys_come_at_once_from_all_shards_and_from_here() {
    play(async {
        let mut cluster = Cluster::start("near-many-keys", &[]);
        let (writer, near) = (cache(options(&cluster)).await, cache(options(&cluster)).await);
        let writes = (0..3000).map(|n| {
            let writer = writer.clone();
            async move { writer.set(format!("k:{n}"), n.to_string(), None).await }
        });
        futures::future::join_all(writes).await.into_iter().for_each(|done| done.unwrap());
        in_step(&near).await;
        let names: Vec<String> = (0..3000).chain([7, 7, 5000]).map(|n| format!("k:{n}")).collect();
        let expected: Vec<String> =
            (0..3000).chain([7, 7]).map(|n| n.to_string()).chain(["".into()]).collect();
        let (near_too, names_too) = (near.clone(), names.clone());
        let values = tokio::spawn(async move { near_too.mget(names_too).await }).await.unwrap().unwrap();
        assert_eq!(values.iter().map(text).collect::<Vec<_>>(), expected);
        assert_eq!(near.stats().coalesced, 2, "the same key again");
        let again = near.read_many(&names).await.unwrap();
        assert!(again.iter().all(|(_, source)| *source == Source::Near));
        assert!(again.iter().map(|(value, _)| text(value)).eq(&expected));
        // Some of them are here, some have changed, and a node has died.
        cluster.kill(1);
        for n in 0..10 {
            writer.set(format!("k:{n}"), "new", None).await.unwrap();
        }
        in_step(&near).await;
        let fresh = cache(options(&cluster)).await;
        let (some, all) = (near.read_many(&names).await.unwrap(), fresh.mget(&names).await.unwrap());
        let expected = |n: usize| if n < 10 || n == 3000 || n == 3001 { "new" } else { &expected[n] };
        for (n, ((value, source), fresh)) in some.iter().zip(&all).enumerate() {
            assert_eq!((text(value), text(fresh)), (expected(n), expected(n)), "key {n}");
            assert_eq!(*source == Source::Near, text(value) != "new", "key {n} from {source:?}");
        }
    });
}

/// Nothing of it is kept, so that every read is a fetch or waits for one.
#[test]
fn who_waits_for_anothers_read_never_gets_less_than_what_was_written_before() {
    play(async {
        let cluster = Cluster::start("near-own", &[]);
        let near = cache(Options { prefixes: vec![Bytes::from_static(b"none:")], ..options(&cluster) }).await;
        near.set("counter", "0", None).await.unwrap();
        let written = Arc::new(AtomicU64::new(0));
        let reading: Vec<_> = (0..32)
            .map(|_| {
                let (near, written) = (near.clone(), written.clone());
                tokio::spawn(async move {
                    while written.load(Ordering::SeqCst) < 500 {
                        let before = written.load(Ordering::SeqCst);
                        let read: u64 = text(&near.get("counter").await.unwrap()).parse().unwrap();
                        assert!(read >= before, "{read} was read after {before} was acknowledged");
                    }
                })
            })
            .collect();
        for n in 1..=500u64 {
            near.set("counter", n.to_string(), None).await.unwrap();
            written.store(n, Ordering::SeqCst);
        }
        for task in reading {
            task.await.unwrap();
        }
        let stats = near.stats();
        assert!(stats.coalesced > stats.misses / 4 && stats.hits == 0, "they wait for each other: {stats:?}");
    });
}

#[test]
fn a_time_to_live_is_kept_to_and_what_is_removed_is_gone() {
    play(async {
        let cluster = Cluster::start("near-ttl", &[]);
        let (writer, near) = (cache(options(&cluster)).await, cache(options(&cluster)).await);
        let (begun, ttl) = (Instant::now(), Duration::from_millis(700));
        writer.set("short", "v", Some(ttl)).await.unwrap();
        writer.set("long", "v", Some(Duration::from_secs(600))).await.unwrap();
        assert_eq!(text(&near.get("short").await.unwrap()), "v");
        assert_eq!(text(&near.get("long").await.unwrap()), "v");
        let mut from_here = 0;
        loop {
            let asked = begun.elapsed();
            for cache in [&writer, &near] {
                let (value, source) = cache.read("short").await.unwrap();
                from_here += u64::from(value.is_some() && source == Source::Near);
                // The node began to count after `begun`; what is here is gone no later than it.
                assert!(
                    source != Source::Near || value.is_none() || asked < ttl + Duration::from_millis(200)
                );
            }
            if asked > ttl + Duration::from_millis(200) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(from_here > 20, "until then it came from here: {from_here}");
        for cache in [&writer, &near] {
            assert_eq!(cache.get("short").await.unwrap(), None);
            assert_eq!(cache.read("long").await.unwrap().1, Source::Near);
        }
        assert!(writer.del("long").await.unwrap() && !writer.del("never").await.unwrap());
        assert_eq!(writer.read("long").await.unwrap(), (None, Source::Near), "that it is gone is known");
        in_step(&near).await;
        assert_eq!(near.read("long").await.unwrap(), (None, Source::Cluster));
    });
}
