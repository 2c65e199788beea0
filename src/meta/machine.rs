//! The metadata group's machine: applies changes to the topology and publishes it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::raft::machine::{Cut, InstallError, Local, MAX_SNAPSHOT_CHUNK, Machine, Stager, gathering};
use crate::topology::Topology;
use crate::topology::change::Change;

/// Where the topology is published.
pub type Publisher = watch::Sender<Arc<Topology>>;

/// A topology under a log of [`Change`]s (JSON, one an entry); its snapshot is the topology as JSON.
pub struct MetaMachine {
    publisher: Publisher,
}

impl MetaMachine {
    /// An empty one that publishes each topology in `publisher`.
    pub fn new(publisher: Publisher) -> MetaMachine {
        publisher.send_replace(Arc::default());
        MetaMachine { publisher }
    }
}

/// A change as a log entry.
pub fn encode(change: &Change) -> Bytes {
    // A `Change` has string keys and finite numbers only, so it cannot fail; an empty entry would be skipped.
    serde_json::to_vec(change).unwrap_or_default().into()
}

impl Machine for MetaMachine {
    fn apply(&mut self, index: u64, _term: u64, bytes: &Bytes, _local: Option<Local>) {
        // A change that this version cannot read is skipped, on every node of this version alike.
        match serde_json::from_slice::<Change>(bytes) {
            Ok(change) => {
                let mut topology = Topology::clone(&self.publisher.borrow());
                topology.apply(index, &change);
                self.publisher.send_if_modified(|published| {
                    let changed = topology.epoch != published.epoch;
                    if changed {
                        *published = Arc::new(topology);
                    }
                    changed
                });
            }
            Err(error) => tracing::error!(index, %error, "a topology change cannot be read and is skipped"),
        }
    }

    fn snapshot(&mut self) -> Option<Cut> {
        let topology = Arc::clone(&self.publisher.borrow());
        let json = Bytes::from(serde_json::to_vec(&*topology).unwrap_or_default());
        let chunks: Vec<Bytes> = (0..json.len())
            .step_by(MAX_SNAPSHOT_CHUNK)
            .map(|at| json.slice(at..json.len().min(at + MAX_SNAPSHOT_CHUNK)))
            .collect();
        Some(Box::new(chunks.into_iter().map(Ok)))
    }

    fn stager(&self) -> Stager {
        let publisher = self.publisher.clone();
        gathering(move |chunks| {
            let topology = serde_json::from_slice::<Topology>(&chunks.concat())
                .map_err(|error| InstallError(format!("no topology: {error}")))?;
            publisher.send_replace(Arc::new(topology));
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::id::{GroupId, NodeId};
    use crate::topology::{Leadership, Node};

    fn machine() -> (MetaMachine, watch::Receiver<Arc<Topology>>) {
        let (publisher, topology) = watch::channel(Arc::default());
        (MetaMachine::new(publisher), topology)
    }

    fn form() -> Change {
        let id = NodeId::from_bytes([1; 20]);
        let bus = ([127, 0, 0, 1], 17001).into();
        let node = Node { host: "h".into(), port: 7001, bus, incarnation: u64::MAX };
        let (nodes, meta) = (BTreeMap::from([(id, node)]), BTreeMap::from([(id, 1)]));
        Change::Form { nodes, meta, shards: 3, copies: 1 }
    }

    #[test]
    fn changes_are_applied_and_published_and_others_are_not() {
        let (mut machine, mut topology) = machine();
        machine.apply(4, 1, &encode(&form()), None);
        assert!(topology.has_changed().unwrap());
        assert_eq!(topology.borrow_and_update().epoch, 4);
        machine.apply(5, 1, &encode(&form()), None);
        machine.apply(6, 1, &Bytes::from_static(b"{\"Unheard\":1}"), None);
        assert!(!topology.has_changed().unwrap());
        let leadership = Leadership { term: 1, node: NodeId::from_bytes([1; 20]) };
        machine.apply(7, 1, &encode(&Change::Lead { shard: GroupId(1), leadership }), None);
        assert_eq!(topology.borrow_and_update().epoch, 7);
    }

    #[test]
    fn a_snapshot_brings_the_topology_to_another_member() {
        let ((mut from, sent), (to, received)) = (machine(), machine());
        from.apply(4, 1, &encode(&form()), None);
        let cut = from.snapshot().unwrap();
        from.apply(5, 1, &encode(&form()), None);
        let mut staged = to.stager()();
        cut.for_each(|chunk| staged.take(&chunk.unwrap()).unwrap());
        staged.install().unwrap();
        assert_eq!(*received.borrow(), *sent.borrow());
        let mut nonsense = to.stager()();
        nonsense.take(&Bytes::from_static(b"{")).unwrap();
        assert!(nonsense.install().is_err());
    }
}
