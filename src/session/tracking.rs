//! A connection's tracking mode: what it is told about, and which modes and prefixes go together. Rules and texts are
//! Redis's. It knows no other connections.

use std::collections::BTreeSet;

use crate::command::error::CommandError;

/// Prefixes a connection may name, in number and in bytes together; CLIENT TRACKING refuses more.
pub const MAX_PREFIXES: usize = 1024;
/// See [`MAX_PREFIXES`].
pub const MAX_PREFIX_BYTES: usize = 64 << 10;

/// What a connection that tracks is told about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// The keys it has read.
    #[default]
    Reads,
    /// Those it has read by a request behind CLIENT CACHING YES.
    OptIn,
    /// Those it has read but by a request behind CLIENT CACHING NO.
    OptOut,
    /// All keys that begin in certain ways.
    Broadcast,
}

/// The connection's tracking mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tracking {
    /// Is it on?
    pub on: bool,
    /// See there.
    pub scope: Scope,
    /// It is not told of its own changes.
    pub no_loop: bool,
    /// The connection that is told in its place; 0: none.
    pub redirect: u64,
    /// What broadcast keys begin with. None of them overlap, except that all keys (the empty prefix) may be added.
    pub prefixes: BTreeSet<Box<[u8]>>,
    /// CLIENT CACHING was just sent: it holds for the next request, or the whole transaction that begins with it.
    pub caching: bool,
}

/// CLIENT TRACKING's options.
#[derive(Debug, Default)]
#[allow(missing_docs)] // they are named as they are written
pub struct Wanted<'a> {
    pub broadcast: bool,
    pub opt_in: bool,
    pub opt_out: bool,
    pub no_loop: bool,
    pub redirect: u64,
    pub prefixes: Vec<&'a [u8]>,
}

impl Tracking {
    /// Whether keys that the next request reads are remembered.
    #[inline]
    pub fn remembers(&self) -> bool {
        self.on
            && match self.scope {
                Scope::Reads => true,
                Scope::OptIn => self.caching,
                Scope::OptOut => !self.caching,
                Scope::Broadcast => false,
            }
    }

    /// As clients read it: -1: not tracking; 0: not redirected.
    pub fn redirection(&self) -> i64 {
        if self.on { self.redirect as i64 } else { -1 }
    }

    /// TRACKINGINFO's flags; `broken`: the connection redirected to is gone.
    pub fn flags(&self, broken: bool) -> impl Iterator<Item = &'static str> {
        let flags = [
            (true, if self.on { "on" } else { "off" }),
            (self.scope == Scope::Broadcast, "bcast"),
            (self.scope == Scope::OptIn, "optin"),
            (self.scope == Scope::OptIn && self.caching, "caching-yes"),
            (self.scope == Scope::OptOut, "optout"),
            (self.scope == Scope::OptOut && self.caching, "caching-no"),
            (self.no_loop, "noloop"),
            (broken, "broken_redirect"),
        ];
        flags.into_iter().filter(|(set, _)| *set).map(|(_, flag)| flag)
    }

    /// The mode after `CLIENT TRACKING ON` with these options, or why it cannot be.
    pub fn enabled(&self, wanted: &Wanted<'_>) -> Result<Tracking, CommandError> {
        if !wanted.broadcast && !wanted.prefixes.is_empty() {
            return Err(CommandError::text("ERR PREFIX option requires BCAST mode to be enabled"));
        }
        if self.on && (self.scope == Scope::Broadcast) != wanted.broadcast {
            return Err(SWITCHES_BROADCAST);
        }
        let scope = match (wanted.broadcast, wanted.opt_in, wanted.opt_out) {
            (true, false, false) => Scope::Broadcast,
            (true, ..) => {
                return Err(CommandError::text("ERR OPTIN and OPTOUT are not compatible with BCAST"));
            }
            (_, true, true) => {
                return Err(CommandError::text("ERR You can't specify both OPTIN mode and OPTOUT mode"));
            }
            (_, true, _) => Scope::OptIn,
            (_, _, true) => Scope::OptOut,
            (..) => Scope::Reads,
        };
        if let (Scope::OptIn, Scope::OptOut) | (Scope::OptOut, Scope::OptIn) = (self.scope, scope) {
            return Err(SWITCHES_OPT);
        }
        let prefixes = match scope {
            Scope::Broadcast => self.with_prefixes(&wanted.prefixes)?,
            _ => BTreeSet::new(),
        };
        let (no_loop, redirect, caching) = (wanted.no_loop, wanted.redirect, self.caching);
        Ok(Tracking { on: true, scope, no_loop, redirect, prefixes, caching })
    }

    /// The prefixes with further ones; without further ones, all keys.
    fn with_prefixes(&self, further: &[&[u8]]) -> Result<BTreeSet<Box<[u8]>>, CommandError> {
        for (at, prefix) in further.iter().enumerate() {
            if let Some(other) = self.prefixes.iter().find(|other| overlap(other, prefix)) {
                return Err(overlapping(prefix, "an existing", other));
            }
            if let Some(other) = further[at + 1..].iter().find(|other| overlap(other, prefix)) {
                return Err(overlapping(prefix, "another provided", other));
            }
        }
        let further = if further.is_empty() { &[&b""[..]] } else { further };
        let all: BTreeSet<Box<[u8]>> =
            self.prefixes.iter().cloned().chain(further.iter().map(|prefix| (*prefix).into())).collect();
        if all.len() > MAX_PREFIXES || all.iter().map(|prefix| prefix.len()).sum::<usize>() > MAX_PREFIX_BYTES
        {
            return Err(CommandError::text(
                "ERR Too many prefixes: a connection may name 1024, 64 KiB together",
            ));
        }
        Ok(all)
    }
}

const SWITCHES_BROADCAST: CommandError = CommandError::text(
    "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with a different mode.",
);
const SWITCHES_OPT: CommandError = CommandError::text(
    "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it with a different mode.",
);

/// Whether one is the beginning of the other.
fn overlap(a: &[u8], b: &[u8]) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

fn overlapping(prefix: &[u8], which: &str, other: &[u8]) -> CommandError {
    let (prefix, other) = (String::from_utf8_lossy(prefix), String::from_utf8_lossy(other));
    let text = format!(
        "ERR Prefix '{prefix}' overlaps with {which} prefix '{other}'. Prefixes for a single client must not overlap."
    );
    CommandError(text.into())
}
