//! EXEC: from a batch of queued requests to one unit and one reply.
//!
//! The data requests are executed as one; the session's own commands among them (PING, CLIENT, …) touch no keys and
//! run right after, and all replies are put together in the order of the requests.

use std::sync::Arc;

use slotcast_wire::args::Args;
use slotcast_wire::redirect::Redirect;
use slotcast_wire::reply::Reply;
use slotcast_wire::slot::slot_of;

use crate::command::error::CommandError;
use crate::server::dispatch::{Dispatch, Step};
use crate::session::entry::Entry;
use crate::session::table::resolve;
use crate::session::transaction::Batch;
use crate::session::verdict::Verdict;
use crate::shard::Shard;
use crate::shard::proposal::put_transaction;
use crate::shard::unit::Resolved;

/// What is to be done with a transaction.
pub enum Plan {
    /// Its reply is written.
    Done,
    /// It has to wait (see [`Step`]); then plan again.
    Wait(Step),
    /// It goes through the log of this shard, as these bytes of units.
    Propose(Arc<Shard>, Vec<u8>),
}

impl<'a> Dispatch<'a> {
    /// Executes a transaction, or says what it takes.
    pub fn transaction(&mut self, batch: &Batch) -> Plan {
        let data: Vec<Resolved<'_>> = entries(batch)
            .zip(&batch.requests)
            .filter(|(entry, _)| entry.session.is_none())
            .map(|(entry, args)| (entry.command, args.as_args()))
            .collect();
        let shard = match self.shard_of_all(batch, &data) {
            Ok(Some(shard)) => shard,
            Ok(None) => {
                self.put_together(batch, &[], Some(&[]));
                return Plan::Done;
            }
            Err(Step::Done) => return Plan::Done,
            Err(step) => return Plan::Wait(step),
        };
        if self.view.is_some() && data.iter().any(|(command, _)| command.is_write()) {
            let mut units = Vec::new();
            let requests = entries(batch).zip(&batch.requests).filter(|(entry, _)| entry.session.is_none());
            let requests: Vec<&[u8]> = requests.map(|(_, args)| args.encoded()).collect();
            put_transaction(&batch.watched, requests.into_iter(), &mut units);
            return Plan::Propose(shard.clone(), units);
        }
        let watched: Vec<_> = batch.watched.iter().map(|(key, stamp)| (&**key, *stamp)).collect();
        let mut bytes = Vec::new();
        let occasion = self.occasion(shard);
        let mut reply = Reply::new(&mut bytes, self.session.proto);
        // Taken before: what is read may be newer, never older.
        let stamp = occasion.stamped.then(|| shard.stamp_of(shard.history.applied(), -1));
        let ends = shard.transaction(&watched, &data, occasion, &mut reply);
        self.out.extend_from_slice(&stamp.unwrap_or_default());
        self.put_together(batch, &bytes, ends.as_deref());
        Plan::Done
    }

    /// A request that is no command, or has too few or too many arguments. An EXEC ends its transaction even so.
    #[cold]
    pub(super) fn refuse(&mut self, args: Args<'_>, error: &CommandError) -> Step {
        if args.name().eq_ignore_ascii_case(b"exec") && self.session.transaction.discard() {
            let why = error.0.strip_prefix("ERR ").unwrap_or(&error.0);
            let aborted = format!("EXECABORT Transaction discarded because of: {why}");
            return self.error(&CommandError(aborted.into()));
        }
        self.spoil();
        self.session.tracking.caching &= self.session.transaction.is_open();
        self.error(error)
    }

    /// A request between MULTI and EXEC could not be queued.
    pub(super) fn spoil(&mut self) {
        if self.session.transaction.is_open() {
            self.session.transaction.abort();
        }
    }

    /// The one shard of all keys; none if there are no data requests.
    fn shard_of_all(&mut self, batch: &Batch, data: &[Resolved<'_>]) -> Result<Option<&'a Arc<Shard>>, Step> {
        let mut shard: Option<&'a Arc<Shard>> = None;
        let mut slot = None;
        for (key, _) in &batch.watched {
            let of_key = slot_of(key);
            shard = Some(self.shard_of(of_key, false)?);
            self.same(&mut slot, of_key)?;
        }
        for (command, args) in data {
            let (target, needs) = self.target(command, *args, None)?;
            if let (Some(_), crate::keyspace::locked::Needs::Slot(of_key)) = (&target, needs) {
                self.same(&mut slot, of_key)?;
            }
            // A command without keys walks the shard of the others, or any.
            shard = target.or(shard).or_else(|| self.shards.values().next());
        }
        Ok(shard)
    }

    /// In a cluster all keys of a transaction share one slot.
    fn same(&mut self, slot: &mut Option<u16>, of_key: u16) -> Result<(), Step> {
        if self.view.is_some() && slot.replace(of_key).is_some_and(|other| other != of_key) {
            return Err(self.redirect(&Redirect::CrossSlot));
        }
        Ok(())
    }

    /// Writes EXEC's reply: `bytes` holds the data requests' replies, which end at `ends`; `None`: aborted.
    pub fn put_together(&mut self, batch: &Batch, bytes: &[u8], ends: Option<&[usize]>) {
        let Some(ends) = ends else { return self.reply().null_array() };
        // Invalidations of what the transaction has read may wait already: they must not go before its reply.
        let before = self.standing().keeping_invalidations();
        self.reply().array(batch.requests.len());
        let mut replies = ends.iter().scan(0, |start, end| bytes.get(std::mem::replace(start, *end)..*end));
        for (entry, args) in entries(batch).zip(&batch.requests) {
            match entry.session {
                None => self.out.extend_from_slice(replies.next().unwrap_or_default()),
                Some(run) => {
                    let mut reply = Reply::new(self.out, self.session.proto);
                    match run(self.session, &self.server.context, args.as_args(), &mut reply) {
                        Ok(Verdict::Publish { sharded }) => self.publish(sharded, args.as_args()),
                        Ok(_) => {}
                        Err(error) => drop(self.error(&error)),
                    }
                }
            }
        }
        self.follow(&before);
    }
}

/// Whether CLIENT CACHING YES is among the requests. The data requests are executed before the session's, so it holds
/// for all of them: what is remembered needlessly is told needlessly, and no more.
pub fn opts_in(batch: &Batch) -> bool {
    let mut requests = entries(batch).zip(&batch.requests);
    requests.any(|(entry, args)| {
        entry.name == "client|caching" && args.as_args().at(2).eq_ignore_ascii_case(b"yes")
    })
}

/// The rows of a batch's requests: they were found when the requests were queued, and rows don't change.
fn entries(batch: &Batch) -> impl Iterator<Item = &'static Entry> {
    batch.requests.iter().filter_map(|args| resolve(args.as_args()).ok())
}
