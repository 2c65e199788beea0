//! Pub/Sub: SUBSCRIBE and its kin, PUBLISH, PUBSUB.
//!
//! A subscription stands twice: in the node's registry, for who publishes, and in the session, for UNSUBSCRIBE without
//! names and for the end of the connection. Both change here. A subscription gets no reply but a confirmation for each
//! name, which in RESP3 is a push. Delivering is the dispatcher's; whether a shard channel is served by this node too.

use slotcast_wire::args::Args;
use slotcast_wire::reply::Reply;

use crate::command::error::CommandError;
use crate::command::spec::{Find, Flags, KeySpec, one_key};
use crate::glob;
use crate::pubsub::registry::Kind;
use crate::session::Session;
use crate::session::context::Context;
use crate::session::row::Row;
use crate::session::verdict::Verdict;

const ALWAYS: Flags = Flags::PUBSUB.or(Flags::LOADING).or(Flags::STALE);
/// The flags of the commands that subscribe and unsubscribe: they answer with confirmations, which are no replies and
/// come under CLIENT REPLY OFF too.
pub const SUBSCRIBING: Flags = ALWAYS.or(Flags::NOSCRIPT);
const PUBLISHING: Flags = ALWAYS.or(Flags::FAST);
/// Shard channels are routed by their slot, as keys are.
const SHARD_CHANNELS: &[KeySpec] =
    &[KeySpec { flags: "not_key", begin: 1, find: Find::Range { last: -1, step: 1 } }];

/// The rows of this file.
#[rustfmt::skip] // a row reads as a row
pub const ROWS: &[Row] = &[
    Row::new("subscribe", -2, subscribe).flags(SUBSCRIBING)
        .docs("pubsub", "2.0.0", "O(N) where N is the number of channels to subscribe to.", "Listens for messages published to channels."),
    Row::new("unsubscribe", -1, unsubscribe).flags(SUBSCRIBING)
        .docs("pubsub", "2.0.0", "O(N) where N is the number of channels to unsubscribe.", "Stops listening to messages posted to channels."),
    Row::new("psubscribe", -2, psubscribe).flags(SUBSCRIBING)
        .docs("pubsub", "2.0.0", "O(N) where N is the number of patterns to subscribe to.", "Listens for messages published to channels that match one or more patterns."),
    Row::new("punsubscribe", -1, punsubscribe).flags(SUBSCRIBING)
        .docs("pubsub", "2.0.0", "O(N) where N is the number of patterns to unsubscribe.", "Stops listening to messages published to channels that match one or more patterns."),
    Row::new("ssubscribe", -2, ssubscribe).flags(SUBSCRIBING).keys(SHARD_CHANNELS)
        .docs("pubsub", "7.0.0", "O(N) where N is the number of shard channels to subscribe to.", "Listens for messages published to shard channels."),
    Row::new("sunsubscribe", -1, sunsubscribe).flags(SUBSCRIBING).keys(SHARD_CHANNELS)
        .docs("pubsub", "7.0.0", "O(N) where N is the number of shard channels to unsubscribe.", "Stops listening to messages posted to shard channels."),
    Row::new("publish", 3, publish).flags(PUBLISHING)
        .docs("pubsub", "2.0.0", "O(N+M) where N is the number of clients subscribed to the receiving channel and M is the total number of subscribed patterns (by any client).",
            "Posts a message to a channel, on all nodes of the cluster."),
    Row::new("spublish", 3, spublish).flags(PUBLISHING).keys(&[one_key("not_key")])
        .docs("pubsub", "7.0.0", "O(N) where N is the number of clients subscribed to the receiving shard channel.", "Posts a message to a shard channel."),
    Row::container("pubsub", SUBCOMMANDS)
        .docs("pubsub", "2.8.0", "Depends on subcommand.", "A container for Pub/Sub commands."),
];

#[rustfmt::skip] // a row reads as a row
const SUBCOMMANDS: &[Row] = &[
    Row::new("channels", -2, channels).flags(ALWAYS)
        .docs("pubsub", "2.8.0", "O(N) where N is the number of active channels, and assuming constant time pattern matching (relatively short channels and patterns)", "Returns the channels with subscribers on this node."),
    Row::new("numsub", -2, numsub).flags(ALWAYS)
        .docs("pubsub", "2.8.0", "O(N) for the NUMSUB subcommand, where N is the number of requested channels", "Returns how many on this node subscribe to channels."),
    Row::new("numpat", 2, numpat).flags(ALWAYS)
        .docs("pubsub", "2.8.0", "O(1)", "Returns how many patterns have subscribers on this node."),
    Row::new("shardchannels", -2, shard_channels).flags(ALWAYS)
        .docs("pubsub", "7.0.0", "O(N) where N is the number of active shard channels, and assuming constant time pattern matching (relatively short shard channels).", "Returns the shard channels with subscribers on this node."),
    Row::new("shardnumsub", -2, shard_numsub).flags(ALWAYS)
        .docs("pubsub", "7.0.0", "O(N) for the SHARDNUMSUB subcommand, where N is the number of requested shard channels", "Returns how many on this node subscribe to shard channels."),
];

const TOO_MANY: CommandError =
    CommandError::text("ERR Too many subscriptions: this connection holds as many as are allowed");

/// The names of a kind's confirmations.
const fn words(kind: Kind) -> (&'static [u8], &'static [u8]) {
    match kind {
        Kind::Channel => (b"subscribe", b"unsubscribe"),
        Kind::Pattern => (b"psubscribe", b"punsubscribe"),
        Kind::Shard => (b"ssubscribe", b"sunsubscribe"),
    }
}

type Ran = Result<Verdict, CommandError>;

fn subscribe(session: &mut Session, context: &Context, args: Args<'_>, reply: &mut Reply<'_>) -> Ran {
    join(session, context, Kind::Channel, args, reply)
}

fn psubscribe(session: &mut Session, context: &Context, args: Args<'_>, reply: &mut Reply<'_>) -> Ran {
    join(session, context, Kind::Pattern, args, reply)
}

fn ssubscribe(session: &mut Session, context: &Context, args: Args<'_>, reply: &mut Reply<'_>) -> Ran {
    join(session, context, Kind::Shard, args, reply)
}

fn unsubscribe(session: &mut Session, context: &Context, args: Args<'_>, reply: &mut Reply<'_>) -> Ran {
    leave(session, context, Kind::Channel, args, reply)
}

fn punsubscribe(session: &mut Session, context: &Context, args: Args<'_>, reply: &mut Reply<'_>) -> Ran {
    leave(session, context, Kind::Pattern, args, reply)
}

fn sunsubscribe(session: &mut Session, context: &Context, args: Args<'_>, reply: &mut Reply<'_>) -> Ran {
    leave(session, context, Kind::Shard, args, reply)
}

fn join(session: &mut Session, context: &Context, kind: Kind, args: Args<'_>, reply: &mut Reply<'_>) -> Ran {
    for name in args.from(1) {
        if session.subscriptions.add(kind, name).map_err(|_| TOO_MANY)? {
            context.subscribers.subscribe(kind, name, session.client.id);
        }
        confirm(session, kind, words(kind).0, Some(name), reply);
    }
    session.show_subscriptions();
    Ok(Verdict::Replied)
}

/// Without names, from all; if there are none, one confirmation says so.
fn leave(session: &mut Session, context: &Context, kind: Kind, args: Args<'_>, reply: &mut Reply<'_>) -> Ran {
    let left = words(kind).1;
    let all = if args.len() == 1 { session.subscriptions.list(kind) } else { Vec::new() };
    let named = args.from(1).iter();
    let names: Vec<&[u8]> = named.chain(all.iter().map(|name| &**name)).collect();
    for name in &names {
        if session.subscriptions.remove(kind, name) {
            context.subscribers.unsubscribe(kind, name, session.client.id);
        }
        confirm(session, kind, left, Some(name), reply);
    }
    if names.is_empty() {
        confirm(session, kind, left, None, reply);
    }
    session.show_subscriptions();
    Ok(Verdict::Replied)
}

fn confirm(session: &Session, kind: Kind, word: &[u8], name: Option<&[u8]>, reply: &mut Reply<'_>) {
    reply.push(3);
    reply.bulk(word);
    match name {
        Some(name) => reply.bulk(name),
        None => reply.null(),
    }
    reply.integer(session.subscriptions.counted_with(kind) as i64);
}

/// Ends all subscriptions without a word: RESET, and the end of a connection.
pub fn leave_all(session: &mut Session, context: &Context) {
    if session.subscriptions.is_empty() {
        return;
    }
    for kind in [Kind::Channel, Kind::Pattern, Kind::Shard] {
        for name in session.subscriptions.take(kind) {
            context.subscribers.unsubscribe(kind, &name, session.client.id);
        }
    }
    session.show_subscriptions();
}

fn publish(_: &mut Session, _: &Context, _: Args<'_>, _: &mut Reply<'_>) -> Ran {
    Ok(Verdict::Publish { sharded: false })
}

fn spublish(_: &mut Session, _: &Context, _: Args<'_>, _: &mut Reply<'_>) -> Ran {
    Ok(Verdict::Publish { sharded: true })
}

fn channels(_: &mut Session, context: &Context, args: Args<'_>, reply: &mut Reply<'_>) -> Ran {
    list(context, Kind::Channel, args, reply)
}

fn shard_channels(_: &mut Session, context: &Context, args: Args<'_>, reply: &mut Reply<'_>) -> Ran {
    list(context, Kind::Shard, args, reply)
}

fn list(context: &Context, kind: Kind, args: Args<'_>, reply: &mut Reply<'_>) -> Ran {
    if args.len() > 3 {
        let word = String::from_utf8_lossy(args.at(1));
        let text =
            format!("ERR unknown subcommand or wrong number of arguments for '{word}'. Try PUBSUB HELP.");
        return Err(CommandError(text.into()));
    }
    let admitted = |name: &[u8]| args.get(2).is_none_or(|pattern| glob::matches(pattern, name));
    let names = context.subscribers.list(kind, admitted);
    reply.array(names.len());
    names.iter().for_each(|name| reply.bulk(name));
    Ok(Verdict::Replied)
}

fn numsub(_: &mut Session, context: &Context, args: Args<'_>, reply: &mut Reply<'_>) -> Ran {
    count(context, Kind::Channel, args, reply)
}

fn shard_numsub(_: &mut Session, context: &Context, args: Args<'_>, reply: &mut Reply<'_>) -> Ran {
    count(context, Kind::Shard, args, reply)
}

/// Names and numbers in turn, in both protocols.
fn count(context: &Context, kind: Kind, args: Args<'_>, reply: &mut Reply<'_>) -> Ran {
    let names = args.from(2);
    reply.array(names.len() * 2);
    for name in names {
        reply.bulk(name);
        reply.integer(context.subscribers.subscribers(kind, name) as i64);
    }
    Ok(Verdict::Replied)
}

fn numpat(_: &mut Session, context: &Context, _: Args<'_>, reply: &mut Reply<'_>) -> Ran {
    reply.integer(context.subscribers.count(Kind::Pattern) as i64);
    Ok(Verdict::Replied)
}
