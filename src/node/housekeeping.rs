//! What a node does `hz` times a second without being asked: removes expired keys of the shards it leads, closes
//! clients that have exhausted its patience, and tells caches when it can no longer vouch for what they hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::config::setting::OutputLimit;
use crate::id::GroupId;
use crate::server::Server;
use crate::server::connection::STALL_LIMIT;
use crate::session::clients::Patience;
use crate::shard::upkeep::Upkeep;

/// Between two looks at all clients.
const CLIENT_INTERVAL: Duration = Duration::from_secs(1);

/// Keeps house for ever.
pub async fn keep(server: Arc<Server>) {
    let mut walks: BTreeMap<GroupId, Upkeep> = BTreeMap::new();
    let mut cut_off = CutOff::default();
    let started = Instant::now();
    let mut clients_seen = started;
    loop {
        tokio::time::sleep(server.context.config.live().upkeep_interval()).await;
        let shards = server.shards.load_full();
        walks.retain(|group, _| shards.contains_key(group));
        for (group, shard) in shards.iter().filter(|(group, _)| server.context.leads(**group)) {
            walks.entry(*group).or_default().step(shard, shard.proposer().as_ref());
        }
        let live = server.context.config.live();
        let age = live.invalidation_window_seconds.as_millis() as u64;
        let limit = live.invalidation_window_bytes as usize;
        server.context.rings.retire(started.elapsed().as_millis() as u64, age, limit);
        cut_off.look(&server);
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

/// Copies of shards that hear of no leader. Changes pass them by, so after `cluster-node-timeout` the caches that
/// were filled here are told to drop everything: once each time.
#[derive(Default)]
struct CutOff {
    since: BTreeMap<GroupId, (Instant, bool)>,
}

impl CutOff {
    fn look(&mut self, server: &Server) {
        let Some(view) = server.context.view() else { return };
        let limit = server.context.config.live().cluster_node_timeout;
        self.since.retain(|group, _| view.observed.get(group).is_some_and(|seen| seen.leader.is_none()));
        for (group, _) in view.observed.iter().filter(|(_, seen)| seen.leader.is_none()) {
            let (since, told) = self.since.entry(*group).or_insert((Instant::now(), false));
            if !*told && since.elapsed() >= limit {
                *told = true;
                warn!(
                    "{group}: no leader for {limit:?}; caches that track keys here are told to drop everything"
                );
                server.invalidation.forget_shard(*group);
            }
        }
    }
}
