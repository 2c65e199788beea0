//! CLUSTER: the cluster as clients and tools are told to see it.
//!
//! Every node leads some shards and follows others, but is shown only as master of the slots it leads: several
//! clients lose whole shards, silently, when one address stands in two roles. So [`masters`] turns the view into one
//! master a process, and SLOTS, SHARDS and NODES ([`listing`]) only print that. All nodes print the same, apart from
//! `myself`: tools compare. Nothing here decides about redirects, and nothing but FAILOVER
//! changes the topology.

mod failover;
mod keys;
mod listing;
mod masters;
mod status;

use std::sync::Arc;

use slotcast_wire::args::Args;
use slotcast_wire::reply::Reply;

use crate::command::error::CommandError;
use crate::command::spec::Flags;
use crate::id::NodeId;
use crate::session::cluster::failover::replicated_here;
use crate::session::context::Context;
use crate::session::row::{Refused, Row};
use crate::session::verdict::Verdict;
use crate::session::{CLUSTER_DISABLED, Session};
use crate::topology::view::View;

/// The rows of this room.
pub const ROWS: &[Row] = &[Row::container("cluster", SUBCOMMANDS).refuses(REFUSED).docs(
    "cluster",
    "3.0.0",
    "Depends on subcommand.",
    "A container for commands about the cluster.",
)];

const REFUSED: &[Refused] = &[
    Refused {
        names: &["meet", "forget", "reset", "replicate", "set-config-epoch", "bumpepoch", "saveconfig"],
        why: "the cluster manages its membership itself, from cluster-seeds",
    },
    Refused {
        names: &["addslots", "addslotsrange", "delslots", "delslotsrange", "setslot", "flushslots"],
        why: "the cluster assigns its slots itself",
    },
];

const PUBLIC: Flags = Flags::STALE;
const ADMIN: Flags = Flags::ADMIN.or(Flags::STALE);
const VARIES: &[&str] = &["nondeterministic_output"];

#[rustfmt::skip] // a row reads as a row
const SUBCOMMANDS: &[Row] = &[
    Row::new("slots", 2, slots).flags(PUBLIC).tips(VARIES)
        .docs("cluster", "3.0.0", "O(N) where N is the total number of Cluster nodes", "Returns which node serves which slots."),
    Row::new("shards", 2, shards).flags(PUBLIC).tips(VARIES)
        .docs("cluster", "7.0.0", "O(N) where N is the total number of cluster nodes", "Returns the masters, each with its slots."),
    Row::new("nodes", 2, nodes).flags(PUBLIC).tips(VARIES)
        .docs("cluster", "3.0.0", "O(N) where N is the total number of Cluster nodes", "Returns all nodes, one a line."),
    Row::new("info", 2, info).flags(PUBLIC).tips(VARIES)
        .docs("cluster", "3.0.0", "O(1)", "Returns whether the cluster serves all slots, and some figures."),
    Row::new("myid", 2, my_id).flags(PUBLIC)
        .docs("cluster", "3.0.0", "O(1)", "Returns this node's id."),
    Row::new("myshardid", 2, my_id).flags(PUBLIC.or(Flags::LOADING)).tips(VARIES)
        .docs("cluster", "7.2.0", "O(1)", "Returns this node's id: each node is shown as a shard of its own."),
    Row::new("keyslot", 3, keys::slot).flags(PUBLIC)
        .docs("cluster", "3.0.0", "O(N) where N is the number of bytes in the key", "Returns a key's slot."),
    Row::new("countkeysinslot", 3, keys::count).flags(PUBLIC)
        .docs("cluster", "3.0.0", "O(1)", "Returns how many keys of a slot this node has a copy of."),
    Row::new("getkeysinslot", 4, keys::some).flags(PUBLIC).tips(VARIES)
        .docs("cluster", "3.0.0", "O(N) where N is the number of requested keys", "Returns some keys of a slot this node has a copy of."),
    Row::new("count-failure-reports", 3, failure_reports).flags(ADMIN).tips(VARIES)
        .docs("cluster", "3.0.0", "O(1)", "Returns 1 if this node cannot reach the node, else 0."),
    Row::new("failover", -2, failover).flags(ADMIN.or(Flags::NO_ASYNC_LOADING))
        .docs("cluster", "3.0.0", "O(1)", "Makes this node the home, and so the master, of shards that other nodes lead."),
    Row::new("links", 2, links).flags(PUBLIC).tips(VARIES)
        .docs("cluster", "7.0.0", "O(N) where N is the total number of Cluster nodes", "Returns the peers this node reaches."),
    Row::new("replicas", 3, replicas).flags(ADMIN).tips(VARIES)
        .docs("cluster", "5.0.0", "O(1)", "Returns a master's replicas: none, since each node is shown as a master."),
    Row::new("slaves", 3, replicas).flags(ADMIN).tips(VARIES)
        .docs("cluster", "3.0.0", "O(1)", "The older name of REPLICAS."),
];

fn view(context: &Context) -> Result<Arc<View>, CommandError> {
    context.view().ok_or(CLUSTER_DISABLED)
}

fn slots(
    _: &mut Session,
    context: &Context,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    listing::slots(&masters::masters(&*view(context)?), reply);
    Ok(Verdict::Replied)
}

fn shards(
    _: &mut Session,
    context: &Context,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    listing::shards(&masters::masters(&*view(context)?), reply);
    Ok(Verdict::Replied)
}

fn nodes(
    session: &mut Session,
    context: &Context,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let view = view(context)?;
    let mut text = listing::nodes(&masters::masters(&view), view.topology.epoch);
    if !view.topology.nodes.contains_key(&view.me) {
        let (startup, port) = (&context.config.startup, session.client.local_addr.port());
        text += &listing::stranger(view.me, &startup.announce_host(), port, startup.bus_port());
    }
    reply.verbatim("txt", text.as_bytes());
    Ok(Verdict::Replied)
}

fn info(
    _: &mut Session,
    context: &Context,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let status = status::Status::of(&*view(context)?);
    reply.verbatim("txt", status.text(&context.metrics).as_bytes());
    Ok(Verdict::Replied)
}

fn my_id(
    _: &mut Session,
    context: &Context,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    reply.bulk(view(context)?.me.to_string().as_bytes());
    Ok(Verdict::Replied)
}

fn failure_reports(
    _: &mut Session,
    context: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let view = view(context)?;
    let node = known_node(&view, args.at(2))?;
    reply.integer(i64::from(view.unreachable.contains(&node)));
    Ok(Verdict::Replied)
}

fn failover(
    _: &mut Session,
    context: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let view = view(context)?;
    let mut words = args.from(2).iter().peekable();
    words.next_if(|word| word.eq_ignore_ascii_case(b"force") || word.eq_ignore_ascii_case(b"takeover"));
    let from = words.next().map(|id| known_node(&view, id)).transpose()?;
    if words.next().is_some() {
        return Err(CommandError::SYNTAX);
    }
    let shards = replicated_here(&view, from);
    if shards.is_empty() {
        return Err(CommandError::text("ERR You should send CLUSTER FAILOVER to a replica"));
    }
    for shard in shards {
        let asked = context.homes.as_ref().is_some_and(|homes| homes.try_send(shard).is_ok());
        if !asked {
            return Err(CommandError::text("ERR Too many failovers are asked for already, try again later"));
        }
    }
    reply.ok();
    Ok(Verdict::Replied)
}

/// Redis tells more of a link; what it tells beyond that is not known here.
fn links(
    _: &mut Session,
    context: &Context,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let view = view(context)?;
    let peers = view.topology.nodes.keys().filter(|id| **id != view.me && !view.unreachable.contains(id));
    let peers: Vec<&NodeId> = peers.collect();
    reply.array(peers.len());
    for id in peers {
        reply.map(2);
        reply.bulk(b"direction");
        reply.bulk(b"to");
        reply.bulk(b"node");
        reply.bulk(id.to_string().as_bytes());
    }
    Ok(Verdict::Replied)
}

fn replicas(
    _: &mut Session,
    context: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    known_node(&*view(context)?, args.at(2))?;
    reply.array(0);
    Ok(Verdict::Replied)
}

fn known_node(view: &View, id: &[u8]) -> Result<NodeId, CommandError> {
    let text = String::from_utf8_lossy(id);
    let known = text.parse().ok().filter(|id| view.topology.nodes.contains_key(id) || *id == view.me);
    known.ok_or_else(|| CommandError(format!("ERR Unknown node {text}").into()))
}
