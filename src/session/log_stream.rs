//! The invalidation logs as streams that ordinary clients can read: XREAD, XRANGE and XINFO STREAM on `__inval__:{tag}`.
//!
//! The key's slot says which shard's; nothing is stored under it. Any node with a copy of the shard answers, whoever leads
//! it, so a client that has lost its connection goes on at another node with the last id it has seen. An id is
//! `index-number`, the change's place in its log entry. An entry is `lineage n key k` or `lineage n flush reason slots
//! a-b,...`; what the log does not reach back to is such a flush too. There are no other streams yet.

use std::sync::Arc;
use std::time::Duration;

use slotcast_wire::args::Args;
use slotcast_wire::number::parse_i64;
use slotcast_wire::redirect::Redirect;
use slotcast_wire::reply::{Proto, Reply};
use slotcast_wire::slot::slot_of;

use crate::command::error::CommandError;
use crate::command::spec::{Find, Flags, KeySpec, one_key};
use crate::id::GroupId;
use crate::session::Session;
use crate::session::context::Context;
use crate::session::following::Lands;
use crate::session::reading::{Reading, write};
use crate::session::row::Row;
use crate::session::verdict::Verdict;
use crate::topology::view::View;
use crate::tracking::excerpt::{Excerpt, Id};
use crate::tracking::ring::Ring;

const READ: Flags = Flags::READONLY;
const STREAM: &[&str] = &["@stream"];
/// Of a subcommand.
const KEY: KeySpec = KeySpec { flags: "RO ACCESS", begin: 2, find: Find::Range { last: 0, step: 1 } };

/// The rows of this file.
#[rustfmt::skip] // a row reads as a row
pub const ROWS: &[Row] = &[
    Row::new("xread", -4, read).flags(READ.or(Flags::BLOCKING).or(Flags::NO_MULTI)).categories(STREAM)
        .docs("stream", "5.0.0", "O(N) with N being the number of elements being returned.",
            "Returns the changes in invalidation logs (__inval__:{tag}) after the ids given. Blocks until there are any, if asked to."),
    Row::new("xrange", -4, range).flags(READ).keys(&[one_key("RO ACCESS")]).categories(STREAM)
        .docs("stream", "5.0.0", "O(N) with N being the number of elements being returned.",
            "Returns the changes in an invalidation log (__inval__:{tag}) within a range of ids."),
    Row::container("xinfo", &[
        Row::new("stream", -3, describe).flags(READ).keys(&[KEY]).categories(STREAM)
            .docs("stream", "5.0.0", "O(1)", "Returns how far an invalidation log (__inval__:{tag}) reaches."),
    ]).docs("stream", "5.0.0", "Depends on subcommand.", "A container for stream introspection commands."),
];

/// What such a key begins with.
const PREFIX: &[u8] = b"__inval__:";
/// Changes in a reply, at most.
const MAX_COUNT: usize = 10_000;
/// Logs read at once.
const MAX_STREAMS: usize = 1024;

const NO_STREAM: CommandError = CommandError::text(
    "ERR Only invalidation logs can be read as streams: the key is __inval__:{tag}, of the shard that owns the tag's slot",
);
const INVALID_ID: CommandError =
    CommandError::text("ERR Invalid stream ID specified as stream command argument");
const UNBALANCED: CommandError = CommandError::text(
    "ERR Unbalanced 'xread' list of streams: for each stream key an ID or '$' must be specified.",
);
const BAD_TIMEOUT: CommandError = CommandError::text("ERR timeout is not an integer or out of range");

/// XREAD [COUNT n] [BLOCK ms] STREAMS key... id...
fn read(
    session: &mut Session,
    context: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    // First of all: from here on no change is left out.
    context.rings.want();
    let reading = parse(args, context, session.proto)?;
    let mut frames = Vec::new();
    if reading.read(context, &mut frames) {
        reply.raw(&frames);
    } else if reading.block.is_some() {
        return Ok(Verdict::Read(Box::new(reading)));
    } else {
        reply.null_array();
    }
    Ok(Verdict::Replied)
}

fn parse(args: Args<'_>, context: &Context, proto: Proto) -> Result<Reading, CommandError> {
    let mut reading = Reading { streams: Vec::new(), count: MAX_COUNT, block: None, proto };
    let mut at = 1;
    loop {
        let word = args.get(at).ok_or(CommandError::SYNTAX)?.to_ascii_uppercase();
        at += 1;
        match word.as_slice() {
            b"STREAMS" => break,
            b"COUNT" => reading.count = count(args.get(at))?,
            b"BLOCK" => {
                let wait = args.get(at).and_then(parse_i64).ok_or(BAD_TIMEOUT)?;
                let wait = u64::try_from(wait).map_err(|_| CommandError::text("ERR timeout is negative"))?;
                reading.block = Some(Duration::from_millis(wait));
            }
            _ => return Err(CommandError::SYNTAX),
        }
        at += 1;
    }
    let rest = args.len() - at;
    if rest == 0 || !rest.is_multiple_of(2) || rest / 2 > MAX_STREAMS {
        return Err(UNBALANCED);
    }
    for n in 0..rest / 2 {
        let (key, id) = (args.at(at + n), args.at(at + rest / 2 + n));
        let (shard, ring) = log_of(key, context)?;
        let after = match id {
            b"$" => Id { index: ring.extent().head, number: u64::MAX },
            id => Id::parse(id, 0).ok_or(INVALID_ID)?,
        };
        reading.streams.push((key.into(), shard, after));
    }
    Ok(reading)
}

/// XRANGE key start end [COUNT n]
fn range(
    _: &mut Session,
    context: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    context.rings.want();
    let (shard, ring) = log_of(args.at(1), context)?;
    let start = match args.at(2) {
        b"-" => Id::default(),
        id => match id.strip_prefix(b"(") {
            Some(id) => Id::parse(id, 0).and_then(Id::next).ok_or(INVALID_ID)?,
            None => Id::parse(id, 0).ok_or(INVALID_ID)?,
        },
    };
    let end = match args.at(3) {
        b"+" => Id::MAX,
        id => match id.strip_prefix(b"(") {
            Some(id) => Id::parse(id, 0).and_then(Id::previous).ok_or(INVALID_ID)?,
            None => Id::parse(id, u64::MAX).ok_or(INVALID_ID)?,
        },
    };
    let count = match args.get(4) {
        None => MAX_COUNT,
        Some(word) if word.eq_ignore_ascii_case(b"count") && args.len() == 6 => count(args.get(5))?,
        Some(_) => return Err(CommandError::SYNTAX),
    };
    let excerpt = match start.previous() {
        Some(after) => Excerpt::after(&ring, after, end, count),
        None => Excerpt::from_floor(&ring, end, count),
    };
    write(&excerpt, &Lands(context.view()), shard, reply);
    Ok(Verdict::Replied)
}

/// XINFO STREAM key
fn describe(
    _: &mut Session,
    context: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let (_, ring) = log_of(args.at(2), context)?;
    let extent = ring.extent();
    reply.map(5);
    for (name, index) in [("last-generated-id", extent.head), ("max-deleted-entry-id", extent.floor)] {
        reply.bulk(name.as_bytes());
        reply.bulk(Id { index, number: u64::MAX }.to_string().as_bytes());
    }
    for (name, value) in [("lineage", extent.lineage), ("bytes", extent.bytes as u64), ("groups", 0)] {
        reply.bulk(name.as_bytes());
        reply.integer(value as i64);
    }
    Ok(Verdict::Replied)
}

fn count(word: Option<&[u8]>) -> Result<usize, CommandError> {
    let count = word.and_then(parse_i64).ok_or(CommandError::NOT_INTEGER)?;
    // As in Redis: none, or less, is no limit; here there is always one.
    Ok(usize::try_from(count).ok().filter(|count| *count > 0).unwrap_or(MAX_COUNT).min(MAX_COUNT))
}

/// The log a key stands for. A node without a copy of the shard names its leader.
fn log_of(key: &[u8], context: &Context) -> Result<(GroupId, Arc<Ring>), CommandError> {
    if !key.starts_with(PREFIX) {
        return Err(NO_STREAM);
    }
    let (slot, view) = (slot_of(key), context.view());
    let here = context.keyspaces.load();
    let shard = match &view {
        Some(view) => view.topology.slots.owner(slot),
        None => here.keys().next().copied(),
    };
    let ring = shard.filter(|shard| here.contains_key(shard)).and_then(|shard| context.rings.ring(shard));
    if let (Some(shard), Some(ring)) = (shard, ring) {
        return Ok((shard, ring));
    }
    let leader = |view: &View| {
        let node = view.topology.nodes.get(&view.master(shard?)?)?;
        let moved = Redirect::Moved { slot, host: node.host.clone(), port: node.port };
        Some(CommandError(moved.to_string().into()))
    };
    Err(view.as_deref().and_then(leader).unwrap_or(CommandError::text("CLUSTERDOWN Hash slot not served")))
}
