//! CLUSTER SLOTS, SHARDS and NODES: three prints of the same masters.

use slotcast_wire::reply::Reply;

use crate::id::NodeId;
use crate::session::cluster::masters::Master;

/// CLUSTER SLOTS: a range an entry, ascending: `[first, last, [host, port, id, metadata]]`.
pub fn slots(masters: &[Master<'_>], reply: &mut Reply<'_>) {
    let mut entries: Vec<((u16, u16), &Master<'_>)> =
        masters.iter().flat_map(|master| master.ranges.iter().map(move |range| (*range, master))).collect();
    entries.sort_by_key(|(range, _)| *range);
    reply.array(entries.len());
    for ((first, last), master) in entries {
        reply.array(3);
        reply.integer(first.into());
        reply.integer(last.into());
        reply.array(4);
        reply.bulk(master.node.host.as_bytes());
        reply.integer(master.node.port.into());
        reply.bulk(master.id.to_string().as_bytes());
        // The address a host name stands for, for clients that cannot resolve it.
        match master.hostname() {
            Some(_) => {
                reply.map(1);
                reply.bulk(b"ip");
                reply.bulk(master.ip().as_bytes());
            }
            None => reply.map(0),
        }
    }
}

/// CLUSTER SHARDS: one entry a master with all its ranges (a client keeps one entry an address).
pub fn shards(masters: &[Master<'_>], reply: &mut Reply<'_>) {
    reply.array(masters.len());
    for master in masters {
        reply.map(2);
        reply.bulk(b"slots");
        reply.array(2 * master.ranges.len());
        for (first, last) in &master.ranges {
            reply.integer((*first).into());
            reply.integer((*last).into());
        }
        reply.bulk(b"nodes");
        reply.array(1);
        shard_node(master, reply);
    }
}

fn shard_node(master: &Master<'_>, reply: &mut Reply<'_>) {
    let hostname = master.hostname();
    reply.map(7 + usize::from(hostname.is_some()));
    let text = |reply: &mut Reply<'_>, field: &str, value: &str| {
        reply.bulk(field.as_bytes());
        reply.bulk(value.as_bytes());
    };
    text(reply, "id", &master.id.to_string());
    reply.bulk(b"port");
    reply.integer(master.node.port.into());
    text(reply, "ip", &master.ip());
    text(reply, "endpoint", &master.node.host);
    if let Some(hostname) = hostname {
        text(reply, "hostname", hostname);
    }
    text(reply, "role", "master");
    reply.bulk(b"replication-offset");
    reply.integer(0);
    text(reply, "health", if master.answers { "online" } else { "fail" });
}

/// CLUSTER NODES: `id ip:port@bus-port[,hostname] flags - ping pong epoch link ranges`, a line a node. Nodes here
/// exchange no pings of their own, so both times are 0; the epoch is the topology's, the same for all.
pub fn nodes(masters: &[Master<'_>], epoch: u64) -> String {
    masters.iter().map(|master| node(master, epoch)).collect()
}

fn node(master: &Master<'_>, epoch: u64) -> String {
    let hostname = master.hostname().map(|name| format!(",{name}")).unwrap_or_default();
    let (ip, port, bus_port) = (master.ip(), master.node.port, master.node.bus.port());
    let flags = match (master.myself, master.answers) {
        (true, _) => "myself,master",
        (false, true) => "master",
        (false, false) => "master,fail",
    };
    let link = if master.answers { "connected" } else { "disconnected" };
    let ranges: String = master
        .ranges
        .iter()
        .map(|(first, last)| if first == last { format!(" {first}") } else { format!(" {first}-{last}") })
        .collect();
    format!("{} {ip}:{port}@{bus_port}{hostname} {flags} - 0 0 {epoch} {link}{ranges}\n", master.id)
}

/// The line of this node while it belongs to no cluster yet.
pub fn stranger(id: NodeId, host: &str, port: u16, bus_port: u16) -> String {
    format!("{id} {host}:{port}@{bus_port} myself,master - 0 0 0 connected\n")
}
