//! One connection as CLIENT LIST and CLIENT INFO print it, and which connections a filter means.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;

use slotcast_wire::args::Args;
use slotcast_wire::number::parse_i64;

use crate::command::error::CommandError;
use crate::session::clients::{Client, Profile};
use crate::session::tracking::Scope;
use crate::time::Millis;

/// One line, its end included. Fields that mean nothing here (there are no databases, no file descriptor to show)
/// have the value that says so.
pub fn line(client: &Client, now: Millis) -> String {
    let profile = client.profile.lock();
    let seconds = |since: Millis| now.saturating_sub(since) / 1000;
    let (unparsed, unsent) = (client.unparsed.load(Relaxed), client.unsent.load(Relaxed));
    let queued = client.queued.load(Relaxed);
    let [channels, patterns, shard_channels] = profile.subscriptions;
    format!(
        "id={} addr={} laddr={} fd=-1 name={} age={} idle={} flags={} db=0 sub={channels} psub={patterns} ssub={shard_channels} \
         multi={} qbuf={} qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl={} oll=0 omem={queued} tot-mem={} events=r \
         cmd={} user=default redir={} resp={} lib-name={} lib-ver={}\n",
        client.id,
        client.addr,
        client.local_addr,
        profile.name,
        seconds(client.since),
        seconds(client.last_active.load(Relaxed)),
        flags(&profile),
        profile.multi,
        unparsed,
        unsent,
        unparsed + unsent + queued,
        if profile.last_command.is_empty() { "NULL" } else { profile.last_command },
        profile.tracking.redirection(),
        profile.resp,
        profile.lib_name,
        profile.lib_version,
    )
}

fn flags(profile: &Profile) -> String {
    let set = [
        (profile.multi >= 0, 'x'),
        (profile.is_subscriber(), 'P'),
        (profile.tracking.on, 't'),
        (profile.redirect_broken, 'R'),
        (profile.tracking.scope == Scope::Broadcast, 'B'),
        (profile.readonly, 'r'),
        (profile.no_evict, 'e'),
        (profile.no_touch, 'T'),
    ];
    let flags: String = set.iter().filter(|(set, _)| *set).map(|(_, letter)| letter).collect();
    if flags.is_empty() { "N".to_owned() } else { flags }
}

/// Redis's client types. Replication uses the node bus, so no connection is a replica's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any connection that does not subscribe to anything.
    Normal,
    /// One that does.
    Subscriber,
    /// No connection.
    Other,
}

impl Kind {
    fn of(client: &Client) -> Self {
        if client.profile.lock().is_subscriber() { Self::Subscriber } else { Self::Normal }
    }

    /// Reads a type's name.
    pub fn parse(name: &[u8]) -> Result<Self, CommandError> {
        match name.to_ascii_lowercase().as_slice() {
            b"normal" => Ok(Self::Normal),
            b"pubsub" => Ok(Self::Subscriber),
            b"master" | b"replica" | b"slave" => Ok(Self::Other),
            _ => {
                let name = String::from_utf8_lossy(name);
                Err(CommandError(format!("ERR Unknown client type '{name}'").into()))
            }
        }
    }
}

/// Which connections are meant. All conditions must hold; an absent one always does.
#[derive(Default)]
pub struct Filter {
    /// These ids; empty: any.
    pub ids: BTreeSet<i64>,
    /// The client's end, `ip:port`.
    pub address: Option<String>,
    /// The server's end, `ip:port`.
    pub local_address: Option<String>,
    /// The type.
    pub kind: Option<Kind>,
    /// Connected for at least so many seconds.
    pub age: Option<u64>,
    /// Not this one.
    pub but: Option<u64>,
}

impl Filter {
    /// CLIENT KILL's options (from the first option on), asked by the connection `me`.
    pub fn for_kill(options: Args<'_>, me: u64) -> Result<Self, CommandError> {
        let mut filter = Self { but: Some(me), ..Self::default() };
        if !options.len().is_multiple_of(2) {
            return Err(CommandError::SYNTAX);
        }
        for at in (0..options.len()).step_by(2) {
            let value = options.at(at + 1);
            let text = || String::from_utf8_lossy(value).into_owned();
            match options.at(at).to_ascii_lowercase().as_slice() {
                b"id" => {
                    let id = parse_i64(value).filter(|id| *id > 0);
                    filter.ids =
                        [id.ok_or(CommandError::text("ERR client-id should be greater than 0"))?].into();
                }
                b"type" => filter.kind = Some(Kind::parse(value)?),
                b"addr" => filter.address = Some(text()),
                b"laddr" => filter.local_address = Some(text()),
                b"user" if value == b"default" => {}
                b"user" => return Err(CommandError(format!("ERR No such user '{}'", text()).into())),
                b"maxage" => {
                    let age = parse_i64(value).and_then(|age| u64::try_from(age).ok()).filter(|age| *age > 0);
                    filter.age =
                        Some(age.ok_or(CommandError::text("ERR maxage is not an integer or out of range"))?);
                }
                b"skipme" if value.eq_ignore_ascii_case(b"yes") => filter.but = Some(me),
                b"skipme" if value.eq_ignore_ascii_case(b"no") => filter.but = None,
                _ => return Err(CommandError::SYNTAX),
            }
        }
        Ok(filter)
    }

    /// Whether it means this connection.
    pub fn admits(&self, client: &Client, now: Millis) -> bool {
        let is = |wanted: &Option<String>, address: std::net::SocketAddr| {
            wanted.as_ref().is_none_or(|wanted| *wanted == address.to_string())
        };
        (self.ids.is_empty() || self.ids.contains(&(client.id as i64)))
            && self.kind.is_none_or(|kind| kind == Kind::of(client))
            && self.age.is_none_or(|age| now.saturating_sub(client.since) / 1000 >= age)
            && self.but != Some(client.id)
            && is(&self.address, client.addr)
            && is(&self.local_address, client.local_addr)
    }
}
