//! What Pub/Sub asks of the dispatcher: what a subscriber may send, which node serves a shard channel, what follows
//! from a session command for the connection's outbox and the tracking table.

use slotcast_wire::args::Args;
use slotcast_wire::redirect::Redirect;
use slotcast_wire::reply::Proto;

use crate::command::error::CommandError;
use crate::command::needs::needs;
use crate::command::spec::{Command, Flags};
use crate::keyspace::locked::Needs;
use crate::pubsub::message::Message;
use crate::server::dispatch::{Dispatch, Step};
use crate::session::entry::Entry;
use crate::session::pubsub::SUBSCRIBING;
use crate::topology::route::{Route, route};
use crate::tracking::backlog::Form;

/// What a session was before a command, as far as others follow it.
pub(super) struct Standing {
    tracking: u64,
    proto: Proto,
    /// How invalidations were told; none: they stay in the queue.
    form: Option<Form>,
    left: u64,
    mark: usize,
}

/// Besides the commands of Pub/Sub itself.
const WHILE_SUBSCRIBED: &[&str] = &["ping", "quit", "reset"];

impl Standing {
    /// Nothing is said of changes in front of the reply.
    pub(super) fn keeping_invalidations(self) -> Self {
        Self { form: None, ..self }
    }
}

impl Dispatch<'_> {
    /// To be taken before a session command runs.
    pub(super) fn standing(&self) -> Standing {
        let (tracking, proto) = (self.session.tracking_changes(), self.session.proto);
        let form = Some(self.session.push_form());
        Standing { tracking, proto, form, left: self.session.subscriptions.left(), mark: self.out.len() }
    }

    /// Lets the outbox and the tracking table follow what a session command has changed. Messages that were queued for
    /// a subscription that has ended, or in a protocol that is no longer spoken, go before the reply that says so.
    pub(super) fn follow(&mut self, before: &Standing) {
        let speaks_otherwise = self.session.proto != before.proto;
        let tracks_otherwise = self.session.tracking_changes() != before.tracking;
        if tracks_otherwise || (speaks_otherwise && self.session.tracking.on) {
            self.server.follow_tracking(self.session, self.outbox);
        }
        if speaks_otherwise || self.session.subscriptions.left() != before.left {
            self.outbox.cut_in(before.form, self.session.proto, before.mark, self.out);
        }
    }

    /// Ends a request of a session with CLIENT REPLY OFF or SKIP: takes the reply back, unless it is a confirmation.
    pub(super) fn mute(&mut self, entry: Option<&Entry>, mark: usize) {
        let confirms = entry.is_some_and(|entry| entry.command.flags.has(SUBSCRIBING));
        if self.session.is_muted() && !confirms {
            self.out.truncate(mark);
        }
        self.session.end_request();
    }

    /// In RESP2 a subscriber's replies could not be told from messages: it may only subscribe and unsubscribe.
    pub(super) fn allowed_while_subscribed(&self, entry: &Entry) -> Result<(), CommandError> {
        let subscribes = entry.command.flags.has(SUBSCRIBING);
        if !self.session.is_confined() || subscribes || WHILE_SUBSCRIBED.contains(&entry.name) {
            return Ok(());
        }
        Err(CommandError(
            format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
                entry.name
            )
            .into(),
        ))
    }

    /// Shard channels are served by every node with a copy of the shard, as Redis has it with replicas: messages go to
    /// all of them. So subscribers stay where they are when the leadership moves.
    pub(super) fn shard_channels(&mut self, command: &'static Command, args: Args<'_>) -> Result<(), Step> {
        if !command.flags.has(Flags::PUBSUB) || command.keys.is_empty() {
            return Ok(());
        }
        let (Some(view), Ok(needs)) = (&self.view, needs(command, args)) else { return Ok(()) };
        match needs {
            Needs::Slot(slot) => match route(view, slot, true) {
                Route::Lead(_) | Route::Follow(_) => Ok(()),
                Route::Redirect(redirect) => Err(self.redirect(&redirect)),
                Route::Park => Err(Step::Park(slot)),
            },
            Needs::Slots(_) => Err(self.redirect(&Redirect::CrossSlot)),
            Needs::Nothing | Needs::Everything => Ok(()),
        }
    }

    /// PUBLISH and SPUBLISH.
    pub(super) fn publish(&mut self, sharded: bool, args: Args<'_>) {
        let message = Message { sharded, channel: args.at(1), payload: args.at(2) };
        match self.server.publisher.publish(message) {
            Ok(receivers) => self.reply().integer(receivers as i64),
            Err(error) => drop(self.error(&error)),
        }
    }
}
