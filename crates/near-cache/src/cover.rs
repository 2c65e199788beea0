//! Few nodes that together have what is wanted: greedy set cover.
//!
//! The best cover is hard to find and hardly better: greedy takes at most ln(n) + 1 times as many nodes, and with shards
//! laid out in a ring, as slotcast does it, seldom one more.

use std::sync::Arc;

/// A node that could be listened to.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its address.
    pub node: Arc<str>,
    /// Of the shards wanted, those that it has.
    pub shards: Vec<u32>,
    /// It is listened to already: another connection isn't needed.
    pub open: bool,
    /// Among equals the highest is taken. Drawn anew by each client, or all would go to the same node.
    pub rank: u64,
}

/// Nodes, and which shards at which: each shard that any of them has once.
pub fn cover(mut candidates: Vec<Candidate>) -> Vec<(Arc<str>, Vec<u32>)> {
    let mut chosen = Vec::new();
    loop {
        candidates.retain(|candidate| !candidate.shards.is_empty());
        let merit = |candidate: &Candidate| (candidate.open, candidate.shards.len(), candidate.rank);
        let best = (0..candidates.len()).max_by_key(|at| candidates.get(*at).map(merit));
        let Some(best) = best.map(|at| candidates.swap_remove(at)) else { return chosen };
        for other in &mut candidates {
            other.shards.retain(|shard| !best.shards.contains(shard));
        }
        chosen.push((best.node, best.shards));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(node: u32, shards: &[u32], open: bool) -> Candidate {
        Candidate { node: node.to_string().into(), shards: shards.to_vec(), open, rank: node.into() }
    }

    fn ring(nodes: u32, copies: u32) -> Vec<Candidate> {
        let shards = |node| (0..copies).map(|copy| (node + copy) % nodes).collect::<Vec<_>>();
        (0..nodes).map(|node| candidate(node, &shards(node), false)).collect()
    }

    #[test]
    fn each_shard_is_taken_once_from_few_nodes() {
        for (nodes, copies, few) in [(3, 3, 1), (5, 3, 2), (9, 3, 4), (12, 3, 5), (4, 1, 4)] {
            let chosen = cover(ring(nodes, copies));
            let mut shards: Vec<u32> = chosen.iter().flat_map(|(_, shards)| shards.clone()).collect();
            shards.sort();
            assert_eq!(shards, (0..nodes).collect::<Vec<_>>());
            assert!(chosen.len() <= few, "{nodes} nodes, {copies} copies: {chosen:?}");
        }
    }

    #[test]
    fn a_node_that_is_listened_to_already_comes_before_one_that_has_more() {
        let chosen = cover(vec![candidate(1, &[1, 2], false), candidate(0, &[2], true)]);
        let expected = [("0".into(), vec![2]), ("1".into(), vec![1])];
        assert_eq!(chosen, expected);
        assert_eq!(cover(vec![candidate(0, &[], true)]), []);
    }
}
