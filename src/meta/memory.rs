//! What a node must know of its life at its next start. Pure: text in, text out.
//!
//! Kept as the write-ahead log's note, so that it is there exactly if the members' logs and votes are.

use serde::{Deserialize, Serialize};

use crate::id::MemberId;
use crate::meta::message::ClusterId;
use crate::topology::Node;

/// A life that belongs to a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Its member of the metadata group.
    pub member: MemberId,
    /// Where the node was, and which incarnation this life is.
    pub node: Node,
}

impl Memory {
    /// As it is kept.
    pub fn encode(&self) -> Vec<u8> {
        // Plain structs with finite numbers always have a JSON form; no note at all begins a new life.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The life to go on with, for a node that is now at `here` (its incarnation does not matter). `Err`: why a new
    /// one must begin.
    pub fn recall(note: &[u8], here: &Node) -> Result<Memory, String> {
        let memory: Memory = serde_json::from_slice(note)
            .map_err(|error| format!("what it noted of its life cannot be read: {error}"))?;
        let Node { host, port, bus, .. } = &memory.node;
        if (host, port, bus) != (&here.host, &here.port, &here.bus) {
            return Err(format!("it was at {host}:{port} (bus {bus}) before, and other nodes know it there"));
        }
        Ok(memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_goes_on_at_the_same_address_only() {
        let node = Node { host: "h".into(), port: 7001, bus: ([127, 0, 0, 1], 17001).into(), incarnation: 5 };
        let memory = Memory { cluster: ClusterId(9), member: 11, node: node.clone() };
        let here = Node { incarnation: 6, ..node.clone() };
        assert_eq!(Memory::recall(&memory.encode(), &here), Ok(memory.clone()));
        for elsewhere in [Node { port: 7002, ..node.clone() }, Node { host: "i".into(), ..node.clone() }] {
            assert!(Memory::recall(&memory.encode(), &elsewhere).unwrap_err().contains("h:7001"));
        }
        assert!(Memory::recall(b"{", &here).is_err());
    }
}
