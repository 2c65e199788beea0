//! INVALIDATIONS: the stream of what a cache has to drop, from where it stood.
//!
//! Not Redis's: `CLIENT TRACKING` is, which forgets what it has told. The reply to SUBSCRIBE says of each shard how its
//! part begins; what follows are pushes ([`slotcast_wire::invalidation`]), written by the connection whenever its socket
//! takes more. Here is only what was asked for.

use std::time::Duration;

use slotcast_wire::args::Args;
use slotcast_wire::invalidation::write_ranges;
use slotcast_wire::number::parse_i64;
use slotcast_wire::position::Position;
use slotcast_wire::reply::{Proto, Reply};
use slotcast_wire::slot::SLOTS;

use crate::command::error::CommandError;
use crate::command::spec::Flags;
use crate::id::GroupId;
use crate::session::Session;
use crate::session::context::Context;
use crate::session::following::{Following, Lands};
use crate::session::row::Row;
use crate::session::verdict::Verdict;
use crate::tracking::feed::{Feed, MAX_KEYS, Territory, Wishes};
use crate::tracking::slots::Slots;

const OWN: Flags = Flags::NOSCRIPT.or(Flags::LOADING).or(Flags::STALE).or(Flags::NO_MULTI);

/// The rows of this file.
pub const ROWS: &[Row] = &[Row::container("invalidations", SUBCOMMANDS).docs(
    "connection",
    "8.0.0",
    "Depends on subcommand.",
    "A container for commands about the stream of invalidations.",
)];

#[rustfmt::skip] // a row reads as a row
const SUBCOMMANDS: &[Row] = &[
    Row::new("subscribe", -2, subscribe).flags(OWN)
        .docs("connection", "8.0.0", "O(N) where N is the number of changes since the positions given.",
            "Pushes which keys change, of all shards with a copy here: from positions on that were reached before, or from now on."),
    Row::new("unsubscribe", 2, unsubscribe).flags(OWN)
        .docs("connection", "8.0.0", "O(1)", "Ends the pushes."),
    Row::new("ack", -3, acknowledge).flags(OWN)
        .docs("connection", "8.0.0", "O(1)", "Says how far the pushes have been taken in, for STATUS."),
    Row::new("status", 2, status).flags(OWN)
        .docs("connection", "8.0.0", "O(1)", "Returns each shard's invalidation log and how far this connection has come in it."),
];

/// Prefixes of a subscription.
const MAX_PREFIXES: usize = 64;
/// Bytes of one of them.
const MAX_PREFIX: usize = 1024;
/// Keys a cache may say that it holds.
const MAX_L1: i64 = 1_000_000;
const DEFAULT_HEARTBEAT: Duration = Duration::from_millis(250);

const NEEDS_RESP3: CommandError = CommandError::text(
    "ERR The stream of invalidations needs RESP3, since it is pushed: send HELLO 3 first. XREAD reads the same from __inval__:{tag}",
);
const NOT_SUBSCRIBED: CommandError =
    CommandError::text("ERR This connection has not subscribed: INVALIDATIONS SUBSCRIBE comes first");
const BAD_POSITION: CommandError =
    CommandError::text("ERR Invalid position: shard:lineage:index was expected");

/// What SUBSCRIBE asks for.
struct Asked {
    wishes: Wishes,
    heartbeat: Duration,
    max_delay: Duration,
    from: Vec<Position>,
}

fn subscribe(
    session: &mut Session,
    context: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    if session.proto != Proto::Resp3 {
        return Err(NEEDS_RESP3);
    }
    let Asked { wishes, heartbeat, max_delay, from } = parse(args)?;
    // First of all: from here on no change is left out.
    let mut following = Following::new(Feed::new(wishes), context.rings.clone(), session.client.clone());
    (following.heartbeat, following.max_delay) = (heartbeat, max_delay);
    let lands = Lands(context.view());
    let (rings, here) = (context.rings.all(), context.keyspaces.load());
    let shards = shards(context, &lands);
    reply.map(shards.len());
    for shard in shards {
        let from = from.iter().find(|from| from.shard == shard.0).map(|from| (from.lineage, from.index));
        let (slots, epoch) = lands.slots(shard);
        // A copy whose history isn't known yet has no positions to give.
        let ring = rings.get(&shard).filter(|ring| here.contains_key(&shard) && ring.extent().lineage != 0);
        let (start, position, elsewhere) = match ring {
            Some(ring) => {
                let (start, position) = following.feed.follow(shard, ring, from);
                (start.name(), position, String::new())
            }
            None => {
                following.feed.expect(shard, from);
                ("notserved", Position::default(), master(&lands, shard))
            }
        };
        reply.integer(shard.0.into());
        reply.array(6);
        reply.bulk(start.as_bytes());
        reply.integer(position.lineage as i64);
        reply.integer(position.index as i64);
        reply.integer(epoch as i64);
        write_ranges(reply, &slots.and(&following.feed.wishes().slots).ranges());
        reply.bulk(elsewhere.as_bytes());
    }
    session.follow(Some(Box::new(following)));
    Ok(Verdict::Replied)
}

/// All shards of the cluster.
fn shards(context: &Context, lands: &Lands) -> Vec<GroupId> {
    match &lands.0 {
        Some(view) => view.topology.shards.keys().copied().collect(),
        None => context.keyspaces.load().keys().copied().collect(),
    }
}

/// The address of a shard's leader.
fn master(lands: &Lands, shard: GroupId) -> String {
    let node = lands.0.as_ref().and_then(|view| view.topology.nodes.get(&view.master(shard)?));
    node.map(|node| format!("{}:{}", node.host, node.port)).unwrap_or_default()
}

fn unsubscribe(
    session: &mut Session,
    _: &Context,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    session.follow(None);
    reply.ok();
    Ok(Verdict::Replied)
}

fn acknowledge(
    session: &mut Session,
    _: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let Some(following) = &mut session.following else { return Err(NOT_SUBSCRIBED) };
    let positions: Vec<Position> = args.from(2).iter().map(position).collect::<Result<_, _>>()?;
    positions.into_iter().for_each(|position| following.feed.acknowledge(position));
    reply.ok();
    Ok(Verdict::Replied)
}

fn status(
    session: &mut Session,
    context: &Context,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let rings = context.rings.all();
    let standings: std::collections::BTreeMap<_, _> =
        session.following.iter().flat_map(|following| following.feed.standings()).collect();
    reply.map(rings.len());
    for (shard, ring) in rings.iter() {
        let (extent, standing) = (ring.extent(), standings.get(shard));
        reply.integer(shard.0.into());
        reply.map(4 + 2 * usize::from(standing.is_some()));
        let mut fields = vec![
            ("lineage", extent.lineage),
            ("floor", extent.floor),
            ("head", extent.head),
            ("bytes", extent.bytes as u64),
        ];
        if let Some(standing) = standing {
            fields.extend([("told", standing.told.index), ("acked", standing.acknowledged)]);
        }
        for (name, value) in fields {
            reply.bulk(name.as_bytes());
            reply.integer(value as i64);
        }
    }
    Ok(Verdict::Replied)
}

/// `[PREFIX p]... [SLOTS a-b ...] [L1SIZE n] [HEARTBEAT ms] [MAXDELAY us] [FROM shard:lineage:index ...]`
fn parse(args: Args<'_>) -> Result<Asked, CommandError> {
    let wishes = Wishes { prefixes: Vec::new(), slots: Slots::all(), max_keys: MAX_KEYS };
    let (heartbeat, max_delay) = (DEFAULT_HEARTBEAT, Duration::ZERO);
    let mut asked = Asked { wishes, heartbeat, max_delay, from: Vec::new() };
    let mut words = args.from(2).iter().peekable();
    while let Some(word) = words.next() {
        match word.to_ascii_uppercase().as_slice() {
            b"PREFIX" => {
                let prefix = words.next().ok_or(CommandError::SYNTAX)?;
                if prefix.len() > MAX_PREFIX || asked.wishes.prefixes.len() == MAX_PREFIXES {
                    let text =
                        format!("ERR At most {MAX_PREFIXES} prefixes of {MAX_PREFIX} bytes are allowed");
                    return Err(CommandError(text.into()));
                }
                asked.wishes.prefixes.push(prefix.into());
            }
            b"SLOTS" => {
                let mut slots = Slots::default();
                let first = words.next().and_then(range).ok_or(CommandError::SYNTAX)?;
                first.for_each(|slot| slots.insert(slot));
                while let Some(range) = words.peek().and_then(|word| range(word)) {
                    range.for_each(|slot| slots.insert(slot));
                    words.next();
                }
                asked.wishes.slots = slots;
            }
            b"L1SIZE" => asked.wishes.max_keys = number(words.next(), 1..=MAX_L1)? as usize,
            b"HEARTBEAT" => asked.heartbeat = Duration::from_millis(number(words.next(), 10..=60_000)?),
            b"MAXDELAY" => asked.max_delay = Duration::from_micros(number(words.next(), 0..=1_000_000)?),
            b"FROM" => asked.from = words.by_ref().map(position).collect::<Result<_, _>>()?,
            _ => return Err(CommandError::SYNTAX),
        }
    }
    Ok(asked)
}

fn number(word: Option<&[u8]>, range: std::ops::RangeInclusive<i64>) -> Result<u64, CommandError> {
    let number = word.and_then(parse_i64).filter(|number| range.contains(number));
    number.map(|number| number as u64).ok_or(CommandError::OUT_OF_RANGE)
}

/// `a-b` or `a`.
fn range(word: &[u8]) -> Option<std::ops::RangeInclusive<u16>> {
    let text = std::str::from_utf8(word).ok()?;
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let slot = |text: &str| text.parse::<u16>().ok().filter(|slot| usize::from(*slot) < SLOTS);
    Some(slot(first)?..=slot(last)?).filter(|range| !range.is_empty())
}

fn position(word: &[u8]) -> Result<Position, CommandError> {
    std::str::from_utf8(word).ok().and_then(|text| text.parse().ok()).ok_or(BAD_POSITION)
}
