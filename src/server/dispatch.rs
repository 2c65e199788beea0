//! The spine: one request to what becomes of it.
//!
//! Everything a request can meet is on this screen, in order: the row and its arity, authentication, an open
//! transaction, the session's own commands; then, for data, its slots, the route, and who executes it. What cannot
//! be finished at once comes back as a [`Step`] for the connection to wait on. It doesn't know sockets.

use std::collections::BTreeMap;
use std::sync::Arc;

use slotcast_wire::args::Args;
use slotcast_wire::redirect::Redirect;
use slotcast_wire::reply::Reply;
use smallvec::SmallVec;

use crate::command::error::CommandError;
use crate::command::needs::needs;
use crate::command::spec::{Command, Flags};
use crate::id::GroupId;
use crate::keyspace::Keyspace;
use crate::keyspace::locked::{Lookups, Needs};
use crate::server::batch::Prepared;
use crate::server::outbox::Outbox;
use crate::server::{SINGLE, Server};
use crate::session::entry::Entry;
use crate::session::reading::Reading;
use crate::session::table::resolve;
use crate::session::transaction::Batch;
use crate::session::verdict::{Copies, Verdict};
use crate::session::{Replies, Session};
use crate::shard::Shard;
use crate::shard::unit::Occasion;
use crate::time::Millis;
use crate::topology::route::{Route, route};
use crate::topology::view::View;

/// What became of a request.
pub enum Step {
    /// Its reply is written.
    Done,
    /// The reply is written; close the connection.
    Close,
    /// It is a write for a shard that this node leads: it has to go through the log.
    Propose(Arc<Shard>),
    /// A write to every shard this node leads (FLUSHALL).
    ProposeAll,
    /// A transaction to execute.
    Execute(Batch),
    /// Nobody is known to lead its slot: try again when the routes change, for a while.
    Park(u16),
    /// The shard's lease has run out: confirm the leadership, then try again.
    Confirm(Arc<Shard>),
    /// WAIT, WAITAOF.
    Wait(Copies),
    /// XREAD BLOCK.
    Read(Box<Reading>),
    /// SAVE: wait for its end.
    Saved,
    /// Stop the server.
    Shutdown,
}

/// The requests of one turn of a connection, and what they share: one moment, one view.
pub struct Dispatch<'a> {
    /// The node.
    pub server: &'a Server,
    /// The connection's session.
    pub session: &'a mut Session,
    /// The connection's pushes.
    pub outbox: &'a Arc<Outbox>,
    /// Where replies go.
    pub out: &'a mut Vec<u8>,
    /// The cluster as routed by; `None` in single-node mode.
    pub view: Option<Arc<View>>,
    /// The shards with a copy here.
    pub shards: &'a BTreeMap<GroupId, Arc<Shard>>,
    /// The only shard of single-node mode.
    pub single: Option<&'a Arc<Shard>>,
    /// The turn's wall time.
    pub now: Millis,
    /// Where the turn's random sequence stands.
    pub seed: u64,
    /// Leadership of this shard was confirmed for this turn.
    pub confirmed: Option<GroupId>,
    /// Shards that were read under their lease in this turn: to be checked before the replies leave.
    pub leased: SmallVec<[&'a Arc<Shard>; 2]>,
    /// The keys that the turn's reads looked up.
    pub lookups: Lookups,
}

/// In a cluster, where a transaction is one log entry of one shard.
const WALK_IN_TRANSACTION: CommandError = CommandError::text(
    "ERR In a cluster a command over all keys cannot be part of a transaction: a node may lead several shards",
);

impl<'a> Dispatch<'a> {
    /// A dispatcher for what now happens.
    pub fn new(
        server: &'a Server,
        session: &'a mut Session,
        outbox: &'a Arc<Outbox>,
        out: &'a mut Vec<u8>,
        shards: &'a BTreeMap<GroupId, Arc<Shard>>,
        confirmed: Option<GroupId>,
    ) -> Self {
        let view = server.context.view();
        let single = if view.is_none() { shards.get(&SINGLE) } else { None };
        let seed = single.map_or(0, |shard| shard.stamp.seed());
        let clock = server.context.clock.now();
        // Time goes back for nobody, whichever thread asks.
        let now = single.map_or(clock, |shard| shard.stamp.advance(clock));
        Self {
            server,
            session,
            outbox,
            out,
            view,
            shards,
            single,
            now,
            seed,
            confirmed,
            leased: SmallVec::new(),
            lookups: Lookups::default(),
        }
    }

    /// One parsed request; `buf` begins where the previous one ended.
    #[inline]
    pub fn prepared(&mut self, prepared: &Prepared, buf: &[u8]) -> Step {
        match prepared.entry {
            Some(entry) if entry.session.is_none() && self.session.is_plain() => {
                self.session.last_command = entry.name;
                self.on_keys(entry.command, prepared.args(buf), prepared.slot)
            }
            _ => self.request(prepared.args(buf)),
        }
    }

    /// One request that needs a closer look.
    fn request(&mut self, args: Args<'_>) -> Step {
        let mark = self.out.len();
        let entry = resolve(args);
        let step = match &entry {
            Ok(entry) => self.guarded(entry, args),
            Err(error) => self.refuse(args, error),
        };
        if self.session.replies != Replies::On && matches!(step, Step::Done | Step::Close) {
            self.mute(entry.ok(), mark);
        }
        step
    }

    /// A request of a session that is not plain, or for the session itself.
    fn guarded(&mut self, entry: &Entry, args: Args<'_>) -> Step {
        self.session.last_command = entry.name;
        if !self.session.authenticated && !entry.command.flags.has(Flags::NO_AUTH) {
            self.spoil();
            return self.error(&CommandError::text("NOAUTH Authentication required."));
        }
        if let Err(error) = self.allowed_while_subscribed(entry) {
            self.spoil();
            return self.error(&error);
        }
        if self.session.transaction.is_open() && !entry.at_once {
            return self.queue(entry, args);
        }
        let step = match entry.session {
            Some(_) => self.session_command(entry, args),
            None => self.on_keys(entry.command, args, None),
        };
        let is_over = !matches!(step, Step::Park(_) | Step::Confirm(_));
        self.session.asking &= entry.name == "asking" || !is_over;
        // What CLIENT CACHING says holds for the request behind it and all CLIENT commands between them, as in Redis; or
        // for a whole transaction, which is over when it has been executed.
        let lasts = matches!(step, Step::Execute(_)) || self.session.transaction.is_open();
        self.session.tracking.caching &= !is_over || lasts || entry.name.starts_with("client|");
        step
    }

    fn session_command(&mut self, entry: &Entry, args: Args<'_>) -> Step {
        let Some(run) = entry.session else { return Step::Done };
        if let Err(step) = self.shard_channels(entry.command, args) {
            return step;
        }
        let before = self.standing();
        let mut reply = Reply::new(self.out, self.session.proto);
        let verdict = run(self.session, &self.server.context, args, &mut reply);
        self.follow(&before);
        match verdict {
            Ok(Verdict::Replied) | Ok(Verdict::Tracking) => Step::Done,
            Ok(Verdict::Close) => Step::Close,
            Ok(Verdict::Shutdown) => Step::Shutdown,
            Ok(Verdict::Execute(batch)) => Step::Execute(batch),
            Ok(Verdict::Watch(keys)) => self.watch(keys.as_args()),
            Ok(Verdict::Wait(copies)) => Step::Wait(copies),
            Ok(Verdict::Publish { sharded }) => {
                self.publish(sharded, args);
                Step::Done
            }
            Ok(Verdict::Read(reading)) => Step::Read(reading),
            Ok(Verdict::Saved) => Step::Saved,
            Err(error) => self.error(&error),
        }
    }

    /// Between MULTI and EXEC: checks what can be checked now, and collects.
    fn queue(&mut self, entry: &Entry, args: Args<'_>) -> Step {
        if entry.command.flags.has(Flags::NO_MULTI) {
            self.spoil();
            return self.error(&CommandError::text("ERR Command not allowed inside a transaction"));
        }
        match self.shard_channels(entry.command, args) {
            Err(step @ Step::Park(_)) => return step,
            Err(step) => {
                self.spoil();
                return step;
            }
            Ok(()) => {}
        }
        if entry.session.is_none() {
            let shard = match self.target(entry.command, args, None) {
                Ok((None, Needs::Everything)) => {
                    self.spoil();
                    return self.error(&WALK_IN_TRANSACTION);
                }
                Ok((shard, _)) => shard,
                Err(step @ (Step::Park(_) | Step::Confirm(_))) => return step,
                Err(step) => {
                    self.spoil();
                    return step;
                }
            };
            if entry.command.flags.has(Flags::DENYOOM)
                && let Some(Err(error)) = shard.map(|shard| self.make_room(shard))
            {
                self.spoil();
                return self.error(&error);
            }
        }
        match self.session.transaction.queue(args) {
            Ok(()) => self.reply().simple("QUEUED"),
            Err(_) => return self.error(&CommandError::text("ERR Transaction is too large")),
        }
        Step::Done
    }

    /// A data command: to its shard.
    #[inline]
    fn on_keys(&mut self, command: &'static Command, args: Args<'_>, slot: Option<u16>) -> Step {
        let (shard, needs) = match self.target(command, args, slot) {
            Ok(target) => target,
            Err(step) => return step,
        };
        let Some(shard) = shard else { return self.everywhere(command, args, &needs) };
        if !command.is_write() {
            return self.read(shard, command, args, &needs);
        }
        if command.flags.has(Flags::DENYOOM)
            && let Err(error) = self.make_room(shard)
        {
            return self.error(&error);
        }
        if self.view.is_some() {
            return Step::Propose(shard.clone());
        }
        let occasion = self.occasion(shard);
        shard.write((command, args), &needs, occasion, &mut Reply::new(self.out, self.session.proto));
        Step::Done
    }

    /// The keyspace that holds a slot here, whether or not this node leads it.
    #[inline]
    pub fn keyspace_of(&self, slot: u16) -> Option<&'a Keyspace> {
        let shard = match &self.view {
            None => self.single,
            Some(view) => self.shards.get(&view.topology.slots.owner(slot)?),
        };
        shard.map(|shard| &*shard.keyspace)
    }

    /// Where a data command belongs: its shard (none: it walks all this node leads) and the slots it needs there.
    /// `slot`: that of its only key, if it is known already.
    #[inline]
    pub fn target(
        &mut self,
        command: &Command,
        args: Args<'_>,
        slot: Option<u16>,
    ) -> Result<(Option<&'a Arc<Shard>>, Needs), Step> {
        let Ok(needs) = slot.map_or_else(|| needs(command, args), |slot| Ok(Needs::Slot(slot))) else {
            let error = CommandError::text("ERR Invalid command specified");
            return Err(self.error(&error));
        };
        if let Some(single) = self.single {
            return Ok((Some(single), needs));
        }
        match &needs {
            Needs::Slot(slot) => {
                let readonly = self.session.reads_replicas() && !command.is_write();
                self.shard_of(*slot, readonly).map(|shard| (Some(shard), needs))
            }
            Needs::Slots(_) => Err(self.redirect(&Redirect::CrossSlot)),
            Needs::Nothing | Needs::Everything => Ok((None, needs)),
        }
    }

    /// The shard that serves a slot here, or what to answer.
    pub fn shard_of(&mut self, slot: u16, readonly: bool) -> Result<&'a Arc<Shard>, Step> {
        let Some(view) = &self.view else { return self.single.ok_or(Step::Park(slot)) };
        let shards = self.shards;
        match route(view, slot, readonly) {
            Route::Lead(group) => self.under_lease(shards.get(&group).ok_or(Step::Park(slot))?),
            Route::Follow(group) => match shards.get(&group).filter(|shard| self.is_fresh(shard)) {
                Some(shard) => Ok(shard),
                None => self.shard_of(slot, false),
            },
            Route::Redirect(redirect) => Err(self.redirect(&redirect)),
            Route::Park => Err(Step::Park(slot)),
        }
    }

    #[inline]
    fn read(&mut self, shard: &Arc<Shard>, command: &'static Command, args: Args<'_>, needs: &Needs) -> Step {
        let occasion = self.occasion(shard);
        let reply = &mut Reply::new(self.out, self.session.proto);
        let Lookups { hits, misses } = shard.read((command, args), needs, occasion, reply);
        self.lookups.hits += hits;
        self.lookups.misses += misses;
        Step::Done
    }

    fn watch(&mut self, args: Args<'_>) -> Step {
        for key in args.from(1).iter() {
            let slot = slotcast_wire::slot::slot_of(key);
            let shard = match self.shard_of(slot, false) {
                Ok(shard) => shard,
                Err(step) => return step,
            };
            let stamp = shard.lock(&Needs::Slot(slot), shard.stamp.now()).stamp(key);
            if self.session.transaction.watch(key, stamp).is_err() {
                return self.error(&CommandError::text("ERR Too many watched keys"));
            }
        }
        self.reply().ok();
        Step::Done
    }

    /// When and for whom a request executes here.
    #[inline]
    pub fn occasion(&mut self, shard: &Shard) -> Occasion {
        self.seed = self.seed.wrapping_add(1);
        Occasion {
            now: shard.stamp.for_read(self.now),
            seed: self.seed,
            author: Some(self.session.client.id),
            tracking: self.session.tracking.remembers(),
            stamped: self.session.stamped,
            index: None,
            here: true,
        }
    }

    /// Where replies go.
    pub fn reply(&mut self) -> Reply<'_> {
        Reply::new(self.out, self.session.proto)
    }

    /// Answers with an error.
    pub fn error(&mut self, error: &CommandError) -> Step {
        self.server.context.metrics.note_error(&error.0);
        self.reply().error(&error.0);
        Step::Done
    }

    /// Answers that the request belongs elsewhere.
    pub fn redirect(&mut self, redirect: &Redirect) -> Step {
        let text = redirect.to_string();
        self.server.context.metrics.note_error(&text);
        self.reply().error(&text);
        Step::Done
    }
}
