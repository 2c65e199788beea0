//! When a shard takes writes: one probe per shard and node writes as often as it can, and follows no redirect. So the
//! gap between two writes that worked is the cluster's, not some client's patience.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use slotcast_wire::frame::Frame;
use slotcast_wire::slot::slot_of;
use tokio::time::sleep;

use crate::clock;
use crate::connection::{Connection, request};
use crate::slots::Lead;
use crate::workload::Stop;

/// Between two writes of a probe: how exact a gap is.
const PACE: Duration = Duration::from_millis(10);
/// A probe waits so long for an answer; meanwhile those at the other nodes see what there is to see.
const PATIENCE: Duration = Duration::from_secs(3);

/// When writes to each shard worked.
#[derive(Clone)]
pub struct Probes(Rc<RefCell<Vec<Vec<u64>>>>);

impl Probes {
    /// Starts probing all shards at all nodes.
    pub fn start(shards: &[Lead], nodes: &[SocketAddr], stop: &Stop) -> Probes {
        let probes = Probes(Rc::new(RefCell::new(vec![Vec::new(); shards.len()])));
        for (shard, (slots, _)) in shards.iter().enumerate() {
            let in_shard = |name: &String| slots.contains(&slot_of(name.as_bytes()));
            let Some(name) = (0..).map(|n: u32| format!("probe:{n}")).find(in_shard) else { continue };
            for node in nodes {
                let (probes, stop) = (probes.clone(), stop.clone());
                tokio::task::spawn_local(probes.probe(shard, name.clone(), *node, stop));
            }
        }
        probes
    }

    async fn probe(self, shard: usize, name: String, node: SocketAddr, stop: Stop) {
        let mut connection = None;
        let write = [request(&["SET", &name, "x"])];
        while !stop.get() {
            let mut open = match connection.take() {
                Some(open) => open,
                None => match Connection::open(node).await {
                    Ok(open) => open,
                    Err(_) => {
                        sleep(PACE).await;
                        continue;
                    }
                },
            };
            if let Ok(replies) = open.exchange(&write, PATIENCE).await {
                if matches!(replies[0], Frame::Simple(_)) {
                    self.0.borrow_mut()[shard].push(clock::now());
                }
                connection = Some(open);
            }
            sleep(PACE).await;
        }
    }

    /// The longest time without a write that worked, of those that touch a stretch of time.
    pub fn gap(&self, shard: usize, begin: u64, end: u64) -> Duration {
        longest(&self.0.borrow()[shard], begin, end)
    }
}

fn longest(worked: &[u64], begin: u64, end: u64) -> Duration {
    let first = worked.partition_point(|moment| *moment < begin).saturating_sub(1);
    let touched = worked[first..].windows(2).take_while(|pair| pair[0] < end);
    let gaps = touched.map(|pair| pair[1] - pair[0]);
    // Nothing worked to the end: the gap is at least that.
    let last = worked.last().copied().filter(|last| *last < end).map(|last| end - last.max(begin));
    Duration::from_nanos(gaps.chain(last).max().unwrap_or(end - begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_belongs_to_the_time_it_touches() {
        let worked = [10, 20, 30, 90, 100, 110];
        let gap = |begin, end| longest(&worked, begin, end).as_nanos();
        assert_eq!(gap(32, 95), 60);
        assert_eq!(gap(12, 25), 10);
        assert_eq!(gap(91, 108), 10);
        assert_eq!(gap(105, 200), 90);
        assert_eq!(longest(&[], 5, 9).as_nanos(), 4);
    }
}
