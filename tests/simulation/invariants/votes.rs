//! A member gives one vote a term, and its term never goes back: not in a life, and not over a restart if it comes back
//! as the same member.

use std::collections::BTreeMap;

use slotcast::id::{GroupId, MemberId};

use crate::node::Node;
use crate::trace::Trace;

/// The last term of each member there ever was, and its votes.
#[derive(Default)]
pub struct Votes {
    terms: BTreeMap<(GroupId, MemberId), u64>,
    given: BTreeMap<(GroupId, MemberId, u64), MemberId>,
}

impl Votes {
    /// Looks at what a node's members say.
    pub fn look(&mut self, node: usize, life: &Node, trace: &Trace) {
        for group in life.cluster.groups() {
            let (term, vote) = {
                let state = group.state();
                let state = state.borrow();
                (state.term, state.voted_for)
            };
            let (id, me) = (group.id(), group.member());
            if term == 0 {
                continue; // It has not said anything yet.
            }
            let before = self.terms.insert((id, me), term).unwrap_or(0);
            if before > term {
                trace.violation(format!(
                    "node {node}, {id}: member {me} is back in term {term} after {before}"
                ));
            }
            let Some(vote) = vote else { continue };
            let given = *self.given.entry((id, me, term)).or_insert(vote);
            if given != vote {
                trace.violation(format!(
                    "node {node}, {id}: member {me} gives its vote of term {term} to {given} and to {vote}"
                ));
            }
        }
    }
}
