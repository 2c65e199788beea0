//! INFO's sections: names as Redis has them, because dashboards and clients read them.

use crate::session::info::facts::Facts;
use crate::session::{REDIS_VERSION, VERSION};

/// A section's lines.
pub type Lines = fn(&Facts) -> Vec<(String, String)>;

/// The sections, in the order they are printed.
pub const SECTIONS: &[(&str, Lines)] = &[
    ("Server", server),
    ("Clients", clients),
    ("Memory", memory),
    ("Persistence", persistence),
    ("Stats", stats),
    ("Replication", replication),
    ("CPU", cpu),
    ("Errorstats", error_stats),
    ("Cluster", cluster),
    ("Keyspace", keyspace),
];

macro_rules! lines {
    ($($name:literal: $value:expr),* $(,)?) => { vec![$(($name.to_owned(), $value.to_string())),*] };
}

fn server(facts: &Facts) -> Vec<(String, String)> {
    let executable = std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default();
    lines! {
        "redis_version": REDIS_VERSION,
        "slotcast_version": VERSION,
        "redis_mode": if facts.clustered { "cluster" } else { "standalone" },
        "os": facts.vitals.os,
        "arch_bits": usize::BITS,
        "process_id": std::process::id(),
        "run_id": facts.run_id,
        "tcp_port": facts.port,
        "server_time_usec": facts.now_micros,
        "uptime_in_seconds": facts.uptime_seconds,
        "uptime_in_days": facts.uptime_seconds / 86_400,
        "hz": facts.hz,
        "configured_hz": facts.hz,
        "executable": executable,
    }
}

fn clients(facts: &Facts) -> Vec<(String, String)> {
    lines! {
        "connected_clients": facts.clients,
        "maxclients": facts.max_clients,
        "blocked_clients": 0,
        "tracking_clients": facts.tracking_clients,
        "pubsub_clients": facts.pubsub_clients,
    }
}

fn memory(facts: &Facts) -> Vec<(String, String)> {
    let (used, resident) = (facts.memory, facts.vitals.resident);
    lines! {
        "used_memory": used,
        "used_memory_human": human(used),
        "used_memory_rss": resident,
        "used_memory_rss_human": human(resident),
        "used_memory_rss_peak": facts.vitals.resident_peak,
        "total_system_memory": facts.vitals.machine_memory,
        "total_system_memory_human": human(facts.vitals.machine_memory),
        "maxmemory": facts.max_memory,
        "maxmemory_human": human(facts.max_memory),
        "maxmemory_policy": facts.policy,
        "mem_fragmentation_ratio": format!("{:.2}", resident as f64 / used.max(1) as f64),
        "mem_allocator": "mimalloc",
    }
}

/// What is saved at clients' request; the log is no AOF and has no lines here.
fn persistence(facts: &Facts) -> Vec<(String, String)> {
    let saves = &facts.saves;
    let seconds = |millis: Option<u64>| millis.map_or(-1, |millis| (millis / 1000) as i64);
    let running = saves.since.map(|since| (facts.now_micros / 1000).saturating_sub(since));
    lines! {
        "loading": 0,
        "async_loading": 0,
        "rdb_bgsave_in_progress": u8::from(running.is_some()),
        "rdb_last_save_time": saves.succeeded / 1000,
        "rdb_last_bgsave_status": if saves.failed.is_some() { "err" } else { "ok" },
        "rdb_last_bgsave_time_sec": seconds(saves.took),
        "rdb_current_bgsave_time_sec": seconds(running),
        "aof_enabled": 0,
        "aof_rewrite_in_progress": 0,
    }
}

fn stats(facts: &Facts) -> Vec<(String, String)> {
    lines! {
        "total_connections_received": facts.connections,
        "total_commands_processed": facts.commands,
        "total_net_input_bytes": facts.input,
        "total_net_output_bytes": facts.output,
        "rejected_connections": facts.rejected_connections,
        "expired_keys": facts.expired,
        "evicted_keys": facts.evicted,
        "keyspace_hits": facts.hits,
        "keyspace_misses": facts.misses,
        "pubsub_channels": facts.channels,
        "pubsub_patterns": facts.patterns,
        "pubsubshard_channels": facts.shard_channels,
        "pubsub_dropped_messages": facts.dropped_messages,
        "tracking_total_keys": facts.tracked_keys,
        "tracking_total_items": facts.tracked_items,
        "tracking_total_prefixes": facts.tracked_prefixes,
        "client_output_buffer_limit_disconnections": facts.output_limit_disconnections,
        "total_error_replies": facts.error_replies,
    }
}

/// Replicas are counted, not listed: their addresses are other masters' addresses (see `session::cluster`).
fn replication(facts: &Facts) -> Vec<(String, String)> {
    lines! {
        "role": "master",
        "connected_slaves": facts.replicas,
        "master_failover_state": "no-failover",
        "master_replid": facts.run_id,
        "master_repl_offset": 0,
    }
}

fn cpu(facts: &Facts) -> Vec<(String, String)> {
    lines! {
        "used_cpu_sys": format!("{:.6}", facts.vitals.cpu_system),
        "used_cpu_user": format!("{:.6}", facts.vitals.cpu_user),
    }
}

fn error_stats(facts: &Facts) -> Vec<(String, String)> {
    facts.errors.iter().map(|(code, count)| (format!("errorstat_{code}"), format!("count={count}"))).collect()
}

fn cluster(facts: &Facts) -> Vec<(String, String)> {
    lines! { "cluster_enabled": u8::from(facts.clustered) }
}

/// An empty database has no line: `redis-cli --cluster` takes any line for data.
fn keyspace(facts: &Facts) -> Vec<(String, String)> {
    if facts.keys == 0 {
        return Vec::new();
    }
    lines! { "db0": format!("keys={},expires={},avg_ttl=0", facts.keys, facts.volatile_keys) }
}

/// Bytes for people: `1.50M`.
fn human(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, letter)) => format!("{:.2}{letter}", bytes as f64 / *unit as f64),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        let cases = [(0, "0B"), (1023, "1023B"), (1024, "1.00K"), (1_600_000, "1.53M"), (3 << 30, "3.00G")];
        for (bytes, text) in cases {
            assert_eq!(human(bytes), text);
        }
    }
}
