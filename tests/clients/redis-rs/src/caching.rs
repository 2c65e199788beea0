//! Keeps a client-side cache while another connection writes, for as long as standard input is open, whatever happens to
//! the cluster. Prints `running`, and at the end, when the writer has been quiet for a while, one line of JSON:
//! `{reads, hits, stale: [text]}`.
//!
//! With version 2 of the client: in version 1 the caller's task fills the cache and another empties it, so it ends up
//! with stale entries whatever the server does.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use redis2::cluster::ClusterClient;
use redis2::cluster_async::ClusterConnection;
use redis2::{AsyncCommands, ProtocolVersion, RedisResult, caching::CacheConfig};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::time::sleep;

const KEYS: u64 = 200;
const READERS: usize = 2;
const READ_EVERY: Duration = Duration::from_millis(1);
const WRITE_EVERY: Duration = Duration::from_millis(10);
const QUIET: Duration = Duration::from_secs(2);
/// Between two tries of a read that matters, and their number.
const AGAIN: (Duration, usize) = (Duration::from_millis(20), 200);

fn key(n: u64) -> String {
    format!("near:redis-rs:{}", n % KEYS)
}

async fn read(connection: &mut ClusterConnection, key: &str) -> RedisResult<Option<String>> {
    let mut read = connection.get(key).await;
    for _ in 0..AGAIN.1 {
        if read.is_ok() {
            break;
        }
        sleep(AGAIN.0).await;
        read = connection.get(key).await;
    }
    read
}

/// What the tasks share.
#[derive(Default)]
struct Shared {
    quiet: AtomicBool,
    over: AtomicBool,
    reads: AtomicU64,
}

async fn write_on(mut connection: ClusterConnection, shared: Arc<Shared>) {
    for n in 1.. {
        if shared.quiet.load(Relaxed) {
            return;
        }
        // A write that failed is as good as one that didn't: in the end the cache is compared with what is.
        let _: RedisResult<()> = connection.set(key(n), n).await;
        sleep(WRITE_EVERY).await;
    }
}

/// Some keys are read more than others, or nothing would stay cached until it is read again.
async fn read_on(mut connection: ClusterConnection, shared: Arc<Shared>) {
    for n in 1_u64.. {
        if shared.over.load(Relaxed) {
            return;
        }
        let _: RedisResult<Option<String>> = connection.get(key(n.wrapping_mul(n))).await;
        shared.reads.fetch_add(1, Relaxed);
        sleep(READ_EVERY).await;
    }
}

/// See the module's documentation.
pub async fn run() -> Result<(), Box<dyn Error>> {
    let node = format!("redis://{}/", std::env::var("CLUSTER_NODE")?);
    let builder = || ClusterClient::builder([node.clone()]).use_protocol(ProtocolVersion::RESP3);
    let mut plain = builder().build()?.get_async_connection().await?;
    let client = builder().cache_config(CacheConfig::new()).build()?;
    let mut cached = client.get_async_connection().await?;
    let shared = Arc::<Shared>::default();
    let writer = tokio::spawn(write_on(plain.clone(), shared.clone()));
    let readers: Vec<_> =
        (0..READERS).map(|_| tokio::spawn(read_on(cached.clone(), shared.clone()))).collect();
    println!("running");
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    shared.quiet.store(true, Relaxed);
    writer.await?;
    sleep(QUIET).await;
    shared.over.store(true, Relaxed);
    for reader in readers {
        reader.await?;
    }
    let mut stale = Vec::new();
    for n in 0..KEYS {
        let (held, truth) = (read(&mut cached, &key(n)).await?, read(&mut plain, &key(n)).await?);
        if held != truth {
            stale.push(format!("{}: cached {held:?}, is {truth:?}", key(n)));
        }
    }
    let hits = cached.get_cache_statistics().ok_or("no cache")?.hit;
    println!("{}", json!({"reads": shared.reads.load(Relaxed), "hits": hits, "stale": stale}));
    Ok(())
}
