//! Commands about the connection itself: HELLO, AUTH, PING, ECHO, SELECT, RESET, QUIT, READONLY, READWRITE, ASKING.

use slotcast_wire::args::Args;
use slotcast_wire::number::parse_i64;
use slotcast_wire::reply::{Proto, Reply};

use crate::command::error::CommandError;
use crate::command::spec::Flags;
use crate::session::context::Context;
use crate::session::row::Row;
use crate::session::tracking::Tracking;
use crate::session::transaction::Transaction;
use crate::session::verdict::Verdict;
use crate::session::{CLUSTER_DISABLED, REDIS_VERSION, Replies, Session, client, pubsub};

/// Flags of commands that work before and without everything else.
const FIRST: Flags = Flags::NOSCRIPT
    .or(Flags::LOADING)
    .or(Flags::STALE)
    .or(Flags::FAST)
    .or(Flags::NO_AUTH)
    .or(Flags::ALLOW_BUSY);
const ALWAYS: Flags = Flags::LOADING.or(Flags::STALE).or(Flags::FAST);

/// The rows of this file.
#[rustfmt::skip] // a row reads as a row
pub const ROWS: &[Row] = &[
    Row::new("hello", -1, hello).flags(FIRST)
        .docs("connection", "6.0.0", "O(1)", "Handshakes with the server."),
    Row::new("auth", -2, auth).flags(FIRST)
        .docs("connection", "1.0.0", "O(1)", "Authenticates the connection."),
    Row::new("ping", -1, ping).flags(Flags::FAST)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .docs("connection", "1.0.0", "O(1)", "Returns the server's liveliness response."),
    Row::new("echo", 2, echo).flags(ALWAYS)
        .docs("connection", "1.0.0", "O(1)", "Returns the given string."),
    Row::new("select", 2, select).flags(ALWAYS)
        .docs("connection", "1.0.0", "O(1)", "Changes the selected database; there is only number 0."),
    Row::new("reset", 1, reset).flags(FIRST).at_once()
        .docs("connection", "6.2.0", "O(1)", "Resets the connection."),
    Row::new("quit", -1, quit).flags(FIRST).at_once()
        .docs("connection", "1.0.0", "O(1)", "Closes the connection."),
    Row::new("readonly", 1, readonly).flags(ALWAYS).categories(&["@connection"])
        .docs("cluster", "3.0.0", "O(1)", "Enables read-only queries for a connection to a replica."),
    Row::new("readwrite", 1, readwrite).flags(ALWAYS).categories(&["@connection"])
        .docs("cluster", "3.0.0", "O(1)", "Ends READONLY."),
    Row::new("asking", 1, asking).flags(Flags::FAST).categories(&["@connection"])
        .docs("cluster", "3.0.0", "O(1)", "Sent before a request that follows an -ASK redirect."),
];

const WRONG_PASSWORD: CommandError =
    CommandError::text("WRONGPASS invalid username-password pair or user is disabled.");
const NO_PASSWORD_SET: CommandError = CommandError::text(
    "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
);
const HELLO_NEEDS_AUTH: CommandError = CommandError::text(
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time",
);

/// What HELLO's options ask for.
#[derive(Default)]
struct Hello<'a> {
    proto: Option<Proto>,
    login: Option<(&'a [u8], &'a [u8])>,
    name: Option<String>,
}

fn hello(
    session: &mut Session,
    context: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let asked = parse_hello(args)?;
    if let Some((user, password)) = asked.login {
        log_in(session, context, user, password)?;
    }
    if !session.authenticated {
        return Err(HELLO_NEEDS_AUTH);
    }
    if let Some(name) = asked.name {
        session.client.profile.lock().name = name;
    }
    if let Some(proto) = asked.proto {
        session.speak(proto);
        if proto == Proto::Resp2 {
            session.follow(None);
            session.stamped = false;
        }
    }
    let mut frames = Vec::with_capacity(160);
    describe(session, context, &mut Reply::new(&mut frames, session.proto));
    reply.raw(&frames);
    Ok(Verdict::Replied)
}

fn parse_hello(args: Args<'_>) -> Result<Hello<'_>, CommandError> {
    let mut asked = Hello::default();
    if let Some(version) = args.get(1) {
        asked.proto = Some(match parse_i64(version) {
            Some(2) => Proto::Resp2,
            Some(3) => Proto::Resp3,
            Some(_) => return Err(CommandError::text("NOPROTO unsupported protocol version")),
            None => {
                return Err(CommandError::text("ERR Protocol version is not an integer or out of range"));
            }
        });
    }
    let mut at = 2;
    while let Some(option) = args.get(at) {
        if option.eq_ignore_ascii_case(b"auth") && at + 2 < args.len() {
            asked.login = Some((args.at(at + 1), args.at(at + 2)));
            at += 3;
        } else if option.eq_ignore_ascii_case(b"setname") && at + 1 < args.len() {
            asked.name = Some(client::client_name(args.at(at + 1))?);
            at += 2;
        } else {
            let option = String::from_utf8_lossy(option);
            return Err(CommandError(format!("ERR Syntax error in HELLO option '{option}'").into()));
        }
    }
    Ok(asked)
}

fn describe(session: &Session, context: &Context, reply: &mut Reply<'_>) {
    reply.map(7);
    for (field, text) in [("server", "redis"), ("version", REDIS_VERSION)] {
        reply.bulk(field.as_bytes());
        reply.bulk(text.as_bytes());
    }
    reply.bulk(b"proto");
    reply.integer(if session.proto == Proto::Resp3 { 3 } else { 2 });
    reply.bulk(b"id");
    reply.integer(session.client.id as i64);
    for (field, text) in [("mode", context.mode()), ("role", "master")] {
        reply.bulk(field.as_bytes());
        reply.bulk(text.as_bytes());
    }
    reply.bulk(b"modules");
    reply.array(0);
}

fn auth(
    session: &mut Session,
    context: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let (user, password) = match args.len() {
        2 if context.config.live().requirepass.is_empty() => return Err(NO_PASSWORD_SET),
        2 => (&b"default"[..], args.at(1)),
        3 => (args.at(1), args.at(2)),
        _ => return Err(CommandError::SYNTAX),
    };
    log_in(session, context, user, password)?;
    reply.ok();
    Ok(Verdict::Replied)
}

/// There is one user, `default`; without a password set, any is right.
fn log_in(
    session: &mut Session,
    context: &Context,
    user: &[u8],
    password: &[u8],
) -> Result<(), CommandError> {
    let live = context.config.live();
    let right = live.requirepass.is_empty() || equal_in_constant_time(live.requirepass.as_bytes(), password);
    if user != b"default" || !right {
        return Err(WRONG_PASSWORD);
    }
    session.authenticated = true;
    Ok(())
}

/// Takes as long whatever the first difference is, so that time doesn't tell how much of a guess is right.
fn equal_in_constant_time(secret: &[u8], guess: &[u8]) -> bool {
    let differences = guess.iter().enumerate().fold(0, |differences, (at, byte)| {
        differences | (byte ^ secret.get(at % secret.len().max(1)).copied().unwrap_or(!byte))
    });
    std::hint::black_box(differences) == 0 && secret.len() == guess.len()
}

/// In a RESP2 connection that subscribes to something, the reply has the form of a message.
fn ping(
    session: &mut Session,
    _: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    match args.len() {
        1 | 2 if session.is_confined() => {
            reply.array(2);
            reply.bulk(b"pong");
            reply.bulk(args.get(1).unwrap_or_default());
        }
        1 => reply.simple("PONG"),
        2 => reply.bulk(args.at(1)),
        _ => return Err(CommandError::arity("ping")),
    }
    Ok(Verdict::Replied)
}

fn echo(
    _: &mut Session,
    _: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    reply.bulk(args.at(1));
    Ok(Verdict::Replied)
}

fn select(
    _: &mut Session,
    context: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    match parse_i64(args.at(1)).and_then(|number| i32::try_from(number).ok()) {
        None => Err(CommandError::NOT_INTEGER),
        Some(0) => {
            reply.ok();
            Ok(Verdict::Replied)
        }
        Some(_) if context.cluster.is_some() => {
            Err(CommandError::text("ERR SELECT is not allowed in cluster mode"))
        }
        Some(_) => Err(CommandError::text("ERR DB index is out of range")),
    }
}

fn reset(
    session: &mut Session,
    context: &Context,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    session.speak(Proto::Resp2);
    session.authenticated = context.config.live().requirepass.is_empty();
    session.accept_replicas(false);
    session.linearizable = false;
    session.asking = false;
    session.replies = Replies::On;
    session.transaction = Transaction::default();
    session.track(Tracking::default());
    session.follow(None);
    session.stamped = false;
    pubsub::leave_all(session, context);
    session.no_touch = false;
    let mut profile = session.client.profile.lock();
    profile.name.clear();
    (profile.no_evict, profile.no_touch) = (false, false);
    reply.simple("RESET");
    Ok(Verdict::Tracking)
}

fn quit(_: &mut Session, _: &Context, _: Args<'_>, reply: &mut Reply<'_>) -> Result<Verdict, CommandError> {
    reply.ok();
    Ok(Verdict::Close)
}

fn readonly(
    session: &mut Session,
    context: &Context,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    in_cluster(context)?;
    session.accept_replicas(true);
    reply.ok();
    Ok(Verdict::Replied)
}

fn readwrite(
    session: &mut Session,
    context: &Context,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    in_cluster(context)?;
    session.accept_replicas(false);
    reply.ok();
    Ok(Verdict::Replied)
}

fn asking(
    session: &mut Session,
    context: &Context,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    in_cluster(context)?;
    session.asking = true;
    reply.ok();
    Ok(Verdict::Replied)
}

fn in_cluster(context: &Context) -> Result<(), CommandError> {
    if context.cluster.is_some() { Ok(()) } else { Err(CLUSTER_DISABLED) }
}
