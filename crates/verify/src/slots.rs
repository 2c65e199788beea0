//! Who serves which slots, as CLUSTER SLOTS says it.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use slotcast_wire::frame::Frame;
use slotcast_wire::range::slot_range;

use crate::connection::ask;

/// A node that takes longer to answer this has other worries.
const PATIENCE: Duration = Duration::from_millis(500);

/// A range of slots and the node that leads it.
pub type Lead = (RangeInclusive<u16>, SocketAddr);

/// What a node says, in the order of the slots; `None` if it doesn't answer as it should.
pub async fn leads(node: SocketAddr) -> Option<Vec<Lead>> {
    let Frame::Array(ranges) = ask(node, &["CLUSTER", "SLOTS"], PATIENCE).await? else { return None };
    let mut leads: Vec<Lead> = ranges.iter().map(|range| slot_range(range, node)).collect::<Option<_>>()?;
    leads.sort_by_key(|(slots, _)| *slots.start());
    Some(leads)
}
