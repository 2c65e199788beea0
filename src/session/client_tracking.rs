//! CLIENT TRACKING and its kin: which invalidations the connection wants, and who is to get them. They only set the
//! session's mode; who remembers what is the tracking room's.

use slotcast_wire::args::Args;
use slotcast_wire::number::parse_i64;
use slotcast_wire::reply::Reply;

use crate::command::error::CommandError;
use crate::session::Session;
use crate::session::context::Context;
use crate::session::tracking::{Scope, Tracking, Wanted};
use crate::session::verdict::Verdict;

/// Reads the options behind ON or OFF.
fn options<'a>(context: &Context, args: Args<'a>) -> Result<Wanted<'a>, CommandError> {
    let mut options = Wanted::default();
    let mut at = 3;
    while let Some(option) = args.get(at) {
        at += 1;
        match (option.to_ascii_lowercase().as_slice(), args.get(at)) {
            (b"bcast", _) => options.broadcast = true,
            (b"optin", _) => options.opt_in = true,
            (b"optout", _) => options.opt_out = true,
            (b"noloop", _) => options.no_loop = true,
            (b"redirect", Some(id)) => {
                if options.redirect != 0 {
                    return Err(CommandError::text(
                        "ERR A client can only redirect to a single other client",
                    ));
                }
                options.redirect = redirect_target(context, id)?;
                at += 1;
            }
            (b"prefix", Some(prefix)) => {
                options.prefixes.push(prefix);
                at += 1;
            }
            _ => return Err(CommandError::SYNTAX),
        }
    }
    Ok(options)
}

/// It has to be there now; it may go later.
fn redirect_target(context: &Context, id: &[u8]) -> Result<u64, CommandError> {
    let id = parse_i64(id).ok_or(CommandError::NOT_INTEGER)?;
    let id = u64::try_from(id).ok().filter(|id| context.clients.contains(*id));
    id.ok_or(CommandError::text("ERR The client ID you want redirect to does not exist"))
}

/// CLIENT TRACKING ON|OFF [REDIRECT id] [PREFIX prefix ...] [BCAST] [OPTIN] [OPTOUT] [NOLOOP].
pub fn tracking(
    session: &mut Session,
    context: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let options = options(context, args)?;
    let tracking = match on_or_off(args.at(2))? {
        true => session.tracking.enabled(&options)?,
        false => Tracking::default(),
    };
    session.track(tracking);
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
    let broken = session.client.profile.lock().redirect_broken;
    let flags: Vec<_> = session.tracking.flags(broken).collect();
    reply.map(3);
    reply.bulk(b"flags");
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"redirect");
    reply.integer(session.tracking.redirection());
    reply.bulk(b"prefixes");
    reply.array(session.tracking.prefixes.len());
    session.tracking.prefixes.iter().for_each(|prefix| reply.bulk(prefix));
    Ok(Verdict::Replied)
}

/// CLIENT GETREDIR.
pub fn redirection(
    session: &mut Session,
    _: &Context,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    reply.integer(session.tracking.redirection());
    Ok(Verdict::Replied)
}

/// CLIENT CACHING YES|NO.
pub fn caching(
    session: &mut Session,
    _: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let scope = session.tracking.scope;
    let refused = match args.at(2).to_ascii_lowercase().as_slice() {
        _ if !session.tracking.on => Some(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
        ),
        b"yes" => (scope != Scope::OptIn)
            .then_some("ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode."),
        b"no" => (scope != Scope::OptOut)
            .then_some("ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode."),
        _ => return Err(CommandError::SYNTAX),
    };
    if let Some(why) = refused {
        return Err(CommandError::text(why));
    }
    session.tracking.caching = true;
    reply.ok();
    Ok(Verdict::Replied)
}

/// Reads ON or OFF.
pub fn on_or_off(word: &[u8]) -> Result<bool, CommandError> {
    match word {
        word if word.eq_ignore_ascii_case(b"on") => Ok(true),
        word if word.eq_ignore_ascii_case(b"off") => Ok(false),
        _ => Err(CommandError::SYNTAX),
    }
}
