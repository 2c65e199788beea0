//! A page of products, read a million times and changed now and then: `cargo run --release -p slotcast-near-cache
//! --example products -- 127.0.0.1:7001` (start a cluster with `scripts/cluster up`).

use std::time::{Duration, Instant};

use slotcast_near_cache::cache::NearCache;
use slotcast_near_cache::error::Error;
use slotcast_near_cache::options::Options;

const PRODUCTS: usize = 100;
const READS: usize = 1_000_000;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let seeds: Vec<String> = std::env::args().skip(1).collect();
    let seeds = if seeds.is_empty() { vec!["127.0.0.1:7001".to_owned()] } else { seeds };
    let cache = NearCache::connect(Options::new(seeds)).await?;
    for n in 0..PRODUCTS {
        cache.set(format!("product:{n}"), format!("price {n}"), Some(Duration::from_secs(600))).await?;
    }
    let begun = Instant::now();
    for n in 0..READS {
        if n % 10_000 == 0 {
            cache.set(format!("product:{}", n % PRODUCTS), "a new price", None).await?;
            tokio::task::yield_now().await; // hits never wait: let the stream in
        }
        cache.get(format!("product:{}", n % PRODUCTS)).await?;
    }
    println!("{:.0} ns a read; {:#?}", begun.elapsed().as_nanos() as f64 / READS as f64, cache.stats());
    cache.close().await;
    Ok(())
}
