//! The near cache (crates/near-cache) in front of three real nodes: what a cut, a kill, a stop and a full window cost it.
//!
//! `NEAR_CACHE_FIGURES=1` plays them at full size (100,000 keys, cut for 10 s) and prints the figures; scripts/bench does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use slotcast_near_cache::cache::{NearCache, Source, Stats};
use slotcast_near_cache::options::Options;
use slotcast_wire::slot::slot_of;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::nodes::{Cluster, LIMIT};

pub const STALENESS: Duration = Duration::from_secs(1);
pub const CHANGED: usize = 500;
const AT_ONCE: usize = 128;
/// Caches that write the same keys: more than a shard has log entries in flight.
const WRITERS: usize = 16;

/// How much of it is played.
pub struct Size {
    pub keys: usize,
    pub cut: Duration,
}

pub fn size() -> Size {
    match std::env::var_os("NEAR_CACHE_FIGURES") {
        Some(_) => Size { keys: 100_000, cut: Duration::from_secs(10) },
        None => Size { keys: 5_000, cut: STALENESS + Duration::from_secs(1) },
    }
}

pub fn key(n: usize) -> String {
    format!("product:{n}")
}

/// Between a cache and a node; can be cut.
struct Proxy {
    port: u16,
    cut: watch::Sender<bool>,
}

impl Proxy {
    async fn start(to: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cut, is_cut) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut is_cut = is_cut.clone();
                tokio::spawn(async move {
                    if !*is_cut.borrow() {
                        tokio::select! {
                            _ = forward(client, to) => {}
                            _ = is_cut.wait_for(|cut| *cut) => {}
                        }
                    }
                });
            }
        });
        Proxy { port, cut }
    }
}

async fn forward(mut client: TcpStream, to: u16) -> std::io::Result<()> {
    let mut node = TcpStream::connect(("127.0.0.1", to)).await?;
    client.set_nodelay(true)?;
    node.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut node).await.map(drop)
}

/// A cache behind proxies, and a writer that isn't.
pub struct Scene {
    pub cluster: Cluster,
    proxies: Vec<Proxy>,
    pub cache: NearCache,
    pub writer: NearCache,
    pub size: Size,
    /// Each key's value.
    pub values: HashMap<usize, String>,
}

impl Scene {
    /// The cache holds all keys.
    async fn start(name: &str, flags: &[&str]) -> Scene {
        Scene::of(Cluster::start(name, flags)).await
    }

    pub async fn of(cluster: Cluster) -> Scene {
        let size = size();
        let mut proxies = Vec::new();
        for port in &cluster.ports {
            proxies.push(Proxy::start(*port).await);
        }
        let seeds: Vec<String> = cluster.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let through = proxies.iter().map(|proxy| format!("127.0.0.1:{}", proxy.port));
        let options = Options {
            addresses: seeds.iter().cloned().zip(through).collect(),
            max_staleness: STALENESS,
            timeout: LIMIT,
            ..Options::new(seeds.clone())
        };
        let writer = NearCache::connect(Options { addresses: Vec::new(), ..options.clone() }).await.unwrap();
        let cache = NearCache::connect(options).await.unwrap();
        let mut scene = Scene { cluster, proxies, cache, writer, size, values: HashMap::new() };
        scene.write(0..scene.size.keys, "first").await;
        scene.in_step().await;
        scene.read_all().await;
        let stats = scene.cache.stats();
        assert!(stats.entries == scene.size.keys, "all are cached: {stats:?}");
        scene
    }

    pub async fn write(&mut self, keys: impl IntoIterator<Item = usize>, value: &str) {
        let keys: Vec<usize> = keys.into_iter().collect();
        let writes = keys.iter().map(|n| {
            let writer = self.writer.clone();
            async move {
                let begun = Instant::now();
                // Nobody else writes these: to repeat a write that may have been done changes nothing.
                while let Err(error) = writer.set(key(*n), value.to_owned(), None).await {
                    assert!(!error.is_certain() && begun.elapsed() < LIMIT, "{error}");
                }
            }
        });
        futures::stream::iter(writes).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
        self.values.extend(keys.into_iter().map(|n| (n, value.to_owned())));
    }

    /// Reads all keys and returns how many were not here any more; all are current. Where the stream isn't vouched for at
    /// the moment, the machine being busy, the entry is waited for: it is kept.
    pub async fn read_all(&self) -> usize {
        let reads = (0..self.size.keys).map(|n| {
            let cache = self.cache.clone();
            async move {
                let begun = Instant::now();
                loop {
                    tokio::task::yield_now().await; // hits never do
                    let (value, source) = cache.read(key(n)).await.unwrap();
                    assert_eq!(value.as_deref(), Some(self.values[&n].as_bytes()), "key {n} from {source:?}");
                    if source != Source::Bypass {
                        return usize::from(source == Source::Cluster);
                    }
                    assert!(begun.elapsed() < LIMIT, "nobody vouches for the stream: {:?}", cache.stats());
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        });
        futures::stream::iter(reads).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await.into_iter().sum()
    }

    fn cut(&self, cut: bool) {
        self.proxies.iter().for_each(|proxy| {
            proxy.cut.send_replace(cut);
        });
    }

    /// The stream has caught up with all that is written by now.
    pub async fn in_step(&self) {
        let begun = Instant::now();
        while !self.cache.verified().is_some_and(|age| age < begun.elapsed() && age < STALENESS / 2) {
            assert!(begun.elapsed() < LIMIT, "never in step: {:?}", self.cache.stats());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Keys to be changed, spread over all.
    pub fn some(&self) -> Vec<usize> {
        (0..CHANGED).map(|n| n * (self.size.keys / CHANGED)).collect()
    }

    /// Cuts the cache off, does `meanwhile`, and lets it back. Nothing outdated is served once it can't be vouched for.
    async fn cut_off(&mut self, meanwhile: impl AsyncFnOnce(&mut Scene)) {
        let begun = Instant::now();
        self.cut(true);
        meanwhile(self).await;
        tokio::time::sleep((begun + self.size.cut).saturating_duration_since(Instant::now())).await;
        tokio::time::sleep(STALENESS).await;
        for n in 0..100 {
            let read = tokio::time::timeout(Duration::from_millis(2), self.cache.read(key(n))).await;
            assert!(read.is_err(), "served without anyone to vouch for it: {read:?}");
        }
        self.cut(false);
        self.in_step().await;
    }

    /// Exactly the keys that were changed are read again.
    #[track_caller]
    fn assert_only_changed(&self, name: &str, again: usize, before: Stats) {
        let after = self.cache.stats();
        let (keys, kept) = (self.size.keys, self.size.keys - again);
        println!("{name}: {again} of {keys} keys read again, {kept} kept, 0 stale; {after:?}");
        assert_eq!(again, CHANGED, "{before:?}\n{after:?}");
        assert_eq!(after.flushed, before.flushed, "nothing is thrown away");
        assert_eq!(after.invalidated_slots, before.invalidated_slots);
        assert!(after.resumed >= before.resumed + 3, "each shard's stream has gone on where it stood");
    }
}

/// What a test does, on a runtime of its own.
pub fn play(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn after_a_cut_exactly_what_has_changed_is_read_again() {
    play(async {
        let mut scene = Scene::start("near-cut", &[]).await;
        let before = scene.cache.stats();
        scene.cut_off(async |scene| scene.write(scene.some(), "second").await).await;
        scene.assert_only_changed("cut", scene.read_all().await, before);
    });
}

#[test]
fn so_it_is_when_a_leader_is_killed_or_stopped_meanwhile() {
    play(async {
        let mut scene = Scene::start("near-kill", &[]).await;
        let before = scene.cache.stats();
        let kill = async |scene: &mut Scene| {
            scene.cluster.kill(0);
            scene.write(scene.some(), "second").await;
        };
        scene.cut_off(kill).await;
        scene.assert_only_changed("kill -9", scene.read_all().await, before);
        scene.cluster.run(0);
        scene.cluster.serves();
        scene.in_step().await;
        let before = scene.cache.stats();
        let stop = async |scene: &mut Scene| {
            scene.cluster.stop(1);
            scene.write(scene.some(), "third").await;
        };
        scene.cut_off(stop).await;
        scene.assert_only_changed("SIGTERM", scene.read_all().await, before);
    });
}

#[test]
fn what_the_window_does_not_reach_back_to_costs_that_shard_alone() {
    play(async {
        let mut scene = Scene::start("near-window", &["--invalidation-window-bytes", "65536"]).await;
        let before = scene.cache.stats();
        let mine = |n: &usize| slot_of(key(*n).as_bytes()) <= 5461;
        let first_shard: Vec<usize> = (0..scene.size.keys).filter(mine).collect();
        let often = async |scene: &mut Scene| {
            for round in 0..1 + 20_000 / first_shard.len() {
                scene.write(first_shard.iter().copied(), &format!("round {round}")).await;
            }
        };
        scene.cut_off(often).await;
        let (again, after) = (scene.read_all().await, scene.cache.stats());
        println!("window exceeded: {again} of {} keys read again; {after:?}", scene.size.keys);
        assert_eq!(again, first_shard.len());
        assert!(after.flushed > before.flushed);
    });
}

#[test]
fn while_all_is_well_nothing_outdated_is_served_for_long() {
    play(async {
        let scene = Arc::new(Scene::start("near-well", &[]).await);
        let seconds = if std::env::var_os("NEAR_CACHE_FIGURES").is_some() { 20 } else { 2 };
        let acknowledged: Arc<parking_lot::Mutex<Vec<Vec<Instant>>>> = Default::default();
        acknowledged.lock().resize(50, Vec::new());
        let (writer, times) = (scene.writer.clone(), acknowledged.clone());
        let writing = tokio::spawn(async move {
            for n in 0.. {
                let (key, version) = (n % 50, n / 50);
                writer.set(format!("hot:{key}"), version.to_string(), None).await.unwrap();
                times.lock()[key].push(Instant::now());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let (begun, mut worst, mut overtaken, mut late) = (Instant::now(), Duration::ZERO, 0u64, 0u64);
        while begun.elapsed() < Duration::from_secs(seconds) || scene.cache.stats().invalidated_keys < 200 {
            assert!(begun.elapsed() < LIMIT, "hardly anything changes: {:?}", scene.cache.stats());
            tokio::task::yield_now().await; // hits never do
            for key in 0..50 {
                let asked = Instant::now();
                let Some(value) = scene.cache.get(format!("hot:{key}")).await.unwrap() else { continue };
                let version: usize = std::str::from_utf8(&value).unwrap().parse().unwrap();
                let next = acknowledged.lock()[key].get(version + 1).copied();
                let age = next.map_or(Duration::ZERO, |next| asked.saturating_duration_since(next));
                overtaken += u64::from(!age.is_zero());
                late += u64::from(age > Duration::from_millis(100));
                worst = worst.max(age);
            }
        }
        writing.abort();
        let stats = scene.cache.stats();
        println!(
            "well: {overtaken} reads of what was just overtaken, {late} for over 100 ms, at most {worst:?}; {stats:?}"
        );
        assert!(stats.hits > 1000, "{stats:?}");
        assert!(worst <= STALENESS, "an entry was served {worst:?} after it was overtaken");
    });
}

/// Log entries hold writes of many: of two to one key, the cache of the one that lost must not keep its own.
#[test]
fn caches_that_write_the_same_keys_end_with_what_the_last_one_wrote() {
    play(async {
        let cluster = Cluster::start("near-same", &[]);
        let seeds: Vec<String> = cluster.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let options = Options { heartbeat: Duration::from_millis(20), ..Options::new(seeds) };
        let mut caches = Vec::new();
        for _ in 0..WRITERS {
            caches.push(NearCache::connect(options.clone()).await.unwrap());
        }
        let (mut wrong, mut near) = (Vec::new(), 0);
        for round in 0..50 {
            let write = |(n, cache): (usize, &NearCache)| {
                let cache = cache.clone();
                (0..20).map(move |key| {
                    let cache = cache.clone();
                    async move {
                        cache.set(format!("shared:{key}"), format!("{round} by {n}"), None).await.unwrap()
                    }
                })
            };
            let writes: Vec<_> = caches.iter().enumerate().flat_map(write).collect();
            futures::future::join_all(writes).await;
            let begun = Instant::now();
            while !caches.iter().all(|cache| cache.verified().is_some_and(|age| age < begun.elapsed())) {
                assert!(begun.elapsed() < LIMIT, "never in step");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            for key in (0..20).map(|key| format!("shared:{key}")) {
                let mut values = Vec::new();
                for cache in &caches {
                    let (value, source) = cache.read(&key).await.unwrap();
                    near += usize::from(source == Source::Near);
                    values.push((value.unwrap(), source));
                }
                if values.iter().any(|(value, _)| *value != values[0].0) {
                    wrong.push(format!("{key}: {values:?}"));
                }
            }
        }
        println!(
            "shared keys: {near} of {} reads from the caches themselves, {} keys wrong",
            50 * 20 * WRITERS,
            wrong.len()
        );
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(near > 100, "what the last one wrote stays in its cache");
    });
}
