//! What a node does `hz` times a second without being asked: removes expired keys of the shards it leads, closes
//! clients that have exhausted its patience, and tells caches when it can no longer vouch for what they hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use crate::config::setting::OutputLimit;
use crate::id::GroupId;
use crate::node::vouching::Vouching;
use crate::server::Server;
use crate::server::connection::STALL_LIMIT;
use crate::session::clients::Patience;
use crate::shard::upkeep::Upkeep;

/// Between two looks at all clients.
const CLIENT_INTERVAL: Duration = Duration::from_secs(1);

/// Keeps house for ever.
pub async fn keep(server: Arc<Server>) {
    let mut walks: BTreeMap<GroupId, Upkeep> = BTreeMap::new();
    let mut vouching = Vouching::default();
    let started = Instant::now();
    let mut clients_seen = started;
    loop {
        tokio::time::sleep(server.context.config.live().upkeep_interval()).await;
        server.context.clock.follow();
        let shards = server.shards.load_full();
        walks.retain(|group, _| shards.contains_key(group));
        for (group, shard) in shards.iter().filter(|(group, _)| server.context.leads(**group)) {
            walks.entry(*group).or_default().step(shard, shard.proposer().as_ref());
        }
        let live = server.context.config.live();
        let age = live.invalidation_window_seconds.as_millis() as u64;
        let limit = live.invalidation_window_bytes as usize;
        server.context.rings.retire(started.elapsed().as_millis() as u64, age, limit);
        vouching.look(&server);
        if clients_seen.elapsed() >= CLIENT_INTERVAL {
            clients_seen = Instant::now();
            close_exhausted(&server);
        }
    }
}

fn close_exhausted(server: &Server) {
    let live = server.context.config.live();
    let patience = |limit: OutputLimit| Patience {
        stall: STALL_LIMIT.as_millis() as u64,
        soft: limit.soft,
        soft_time: limit.soft_time.as_millis() as u64,
        idle: live.timeout.as_millis() as u64,
    };
    let limits = live.client_output_buffer_limit;
    let (normal, subscribers) = (patience(limits.normal), patience(limits.pubsub));
    let now = server.context.clock.now();
    for client in server.context.clients.list() {
        let subscribes = client.profile.lock().is_subscriber();
        if let Some(why) = client.exhausts(if subscribes { subscribers } else { normal }, now) {
            info!(client = client.id, addr = %client.addr, "client closed: {why}");
            server.context.metrics.output_limit_disconnections.add(1);
            client.kill();
        }
    }
}
