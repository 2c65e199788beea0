//! The `redis` crate's asynchronous cluster client against a cluster: `commands` runs what an application does, `loop` keeps
//! writing through faults, `cache` keeps a client-side cache through them. `CLUSTER_NODE=host:port` names the one node it knows.

mod caching;
mod commands;
mod looping;

use redis::RedisResult;
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;

/// The builder of a user who gives one address and leaves every option at its default.
fn builder() -> ClusterClientBuilder {
    let node = std::env::var("CLUSTER_NODE").expect("CLUSTER_NODE=host:port names the node to start from");
    ClusterClient::builder([format!("redis://{node}/")])
}

async fn connect(builder: ClusterClientBuilder) -> RedisResult<ClusterConnection> {
    builder.build()?.get_async_connection().await
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let failed = match std::env::args().nth(1).as_deref() {
        Some("commands") => commands::run().await,
        Some("loop") => looping::run().await,
        Some("cache") => caching::run().await,
        _ => Err("usage: slotcast-redis-rs commands|loop|cache".into()),
    };
    if let Err(error) = failed {
        eprintln!("{error}");
        std::process::exit(1);
    }
}
