//! Identities: who a node is, which Raft group, which member of it.
//!
//! A node is known by its id, never by its address: addresses move, ids stay with the data directory. A Raft
//! member is one *incarnation* of a node in one group and is never used twice (an id that comes back with an
//! empty log can split a group in two), so it is a number of its own.
//!
//! Knows nothing of sockets, groups' state or where ids are kept.

use std::fmt;
use std::str::FromStr;

use rand::RngCore;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes in a node id.
pub const NODE_ID_LEN: usize = 20;

/// A node: 160 random bits, written as 40 hexadecimal digits (the form Redis Cluster uses, `CLUSTER MYID`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; NODE_ID_LEN]);

/// One Raft member: a (group, node, incarnation). Never reused.
pub type MemberId = u64;

/// A Raft group: 0 is the metadata group, `n` is shard `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupId(pub u32);

impl GroupId {
    /// The group whose machine is the topology.
    pub const META: GroupId = GroupId(0);
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("meta"),
            n => write!(f, "shard-{n}"),
        }
    }
}

/// Why a text is no node id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseNodeIdError;

impl fmt::Display for ParseNodeIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a node id is 40 hexadecimal digits")
    }
}

impl std::error::Error for ParseNodeIdError {}

impl NodeId {
    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; NODE_ID_LEN]) -> NodeId {
        NodeId(bytes)
    }

    /// A fresh id out of `rng`.
    pub fn random(rng: &mut impl RngCore) -> NodeId {
        let mut bytes = [0; NODE_ID_LEN];
        rng.fill_bytes(&mut bytes);
        NodeId(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; NODE_ID_LEN] {
        &self.0
    }

    /// The first eight digits: enough for a log line.
    pub fn short(&self) -> String {
        self.to_string().chars().take(8).collect()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.short())
    }
}

impl FromStr for NodeId {
    type Err = ParseNodeIdError;

    fn from_str(text: &str) -> Result<NodeId, ParseNodeIdError> {
        let digit = |byte: u8| (byte as char).to_digit(16).ok_or(ParseNodeIdError);
        if text.len() != 2 * NODE_ID_LEN {
            return Err(ParseNodeIdError);
        }
        let mut bytes = [0; NODE_ID_LEN];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let &[high, low] = pair else { return Err(ParseNodeIdError) };
            *byte = (digit(high)? << 4 | digit(low)?) as u8;
        }
        Ok(NodeId(bytes))
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<NodeId, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn a_node_id_is_read_back_from_its_forty_digits() {
        let id = NodeId::random(&mut rand::rngs::StdRng::seed_from_u64(7));
        let text = id.to_string();
        assert_eq!(text.len(), 40);
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(text.to_uppercase().parse(), Ok(id));
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<NodeId>(&format!("\"{text}\"")).unwrap(), id);
    }

    #[test]
    fn what_is_not_forty_digits_is_refused() {
        let long = "0".repeat(41);
        let signs = "+f".repeat(20);
        let umlauts = "ä".repeat(20);
        for text in ["", "abc", long.as_str(), signs.as_str(), umlauts.as_str()] {
            assert_eq!(text.parse::<NodeId>(), Err(ParseNodeIdError), "{text:?}");
        }
    }

    #[test]
    fn groups_have_names() {
        assert_eq!(GroupId::META.to_string(), "meta");
        assert_eq!(GroupId(3).to_string(), "shard-3");
    }
}
