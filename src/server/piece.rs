//! Gathering a connection's consecutive requests for one shard into one [`Piece`].
//!
//! The first is a write that has to go through the log. Behind it come the writes for the same shard, and the plain
//! reads between them, which will be executed where their turn comes. The first request that is anything else ends
//! the piece; it is executed when the piece has been answered.

use std::sync::Arc;

use slotcast_wire::args::{Args, OwnedArgs};
use slotcast_wire::request::{Limits, Parsed, Request, RequestParser};
use tokio::sync::oneshot;

use crate::command::needs::needs;
use crate::command::spec::Flags;
use crate::keyspace::locked::Needs;
use crate::server::batch::Prepared;
use crate::server::dispatch::Dispatch;
use crate::server::pending::Pending;
use crate::session::Session;
use crate::session::table::resolve;
use crate::shard::Shard;
use crate::shard::piece::{Piece, PieceReply, Step};
use crate::shard::proposal::put_request;

/// Requests in a piece.
const MAX_STEPS: usize = 1024;
/// Bytes of its writes, unless one alone is larger.
const MAX_BYTES: usize = 128 << 10;

/// What gathering takes.
pub struct Gather<'a, 'd> {
    /// The turn's dispatcher.
    pub dispatch: &'a mut Dispatch<'d>,
    /// The connection's limits.
    pub limits: &'a Limits,
}

impl Gather<'_, '_> {
    /// Submits the piece that begins with `first`, at the start of `buf`.
    pub fn submit(self, shard: &Arc<Shard>, buf: &[u8], first: &Prepared) -> Pending {
        let (mut steps, mut units) = (Vec::new(), Vec::new());
        let mut request = Request::default();
        let mut end = first.consumed();
        steps.push(Step::Logged);
        put_request(first.encoded(buf), &mut units);
        while steps.len() < MAX_STEPS && units.len() < MAX_BYTES && self.dispatch.session.is_plain() {
            let rest = &buf[end..];
            let parsed = RequestParser::default().parse(rest, self.limits, &mut request);
            let Ok(Parsed::Request(consumed)) = parsed else { break };
            match self.step(shard, request.args(rest), units.len() + consumed) {
                Some(Step::Logged) => {
                    put_request(request.encoded(rest), &mut units);
                    steps.push(Step::Logged);
                }
                Some(read) => steps.push(read),
                None => break,
            }
            end += consumed;
        }
        let replies = steps.len();
        let reply = propose(self.dispatch.session, shard, steps, units);
        Pending::Piece { reply, replies, consumed: end, shard: shard.id }
    }

    /// What a request is in this piece; `None`: it ends it. With it the piece's writes come to `planned` bytes.
    fn step(&self, shard: &Shard, args: Args<'_>, planned: usize) -> Option<Step> {
        let entry = resolve(args).ok().filter(|entry| entry.session.is_none())?;
        let Ok(Needs::Slot(slot)) = needs(entry.command, args) else { return None };
        if self.dispatch.view.as_ref()?.topology.slots.owner(slot) != Some(shard.id) {
            return None;
        }
        if !entry.command.is_write() {
            return Some(Step::Read(OwnedArgs::from(args)));
        }
        // One that needs room made for it begins a piece of its own.
        let fits = !entry.command.flags.has(Flags::DENYOOM) || self.dispatch.room_for(shard, planned).is_ok();
        fits.then_some(Step::Logged)
    }
}

/// Hands steps and their units to the shard's proposer.
pub fn propose(
    session: &Session,
    shard: &Shard,
    steps: Vec<Step>,
    units: Vec<u8>,
) -> oneshot::Receiver<PieceReply> {
    let (reply, receiver) = oneshot::channel();
    let (author, tracking) = (Some(session.client.id), session.tracking.remembers());
    let piece = Piece { author, tracking, stamped: session.stamped, proto: session.proto, steps, reply };
    match shard.proposer() {
        Some(proposer) => proposer.submit(piece, units),
        // Its group is not attached yet; the connection tries again, and is surely still there.
        None => drop(piece.reply.send(PieceReply::NotLeader)),
    }
    receiver
}
