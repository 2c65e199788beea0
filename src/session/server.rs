//! Commands about the node: TIME, ROLE, LOLWUT, WAIT, WAITAOF, MEMORY, SHUTDOWN.

use std::time::Duration;

use slotcast_wire::args::Args;
use slotcast_wire::number::parse_i64;
use slotcast_wire::reply::Reply;

use crate::command::error::CommandError;
use crate::command::spec::Flags;
use crate::config::setting::Durability;
use crate::session::context::Context;
use crate::session::row::{Refused, Row};
use crate::session::verdict::{Copies, Verdict};
use crate::session::{Session, VERSION};

const STOP: Flags = Flags::ADMIN
    .or(Flags::NOSCRIPT)
    .or(Flags::LOADING)
    .or(Flags::STALE)
    .or(Flags::NO_MULTI)
    .or(Flags::ALLOW_BUSY);

/// The rows of this file.
#[rustfmt::skip] // a row reads as a row
pub const ROWS: &[Row] = &[
    Row::new("time", 1, time).flags(Flags::LOADING.or(Flags::STALE).or(Flags::FAST))
        .tips(&["nondeterministic_output"])
        .docs("server", "2.6.0", "O(1)", "Returns the node's time: Unix seconds, and microseconds in the second."),
    Row::new("role", 1, role).flags(Flags::NOSCRIPT.or(Flags::LOADING).or(Flags::STALE).or(Flags::FAST))
        .categories(&["@admin", "@dangerous"])
        .docs("server", "2.8.12", "O(1)", "Returns the node's role: master."),
    Row::new("lolwut", -1, lolwut).flags(Flags::READONLY.or(Flags::FAST))
        .docs("server", "5.0.0", "", "Returns slotcast's version."),
    Row::new("wait", 3, wait).flags(Flags::NOSCRIPT).categories(&["@connection"])
        .tips(&["request_policy:all_shards", "response_policy:agg_min"])
        .docs("generic", "3.0.0", "O(1)", "Waits until as many replicas hold the connection's writes; returns how many do."),
    Row::new("waitaof", 4, waitaof).flags(Flags::NOSCRIPT).categories(&["@connection"])
        .tips(&["request_policy:all_shards", "response_policy:agg_min"])
        .docs("generic", "7.2.0", "O(1)", "Waits until the connection's writes are on this node's disk and on as many replicas' disks; returns on how many they are."),
    Row::container("memory", MEMORY)
        // MEMORY USAGE is about a key: `command::object` has it.
        .refuses(&[Refused { names: &["purge", "malloc-stats"], why: "the allocator looks after itself" }])
        .docs("server", "4.0.0", "Depends on subcommand.", "A container for commands about memory."),
    Row::new("shutdown", -1, shutdown).flags(STOP)
        .docs("server", "1.0.0", "O(1)", "Stops the node in order."),
];

const FIGURES: &[&str] = &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"];

#[rustfmt::skip] // a row reads as a row
const MEMORY: &[Row] = &[
    Row::new("stats", 2, memory_statistics).tips(FIGURES)
        .docs("server", "4.0.0", "O(1)", "Returns figures about the keys' memory."),
    Row::new("doctor", 2, memory_report).tips(FIGURES)
        .docs("server", "4.0.0", "O(1)", "Says in words how memory stands."),
];

fn time(
    _: &mut Session,
    context: &Context,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let now = context.clock.now_micros();
    reply.array(2);
    reply.bulk_integer((now / 1_000_000) as i64);
    reply.bulk_integer((now % 1_000_000) as i64);
    Ok(Verdict::Replied)
}

/// Without replicas, as in CLUSTER SLOTS: their addresses are other masters' addresses.
fn role(_: &mut Session, _: &Context, _: Args<'_>, reply: &mut Reply<'_>) -> Result<Verdict, CommandError> {
    reply.array(3);
    reply.bulk(b"master");
    reply.integer(0);
    reply.array(0);
    Ok(Verdict::Replied)
}

fn lolwut(_: &mut Session, _: &Context, _: Args<'_>, reply: &mut Reply<'_>) -> Result<Verdict, CommandError> {
    reply.verbatim("txt", format!("slotcast ver. {VERSION}\n").as_bytes());
    Ok(Verdict::Replied)
}

/// A single node has no replicas and never will: there is nothing to wait for.
fn wait(
    _: &mut Session,
    context: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let replicas = parse_i64(args.at(1)).ok_or(CommandError::NOT_INTEGER)?;
    let timeout = timeout(args.at(2))?;
    if context.cluster.is_none() {
        reply.integer(0);
        return Ok(Verdict::Replied);
    }
    Ok(Verdict::Wait(Copies { on_disk: None, replicas: usize::try_from(replicas).unwrap_or(0), timeout }))
}

fn waitaof(
    _: &mut Session,
    context: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let local = parse_i64(args.at(1)).ok_or(CommandError::NOT_INTEGER)?;
    if !(0..=1).contains(&local) {
        return Err(CommandError::text("ERR value is out of range, value must between 0 and 1"));
    }
    let replicas = parse_i64(args.at(2)).ok_or(CommandError::NOT_INTEGER)?;
    let replicas = usize::try_from(replicas)
        .map_err(|_| CommandError::text("ERR value is out of range, must be positive"))?;
    let timeout = timeout(args.at(3))?;
    let error = match (&context.cluster, context.config.startup.durability) {
        (None, _) => "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
        (_, Durability::Memory) => {
            "ERR WAITAOF cannot be used when numlocal is set but durability is memory."
        }
        _ => return Ok(Verdict::Wait(Copies { on_disk: Some(local > 0), replicas, timeout })),
    };
    if local > 0 {
        return Err(CommandError::text(error));
    }
    // Nothing is ever on a disk.
    reply.array(2);
    reply.integer(0);
    reply.integer(0);
    Ok(Verdict::Replied)
}

/// Milliseconds; zero: without limit.
fn timeout(word: &[u8]) -> Result<Duration, CommandError> {
    let timeout =
        parse_i64(word).ok_or(CommandError::text("ERR timeout is not an integer or out of range"))?;
    let timeout = u64::try_from(timeout).map_err(|_| CommandError::text("ERR timeout is negative"))?;
    Ok(Duration::from_millis(timeout))
}

/// Keys and bytes of the keyspaces this node holds a copy of.
fn held(context: &Context) -> (u64, u64) {
    let keyspaces = context.keyspaces.load();
    keyspaces.values().map(|keyspace| keyspace.usage()).fold((0, 0), |(keys, bytes), usage| {
        (keys + usage.keys.max(0) as u64, bytes + usage.bytes.max(0) as u64)
    })
}

fn memory_statistics(
    _: &mut Session,
    context: &Context,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let (keys, bytes) = held(context);
    let figures = [
        ("total.allocated", bytes),
        ("keys.count", keys),
        ("keys.bytes-per-key", bytes / keys.max(1)),
        ("dataset.bytes", bytes),
    ];
    reply.map(figures.len());
    for (name, figure) in figures {
        reply.bulk(name.as_bytes());
        reply.integer(figure as i64);
    }
    Ok(Verdict::Replied)
}

fn memory_report(
    _: &mut Session,
    context: &Context,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let (keys, bytes) = held(context);
    let live = context.config.live();
    let text = match live.maxmemory {
        0 => format!("{keys} keys take {bytes} bytes; maxmemory sets no limit.\n"),
        limit => {
            format!("{keys} keys take {bytes} bytes, {} % of maxmemory.\n", bytes.saturating_mul(100) / limit)
        }
    };
    reply.verbatim("txt", text.as_bytes());
    Ok(Verdict::Replied)
}

/// NOSAVE, SAVE, NOW and FORCE are accepted: the log holds what was acknowledged, and there is no reason to wait.
fn shutdown(
    _: &mut Session,
    _: &Context,
    args: Args<'_>,
    _: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    for option in args.from(1) {
        match option.to_ascii_lowercase().as_slice() {
            b"nosave" | b"save" | b"now" | b"force" => {}
            b"abort" => return Err(CommandError::text("ERR No shutdown in progress.")),
            _ => return Err(CommandError::SYNTAX),
        }
    }
    Ok(Verdict::Shutdown)
}
