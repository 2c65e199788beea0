//! CLUSTER INFO: does the cluster serve?

use slotcast_wire::slot::SLOTS;

use crate::metrics::Metrics;
use crate::topology::view::View;

/// The figures of CLUSTER INFO.
#[derive(Debug, PartialEq, Eq)]
pub struct Status {
    /// Slots that belong to a shard.
    pub assigned: usize,
    /// Of these, slots whose shard has a leader that answers.
    pub served: usize,
    /// Nodes, this one included.
    pub nodes: usize,
    /// Nodes that lead slots.
    pub masters: usize,
    /// The topology's.
    pub epoch: u64,
}

impl Status {
    /// Reads them off the view.
    pub fn of(view: &View) -> Self {
        let ranges = view.topology.slots.ranges();
        let served = ranges.iter().filter(|range| view.leader(range.shard).is_some());
        let masters = crate::session::cluster::masters::masters(view);
        Self {
            assigned: view.topology.slots.assigned(),
            served: served.map(|range| usize::from(range.last - range.first) + 1).sum(),
            nodes: masters.len().max(1),
            masters: masters.iter().filter(|master| !master.ranges.is_empty()).count(),
            epoch: view.topology.epoch,
        }
    }

    /// The lines.
    pub fn text(&self, metrics: &Metrics) -> String {
        let lines = [
            ("cluster_slots_assigned", self.assigned as u64),
            ("cluster_slots_ok", self.served as u64),
            ("cluster_slots_pfail", 0),
            ("cluster_slots_fail", (self.assigned - self.served) as u64),
            ("cluster_known_nodes", self.nodes as u64),
            ("cluster_size", self.masters as u64),
            ("cluster_current_epoch", self.epoch),
            ("cluster_my_epoch", self.epoch),
            ("cluster_stats_messages_sent", metrics.bus_messages_sent.count()),
            ("cluster_stats_messages_received", metrics.bus_messages_received.count()),
            ("total_cluster_links_buffer_limit_exceeded", 0),
        ];
        let state = if self.served == SLOTS { "ok" } else { "fail" };
        let lines = lines.map(|(name, value)| format!("{name}:{value}\r\n")).concat();
        format!("cluster_state:{state}\r\n{lines}")
    }
}
