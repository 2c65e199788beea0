//! The figures INFO prints, collected at one go. They are read one after another, so together they are no one moment.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::setting::{Choice, Live};
use crate::pubsub::registry::Kind;
use crate::session::clients::Client;
use crate::session::context::Context;
use crate::session::info::vitals::Vitals;
use crate::session::saves::Status;
use crate::session::tracking::Tracking;
use crate::topology::view::View;

/// See the module. Sizes in bytes.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)] // INFO's names, in `sections`, explain them
pub struct Facts {
    pub clustered: bool,
    pub vitals: Vitals,
    pub run_id: String,
    pub port: u16,
    pub now_micros: u64,
    pub uptime_seconds: u64,
    pub hz: u32,
    pub clients: usize,
    pub tracking_clients: usize,
    pub pubsub_clients: usize,
    pub channels: usize,
    pub patterns: usize,
    pub shard_channels: usize,
    pub tracked_keys: usize,
    pub tracked_items: usize,
    pub tracked_prefixes: usize,
    pub max_clients: usize,
    pub memory: u64,
    pub max_memory: u64,
    pub policy: &'static str,
    pub keys: u64,
    pub volatile_keys: u64,
    /// Other nodes that answer and hold a copy of a shard led here.
    pub replicas: usize,
    pub connections: u64,
    pub rejected_connections: u64,
    pub commands: u64,
    pub hits: u64,
    pub misses: u64,
    pub input: u64,
    pub output: u64,
    pub expired: u64,
    pub evicted: u64,
    pub error_replies: u64,
    pub output_limit_disconnections: u64,
    pub dropped_messages: u64,
    pub saves: Status,
    pub errors: Vec<(Box<str>, u64)>,
}

impl Facts {
    /// Collects them; `port` is the one the asking connection came in by.
    pub fn gather(context: &Context, port: u16) -> Self {
        let live = context.config.live();
        let clients = context.clients.list();
        let now_micros = context.clock.now_micros();
        Self {
            clustered: context.cluster.is_some(),
            vitals: Vitals::read(),
            run_id: context.run_id.to_string(),
            port,
            now_micros,
            uptime_seconds: (now_micros / 1000).saturating_sub(context.started) / 1000,
            clients: clients.len(),
            pubsub_clients: clients.iter().filter(|client| client.profile.lock().is_subscriber()).count(),
            channels: context.subscribers.count(Kind::Channel),
            patterns: context.subscribers.count(Kind::Pattern),
            shard_channels: context.subscribers.count(Kind::Shard),
            replicas: context.view().map_or(0, |view| replicas(&view)),
            saves: context.saves.status(),
            errors: context.metrics.errors.counts(),
            ..Self::default()
        }
        .with_settings(&live)
        .with_keys(context)
        .with_counters(context)
        .with_tracking(context, &clients)
    }

    fn with_tracking(mut self, context: &Context, clients: &[Arc<Client>]) -> Self {
        let modes = clients.iter().map(|client| client.profile.lock().tracking.clone());
        let modes: Vec<Tracking> = modes.filter(|tracking| tracking.on).collect();
        self.tracking_clients = modes.len();
        let prefixes: BTreeSet<_> = modes.iter().flat_map(|tracking| &tracking.prefixes).collect();
        self.tracked_prefixes = prefixes.len();
        (self.tracked_keys, self.tracked_items) = (context.tracked.len(), context.tracked.items());
        self
    }

    fn with_settings(mut self, live: &Live) -> Self {
        self.hz = live.hz;
        self.max_clients = live.maxclients;
        self.max_memory = live.maxmemory;
        self.policy = live.maxmemory_policy.word();
        self
    }

    /// Memory counts all copies, keys only those that this node leads: summed over the nodes, each is counted once.
    fn with_keys(mut self, context: &Context) -> Self {
        self.memory = context.used_memory();
        for (_, keyspace) in context.keyspaces.load().iter().filter(|(shard, _)| context.leads(**shard)) {
            let usage = keyspace.usage();
            self.keys += usage.keys.max(0) as u64;
            self.volatile_keys += usage.volatile.max(0) as u64;
        }
        self
    }

    fn with_counters(mut self, context: &Context) -> Self {
        let metrics = &context.metrics;
        self.connections = metrics.connections_received.count();
        self.rejected_connections = metrics.connections_rejected.count();
        self.commands = metrics.commands_processed.count();
        self.hits = metrics.keyspace_hits.count();
        self.misses = metrics.keyspace_misses.count();
        self.input = metrics.input_bytes.count();
        self.output = metrics.output_bytes.count();
        self.expired = metrics.expired_keys.count();
        self.evicted = metrics.evicted_keys.count();
        self.error_replies = metrics.error_replies.count();
        self.dropped_messages = metrics.messages_dropped.count();
        self.output_limit_disconnections = metrics.output_limit_disconnections.count();
        self
    }
}

fn replicas(view: &View) -> usize {
    let led = view.topology.shards.iter().filter(|(shard, _)| view.serves(**shard));
    let holders: BTreeSet<_> = led.flat_map(|(_, shard)| shard.copies.keys()).collect();
    holders.iter().filter(|id| ***id != view.me && !view.unreachable.contains(id)).count()
}
