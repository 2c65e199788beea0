//! A group has at most one leader a term.

use std::collections::BTreeMap;

use slotcast::id::{GroupId, MemberId};

use crate::node::Node;
use crate::trace::Trace;

/// Who led when.
#[derive(Default)]
pub struct Leaders {
    by_term: BTreeMap<(GroupId, u64), MemberId>,
}

impl Leaders {
    /// Looks at what a node thinks of itself.
    pub fn look(&mut self, node: usize, life: &Node, trace: &Trace) {
        for group in life.cluster.groups() {
            let state = group.state();
            let state = state.borrow();
            if !state.am_leader {
                continue;
            }
            let (id, me) = (group.id(), group.member());
            let first = *self.by_term.entry((id, state.term)).or_insert_with(|| {
                trace.note(format!("node {node} leads {id} in term {} (member {me})", state.term));
                me
            });
            if first != me {
                trace.violation(format!("{id}: members {first} and {me} both lead in term {}", state.term));
            }
        }
    }

    /// Terms with a leader, over all groups.
    pub fn count(&self) -> usize {
        self.by_term.len()
    }
}
