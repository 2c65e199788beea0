//! Near caches (crates/near-cache) under faults: they read the same keys again and again while authors change them, and
//! each read is judged (`staleness`). In the end, when nobody writes any more, everything they hold is compared with
//! what the cluster says.
//!
//! They live on a thread of their own, as they would in a process of their own: it is they who must notice that they
//! have not been told anything for long.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use slotcast_near_cache::cache::{NearCache, Source};
use slotcast_near_cache::error::Error;
use slotcast_near_cache::options::Options;
use slotcast_verify::staleness::{From, Judge, Read};
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::cached::{KEYS, name, number};
use crate::calm::{Calm, Pause};
use crate::client::Client;
use crate::clock;
use crate::closing::{self, Closing};
use crate::cluster::Cluster;
use crate::processors::Processors;

/// How stale caches may be, in turn: tighter ones distrust a silent stream sooner.
const BOUNDS: [Duration; 4] = [
    Duration::from_millis(2_000),
    Duration::from_millis(1_000),
    Duration::from_millis(500),
    Duration::from_millis(2_000),
];
/// Heartbeats: of a bound of half a second two may be late.
const HEARTBEAT: Duration = Duration::from_millis(150);
/// A cache reads some keys so often,
const TICK: Duration = Duration::from_millis(5);
/// so many: each key ten times a second.
const AT_A_TICK: usize = 30;
/// They go on for so long when nobody writes any more, so that they hold what there is.
const REFILL: Duration = Duration::from_secs(3);
/// To find a cluster in good health takes less.
const CONNECT: Duration = Duration::from_secs(30);

/// What authors and caches have in common; clones share it.
#[derive(Clone)]
pub struct Watch(Arc<Shared>);

struct Shared {
    judge: Mutex<Judge>,
    calm: Calm,
    /// Caches are to stop reading.
    over: AtomicBool,
}

impl Watch {
    /// Nothing has been written or read.
    fn new(caches: usize, calm: Calm) -> Watch {
        let bounds = (0..caches).map(bound).collect();
        let judge = Mutex::new(Judge::new(KEYS, bounds));
        Watch(Arc::new(Shared { judge, calm, over: AtomicBool::new(false) }))
    }

    /// The judge.
    pub fn judge(&self) -> MutexGuard<'_, Judge> {
        self.0.judge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.0.over.load(Ordering::Acquire)
    }
}

fn bound(cache: usize) -> Duration {
    BOUNDS[cache % BOUNDS.len()]
}

/// The caches' thread.
pub struct Caches {
    /// What authors tell it.
    pub watch: Watch,
    /// Whether anybody waits for one.
    pub processors: Processors,
    end: oneshot::Sender<()>,
    closing: oneshot::Receiver<Result<Closing, String>>,
}

impl Caches {
    /// Starts so many caches in front of a cluster in good health.
    pub fn start(count: usize, cluster: &Cluster, calm: Calm) -> Result<Caches, String> {
        let nodes = cluster.nodes.iter().map(|node| (node.address, node.cache_address)).collect();
        let (watch, pause) = (Watch::new(count, calm), cluster.cache_pause.clone());
        let ((end, ended), (closed, closing)) = (oneshot::channel(), oneshot::channel());
        let (watched, processors) = (watch.clone(), Processors::start(watch.0.calm.clone())?);
        let thread = std::thread::Builder::new().name("caches".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let result = match runtime {
                Ok(runtime) => LocalSet::new().block_on(&runtime, live(count, nodes, watched, pause, ended)),
                Err(error) => Err(error.to_string()),
            };
            let _ = closed.send(result);
        });
        thread.map_err(|error| error.to_string())?;
        Ok(Caches { watch, processors, end, closing })
    }

    /// Nobody writes any more, and no fault is left: compares what the caches hold with what the cluster says.
    pub async fn end(self) -> Result<Closing, String> {
        let _ = self.end.send(());
        self.closing.await.map_err(|_| "the caches' thread has ended by itself".to_owned())?
    }
}

/// `nodes`: what each calls itself, and where caches reach it.
async fn live(
    count: usize,
    nodes: Vec<(SocketAddr, SocketAddr)>,
    watch: Watch,
    pause: Pause,
    ended: oneshot::Receiver<()>,
) -> Result<Closing, String> {
    let (mut caches, mut readers) = (Vec::new(), Vec::new());
    for number in 0..count {
        let options = Options {
            max_staleness: bound(number),
            heartbeat: HEARTBEAT,
            addresses: nodes.iter().map(|(node, reached)| (node.to_string(), reached.to_string())).collect(),
            ..Options::new(nodes.iter().map(|(node, _)| node.to_string()))
        };
        let cache = timeout(CONNECT, NearCache::connect(options)).await;
        let cache = cache.map_err(|_| "a cache finds no cluster")?.map_err(|error| error.to_string())?;
        caches.push(cache.clone());
        let waiting = Rc::new(RefCell::new(vec![false; KEYS]));
        let reader = Reader { number, cache, watch: watch.clone(), waiting };
        readers.push(tokio::task::spawn_local(reader.run()));
    }
    let pausing = tokio::task::spawn_local(stand_still(pause));
    // Dropped: the campaign has come to its end before the caches could.
    ended.await.map_err(|_| "the campaign has ended")?;
    sleep(REFILL).await;
    watch.0.over.store(true, Ordering::Release);
    for reader in readers {
        reader.await.map_err(|error| error.to_string())?;
    }
    pausing.abort();
    let nodes: Vec<SocketAddr> = nodes.into_iter().map(|(node, _)| node).collect();
    let mut client = Client::new(u16::MAX - 1, nodes.into(), 0);
    closing::compare(&caches, &mut client).await
}

/// Does nothing on this thread when that is ordered, as if its process were stopped. Does not end.
async fn stand_still(pause: Pause) {
    let mut ticks = interval(TICK);
    loop {
        ticks.tick().await;
        if let Some(lasts) = pause.take() {
            std::thread::sleep(lasts);
        }
    }
}

/// One cache's reads.
#[derive(Clone)]
struct Reader {
    number: usize,
    cache: NearCache,
    watch: Watch,
    /// Keys that the cluster has been asked for: of each once at a time.
    waiting: Rc<RefCell<Vec<bool>>>,
}

impl Reader {
    async fn run(self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Caches begin at different places.
        let mut key = self.number * 97;
        while !self.watch.is_over() {
            ticks.tick().await;
            for _ in 0..AT_A_TICK {
                key = (key + 1) % KEYS;
                self.look(key).await;
            }
        }
    }

    /// Reads a key, which takes no time if it is served from memory; if not, others are read meanwhile.
    async fn look(&self, key: usize) {
        if self.waiting.borrow()[key] {
            return;
        }
        let (cache, began) = (self.cache.clone(), clock::now());
        let mut read = Box::pin(async move { cache.read(name(key)).await });
        match poll_fn(|context| Poll::Ready(read.as_mut().poll(context))).await {
            Poll::Ready(result) => self.judge(key, began, result),
            Poll::Pending => {
                self.waiting.borrow_mut()[key] = true;
                let reader = self.clone();
                tokio::task::spawn_local(async move {
                    let result = read.await;
                    reader.waiting.borrow_mut()[key] = false;
                    reader.judge(key, began, result);
                });
            }
        }
    }

    fn judge(&self, key: usize, began: u64, result: Result<(Option<impl AsRef<[u8]>>, Source), Error>) {
        // That nobody serves it for a while is no matter of the cache's.
        let Ok((value, source)) = result else { return };
        let found = number(key, value.as_ref().map(AsRef::as_ref)).unwrap_or(u32::MAX);
        let from = match source {
            Source::Near => From::Near,
            Source::Cluster => From::Cluster,
            Source::Bypass => From::Bypass,
        };
        let calm_since = self.watch.0.calm.since();
        self.watch.judge().read(&Read { cache: self.number, key, found, from, began, calm_since });
    }
}
