//! Who serves which slots, as CLUSTER SLOTS says it.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use slotcast_wire::frame::Frame;

use crate::connection::ask;

/// A node that takes longer to answer this has other worries.
const PATIENCE: Duration = Duration::from_millis(500);

/// A range of slots and the node that leads it.
pub type Lead = (RangeInclusive<u16>, SocketAddr);

/// What a node says, in the order of the slots; `None` if it doesn't answer as it should.
pub async fn leads(node: SocketAddr) -> Option<Vec<Lead>> {
    let Frame::Array(ranges) = ask(node, &["CLUSTER", "SLOTS"], PATIENCE).await? else { return None };
    let mut leads: Vec<Lead> = ranges.iter().map(|range| lead(range, node)).collect::<Option<_>>()?;
    leads.sort_by_key(|(slots, _)| *slots.start());
    Some(leads)
}

/// `[first, last, [ip, port, ...], ...]`; an empty ip means the one that was asked.
fn lead(range: &Frame, asked: SocketAddr) -> Option<Lead> {
    let Frame::Array(parts) = range else { return None };
    let [Frame::Integer(first), Frame::Integer(last), Frame::Array(master), ..] = parts.as_slice() else {
        return None;
    };
    let [ip, Frame::Integer(port), ..] = master.as_slice() else { return None };
    let ip = std::str::from_utf8(ip.as_bytes()?).ok()?;
    let ip = if ip.is_empty() { asked.ip() } else { ip.parse().ok()? };
    let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
    Some((first..=last, SocketAddr::new(ip, u16::try_from(*port).ok()?)))
}
