//! The view turned into what clients are shown: every process once, as master of the slots whose shards it leads.
//!
//! While a shard's leader does not answer, a copy that does is listed in its place (`View::listed`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::id::NodeId;
use crate::topology::Node;
use crate::topology::view::View;

/// One process as clients see it.
pub struct Master<'v> {
    /// Its id.
    pub id: NodeId,
    /// Its addresses.
    pub node: &'v Node,
    /// First and last slot of each range, ascending; neighbouring shards under one leader are one range.
    pub ranges: Vec<(u16, u16)>,
    /// Is it this node?
    pub myself: bool,
    /// Does it answer this node?
    pub answers: bool,
}

impl Master<'_> {
    /// The address to show where a client must find an IP address.
    pub fn ip(&self) -> String {
        match self.hostname() {
            Some(_) => self.node.bus.ip().to_string(),
            None => self.node.host.clone(),
        }
    }

    /// The host name that clients are to use, if they are to use one.
    pub fn hostname(&self) -> Option<&str> {
        self.node.host.parse::<IpAddr>().is_err().then_some(&self.node.host)
    }
}

/// All nodes, by id.
pub fn masters(view: &View) -> Vec<Master<'_>> {
    let mut ranges: BTreeMap<NodeId, Vec<(u16, u16)>> = BTreeMap::new();
    for range in view.topology.slots.ranges() {
        let Some(leader) = view.listed(range.shard) else { continue };
        let ranges = ranges.entry(leader).or_default();
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == range.first => *last = range.last,
            _ => ranges.push((range.first, range.last)),
        }
    }
    let mut masters = Vec::with_capacity(view.topology.nodes.len());
    for (&id, node) in &view.topology.nodes {
        let ranges = ranges.remove(&id).unwrap_or_default();
        let myself = id == view.me;
        let answers = myself || !view.unreachable.contains(&id);
        masters.push(Master { id, node, ranges, myself, answers });
    }
    masters
}
