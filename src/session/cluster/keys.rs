//! CLUSTER KEYSLOT, COUNTKEYSINSLOT, GETKEYSINSLOT. The latter two look at this node's copy of the slot's shard,
//! whether or not it leads it; without a copy here they find no key.

use std::sync::Arc;

use slotcast_wire::args::Args;
use slotcast_wire::number::parse_i64;
use slotcast_wire::reply::Reply;
use slotcast_wire::slot::{SLOTS, slot_of};

use crate::command::error::CommandError;
use crate::keyspace::Keyspace;
use crate::keyspace::effect::Nobody;
use crate::keyspace::locked::{Locked, Needs};
use crate::session::Session;
use crate::session::cluster::view;
use crate::session::context::Context;
use crate::session::verdict::Verdict;

pub fn slot(
    _: &mut Session,
    context: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    view(context)?;
    reply.integer(slot_of(args.at(2)).into());
    Ok(Verdict::Replied)
}

pub fn count(
    _: &mut Session,
    context: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    view(context)?;
    let slot = integer(args.at(2))?;
    let slot = slot_number(slot).ok_or(CommandError::text("ERR Invalid slot"))?;
    reply.integer(copy_of(context, slot)?.map_or(0, |keyspace| keyspace.slot_len(slot)) as i64);
    Ok(Verdict::Replied)
}

pub fn some(
    _: &mut Session,
    context: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    view(context)?;
    let (slot, most) = (integer(args.at(2))?, integer(args.at(3))?);
    let (Some(slot), Ok(most)) = (slot_number(slot), usize::try_from(most)) else {
        return Err(CommandError::text("ERR Invalid slot or number of keys"));
    };
    let Some(keyspace) = copy_of(context, slot)? else {
        reply.array(0);
        return Ok(Verdict::Replied);
    };
    let locked = Locked::new(&keyspace, &Needs::Slot(slot), context.clock.now(), 0, &Nobody);
    locked.walk(slot, |records| {
        let (mark, mut keys) = (reply.mark(), 0);
        for record in records.take(most) {
            reply.bulk(record.key());
            keys += 1;
        }
        reply.array_at(mark, keys);
    });
    Ok(Verdict::Replied)
}

fn integer(arg: &[u8]) -> Result<i64, CommandError> {
    parse_i64(arg).ok_or(CommandError::NOT_INTEGER)
}

fn slot_number(number: i64) -> Option<u16> {
    u16::try_from(number).ok().filter(|slot| usize::from(*slot) < SLOTS)
}

fn copy_of(context: &Context, slot: u16) -> Result<Option<Arc<Keyspace>>, CommandError> {
    let shard = view(context)?.topology.slots.owner(slot);
    Ok(shard.and_then(|shard| context.keyspaces.load().get(&shard).cloned()))
}
