//! CLIENT TRACKING and its kin: which invalidations the connection wants. The mode is the session's; the table of
//! who remembers what is the tracking room's.

use slotcast_wire::args::Args;
use slotcast_wire::reply::{Proto, Reply};

use crate::command::error::CommandError;
use crate::session::context::Context;
use crate::session::verdict::Verdict;
use crate::session::{Session, Tracking};

const NEEDS_RESP3: CommandError = CommandError::text(
    "ERR Client tracking can be enabled only in RESP3 mode, since invalidations are pushed on the same connection: send HELLO 3 first",
);

/// CLIENT TRACKING ON|OFF [NOLOOP].
pub fn tracking(
    session: &mut Session,
    _: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let mut wanted = Tracking { on: on_or_off(args.at(2))?, no_loop: false };
    for option in args.from(3) {
        match option.to_ascii_uppercase().as_slice() {
            b"NOLOOP" => wanted.no_loop = true,
            b"REDIRECT" | b"BCAST" | b"PREFIX" | b"OPTIN" | b"OPTOUT" => {
                let option = String::from_utf8_lossy(option).to_uppercase();
                let text = format!("ERR CLIENT TRACKING {option} is not supported yet: use the default mode");
                return Err(CommandError(text.into()));
            }
            _ => return Err(CommandError::SYNTAX),
        }
    }
    if wanted.on && session.proto != Proto::Resp3 {
        return Err(NEEDS_RESP3);
    }
    session.track(if wanted.on { wanted } else { Tracking::default() });
    reply.ok();
    Ok(Verdict::Tracking)
}

/// CLIENT TRACKINGINFO.
pub fn tracking_state(
    session: &mut Session,
    _: &Context,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let flags: &[&str] = match session.tracking {
        Tracking { on: false, .. } => &["off"],
        Tracking { no_loop: true, .. } => &["on", "noloop"],
        Tracking { .. } => &["on"],
    };
    reply.map(3);
    reply.bulk(b"flags");
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"redirect");
    reply.integer(redirect(session));
    reply.bulk(b"prefixes");
    reply.array(0);
    Ok(Verdict::Replied)
}

/// CLIENT GETREDIR.
pub fn redirection(
    session: &mut Session,
    _: &Context,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    reply.integer(redirect(session));
    Ok(Verdict::Replied)
}

/// -1: not tracking; 0: not redirected.
fn redirect(session: &Session) -> i64 {
    if session.tracking.on { 0 } else { -1 }
}

/// CLIENT CACHING: for the modes OPTIN and OPTOUT, which cannot be on.
pub fn caching(
    _: &mut Session,
    _: &Context,
    _: Args<'_>,
    _: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    Err(CommandError::text(
        "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
    ))
}

/// Reads ON or OFF.
pub fn on_or_off(word: &[u8]) -> Result<bool, CommandError> {
    match word {
        word if word.eq_ignore_ascii_case(b"on") => Ok(true),
        word if word.eq_ignore_ascii_case(b"off") => Ok(false),
        _ => Err(CommandError::SYNTAX),
    }
}
