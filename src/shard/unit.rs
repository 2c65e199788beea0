//! Executing one unit on a keyspace: the one function that runs in single-node mode, on the leader and on every
//! follower alike.

use slotcast_wire::args::Args;
use slotcast_wire::invalidation::write_stamp;
use slotcast_wire::position::Position;
use slotcast_wire::reply::Reply;
use slotcast_wire::request::{Limits, Parsed, Request, RequestParser};

use crate::command::execute::{execute, note_misses};
use crate::command::needs::{needs, union};
use crate::command::spec::Command;
use crate::command::table;
use crate::keyspace::effect::{Change, Nobody};
use crate::keyspace::locked::{Locked, Lookups, Needs};
use crate::keyspace::slot::Stamp;
use crate::keyspace::territory::Territory;
use crate::shard::Shard;
use crate::time::Millis;

/// One request of a unit, resolved.
pub type Resolved<'a> = (&'static Command, Args<'a>);

/// When and for whom a unit executes.
#[derive(Clone, Copy, Debug)]
pub struct Occasion {
    /// The log's time.
    pub now: Millis,
    /// Start of the unit's random sequence.
    pub seed: u64,
    /// The connection that asked, if it is one of this node's.
    pub author: Option<u64>,
    /// Whether it wants to hear of changes of what it reads here.
    pub tracking: bool,
    /// Whether the replies are to say as of when they are true (CLIENT STAMP).
    pub stamped: bool,
    /// The log entry it is part of; none: it is a read, or runs without a log.
    pub index: Option<u64>,
    /// Whether this node proposed the unit, or serves the read: no other announces the same.
    pub here: bool,
}

impl Shard {
    /// Executes one request that may change keys.
    pub fn write(
        &self,
        (command, args): Resolved<'_>,
        needs: &Needs,
        occasion: Occasion,
        reply: &mut Reply<'_>,
    ) {
        let mut locked = self.lock_for(needs, occasion);
        let mark = reply.mark();
        execute(command, &mut locked, args, reply);
        let remaining = occasion.stamped.then(|| remaining(&locked, (command, args), occasion.now));
        let index = self.conclude(&mut locked, occasion);
        if let Some(remaining) = remaining {
            reply.insert(mark, &self.stamp_of(index, remaining));
        }
    }

    /// Executes one request that only reads, remembering its keys for a tracking connection under the same lock.
    pub fn read(
        &self,
        (command, args): Resolved<'_>,
        needs: &Needs,
        occasion: Occasion,
        reply: &mut Reply<'_>,
    ) -> Lookups {
        let mut locked = Locked::new(&self.keyspace, needs, occasion.now, occasion.seed, &Nobody);
        self.remember((command, args), occasion);
        if occasion.stamped {
            let remaining = remaining(&locked, (command, args), occasion.now);
            reply.raw(&self.stamp_of(self.history.applied(), remaining));
        }
        execute(command, &mut locked, args, reply);
        self.note_lapsed(&mut locked);
        let lookups = locked.lookups();
        if lookups.misses > 0 && self.observer.wants_events(true) {
            locked.events.note(true);
            note_misses(command, &mut locked, args);
            self.observer.announce(true, &locked.events.take());
        }
        lookups
    }

    /// Executes a read that walks over the keys of several shards.
    pub fn read_over(
        &self,
        territory: &dyn Territory,
        (command, args): Resolved<'_>,
        needs: &Needs,
        occasion: Occasion,
        reply: &mut Reply<'_>,
    ) {
        let locked = Locked::new(&self.keyspace, needs, occasion.now, occasion.seed, &Nobody);
        execute(command, &mut locked.over(territory), args, reply);
    }

    /// Executes a transaction: its requests as one, unless a watched key has changed. Writes the replies one after
    /// the other and returns where each ends; `None` (and nothing written): aborted.
    pub fn transaction(
        &self,
        watched: &[(&[u8], Stamp)],
        requests: &[Resolved<'_>],
        occasion: Occasion,
        reply: &mut Reply<'_>,
    ) -> Option<Vec<usize>> {
        let mut locked = self.lock_for(&needs_of_all(watched, requests), occasion);
        if watched.iter().any(|(key, stamp)| locked.stamp(key) != *stamp) {
            return None;
        }
        let start = reply.mark();
        let mut ends = Vec::with_capacity(requests.len());
        for (command, args) in requests {
            if !command.is_write() {
                self.remember((command, *args), occasion);
            }
            execute(command, &mut locked, *args, reply);
            note_misses(command, &mut locked, *args);
            ends.push(reply.mark() - start);
        }
        self.conclude(&mut locked, occasion);
        Some(ends)
    }

    /// Removes keys: those past their deadline as expired, or all of them as evicted. Returns how many went.
    pub fn remove(&self, keys: &[&[u8]], change: Change, occasion: Occasion) -> usize {
        let mut removed = 0;
        for key in keys {
            let mut locked = self.lock_for(&Needs::Slot(slotcast_wire::slot::slot_of(key)), occasion);
            let gone = match change {
                Change::Expired => locked.expire(key),
                _ => locked.take(key, change).is_some(),
            };
            removed += gone as usize;
            self.conclude(&mut locked, occasion);
        }
        self.observer.removed(change, removed);
        removed
    }

    #[inline]
    fn lock_for(&self, needs: &Needs, occasion: Occasion) -> Locked<'_> {
        let mut locked = Locked::new(&self.keyspace, needs, occasion.now, occasion.seed, &*self.observer);
        locked.events.note(self.observer.wants_events(occasion.here));
        locked
    }

    /// Hands the effects over while the locks are still held; returns the index as of which they are there.
    fn conclude(&self, locked: &mut Locked<'_>, occasion: Occasion) -> u64 {
        let events = locked.events.take();
        if !events.is_empty() {
            self.observer.announce(occasion.here, &events);
        }
        let effects = locked.effects();
        match occasion.index {
            Some(index) if effects.is_empty() => index,
            None if effects.is_empty() => self.history.applied(),
            Some(index) => {
                self.observer.observe(index, occasion.author, effects);
                index
            }
            None => self.history.number(|index| {
                self.observer.observe(index, occasion.author, effects);
                self.observer.applied(index);
            }),
        }
    }

    /// The attribute in front of a reply that is true as of this entry.
    pub fn stamp_of(&self, index: u64, remaining: i64) -> Vec<u8> {
        let position = Position { shard: self.id.0, lineage: self.history.lineage(), index };
        let mut stamp = Vec::with_capacity(64);
        write_stamp(&mut stamp, position, remaining);
        stamp
    }

    fn remember(&self, (command, args): Resolved<'_>, occasion: Occasion) {
        let (true, Some(author)) = (occasion.tracking, occasion.author) else { return };
        for position in command.key_positions(args).unwrap_or_default() {
            self.observer.remember(author, args.at(position as usize));
        }
    }
}

/// The remaining time of a request's keys as PTTL says it; of several the least.
fn remaining(locked: &Locked<'_>, (command, args): Resolved<'_>, now: Millis) -> i64 {
    let positions = command.key_positions(args).unwrap_or_default();
    let records = positions.iter().filter_map(|position| locked.live(args.at(*position as usize)));
    let each = records.map(|record| record.expires_at().map_or(i64::MAX, |at| at.saturating_sub(now) as i64));
    match each.min() {
        None => -2,
        Some(i64::MAX) => -1,
        Some(remaining) => remaining,
    }
}

/// The slots of all keys of a transaction; everything if a request of it walks the keyspace.
fn needs_of_all(watched: &[(&[u8], Stamp)], requests: &[Resolved<'_>]) -> Needs {
    let watched = watched.iter().map(|(key, _)| Needs::Slot(slotcast_wire::slot::slot_of(key)));
    let requests = requests.iter().filter_map(|(command, args)| needs(command, *args).ok());
    watched.chain(requests).reduce(union).unwrap_or(Needs::Nothing)
}

/// Parses a request's RESP bytes as they stand in an entry, and finds its row.
pub fn resolve(encoded: &[u8], request: &mut Request) -> Option<&'static Command> {
    let Ok(Parsed::Request(_)) = RequestParser::default().parse(encoded, &Limits::TRUSTED, request) else {
        return None;
    };
    table::resolve(request.args(encoded))
}
