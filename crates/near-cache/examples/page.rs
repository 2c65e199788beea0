//! A page that shows many products at once, rendered by many tasks: `mget`, shared fetches, times to live, and what it
//! all cost: `cargo run --release -p slotcast-near-cache --example page -- 127.0.0.1:7001` (start a cluster with
//! `scripts/cluster up`).

use std::time::{Duration, Instant};

use slotcast_near_cache::cache::NearCache;
use slotcast_near_cache::error::Error;
use slotcast_near_cache::options::Options;

const PRODUCTS: usize = 100;
const VISITORS: usize = 50;

fn keys() -> Vec<String> {
    (0..PRODUCTS).map(|n| format!("page:product:{n}")).collect()
}

async fn visit(cache: NearCache) -> Result<usize, Error> {
    Ok(cache.mget(keys()).await?.iter().flatten().count())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let seeds: Vec<String> = std::env::args().skip(1).collect();
    let seeds = if seeds.is_empty() { vec!["127.0.0.1:7001".to_owned()] } else { seeds };
    let shop = NearCache::connect(Options::new(seeds.clone())).await?;
    for (n, key) in keys().into_iter().enumerate() {
        shop.set(key, format!("price {n}"), Some(Duration::from_secs(60))).await?;
    }
    let page = NearCache::connect(Options::new(seeds)).await?;
    while page.verified().is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await; // until then nothing is kept
    }
    for round in ["first", "second", "after a change"] {
        if round == "after a change" {
            shop.del("page:product:7").await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let begun = Instant::now();
        let visits: Vec<_> = (0..VISITORS).map(|_| tokio::spawn(visit(page.clone()))).collect();
        let mut shown = 0;
        for visit in visits {
            shown += visit.await.expect("a visit doesn't panic")?;
        }
        println!("{round}: {VISITORS} visitors saw {shown} products in {:?}", begun.elapsed());
    }
    println!("{:#?}", page.stats());
    page.close().await;
    shop.close().await;
    Ok(())
}
