//! A member whose log may lack its end, though others have counted on that (the machine died, and the disk had not been
//! waited for).
//!
//! Its vote is whole, so it will never vote twice; but by voting for somebody who lacks what it has forgotten itself it
//! could make a leader that lacks what was committed. So it says nothing and hears nothing until all copies were
//! looked at, and one of them, whose log goes farthest (no committed entry that any copy still has is missing there:
//! Raft's election restriction, Raft thesis §3.6.1, over all members instead of most), is named the *source*. Then it
//! hears the source only (a copy that never was in doubt may be it, and lead still: it is made to stand again), and once it
//! has applied an entry of a term that the source has begun, it is a member like any other.

use std::time::Duration;

use tokio::time::Instant;

use crate::id::MemberId;
use crate::raft::types::Vote;
use crate::raft::wire::Message;

/// No member: their ids begin at 1.
const NOBODY: MemberId = 0;
/// A source that has not led for so long has died meanwhile, or another one has led since.
const PATIENCE: Duration = Duration::from_secs(30);

/// The doubt about one member.
#[derive(Clone, Copy, Debug)]
pub struct Doubt {
    /// The greatest term it had known.
    pub term: u64,
    /// Whom it hears, and since when.
    pub source: Option<(MemberId, Instant)>,
}

impl Doubt {
    /// Whether it may hear this message.
    pub fn admits(&self, message: &Message) -> bool {
        let sender = match message {
            Message::Append { request, .. } => voted_for(&request.vote),
            Message::Vote(request) | Message::PreVote(request) => voted_for(&request.vote),
            Message::SnapshotChunk { transfer, .. } => transfer.0,
            Message::SnapshotEnd { vote, .. } => voted_for(vote),
            Message::Transfer(_) | Message::Flush(_) | Message::Leave(_) => return false,
        };
        self.source.is_some_and(|(source, _)| source == sender)
    }

    /// The answer to a source that has led all the time and has not noticed what was lost here: a greater term, in which
    /// it has to be elected again. Then it compares logs anew.
    pub fn objection(&self, message: &Message) -> Option<Vote> {
        let Message::Append { request, .. } = message else { return None };
        (self.admits(message) && request.vote.leader_id.term <= self.term)
            .then(|| Vote::new(self.term + 1, NOBODY))
    }

    /// Whether an entry of the source's making is applied.
    pub fn is_over(&self, applied_term: Option<u64>) -> bool {
        self.source.is_some() && applied_term > Some(self.term)
    }

    /// Whether it will never end.
    pub fn is_hopeless(&self, now: Instant) -> bool {
        self.source.is_some_and(|(_, since)| since + PATIENCE < now)
    }
}

fn voted_for(vote: &Vote) -> MemberId {
    vote.leader_id.voted_for
}

#[cfg(test)]
mod tests {
    use openraft::raft::{AppendEntriesRequest, VoteRequest};

    use super::*;

    #[test]
    fn it_hears_the_source_only_until_it_has_an_entry_of_its_making() {
        let vote = |member| Message::Vote(VoteRequest::new(Vote::new(9, member), None));
        let mut doubt = Doubt { term: 7, source: None };
        assert!(!doubt.admits(&vote(11)) && !doubt.is_over(Some(8)));
        let now = Instant::now();
        doubt.source = Some((12, now));
        assert!(!doubt.admits(&vote(11)) && doubt.admits(&vote(12)));
        assert!(!doubt.is_over(Some(7)) && !doubt.is_over(None) && doubt.is_over(Some(8)));
        assert!(!doubt.is_hopeless(now) && doubt.is_hopeless(now + PATIENCE * 2));
    }

    #[test]
    fn a_source_that_still_leads_is_told_to_stand_again() {
        let append = |term| Message::Append {
            request: AppendEntriesRequest {
                vote: Vote::new_committed(term, 12),
                prev_log_id: None,
                entries: vec![],
                leader_commit: None,
            },
            under_lease: None,
        };
        let doubt = Doubt { term: 7, source: Some((12, Instant::now())) };
        assert_eq!(doubt.objection(&append(7)), Some(Vote::new(8, NOBODY)));
        assert_eq!(doubt.objection(&append(8)), None);
        let other = Doubt { source: Some((13, Instant::now())), ..doubt };
        assert_eq!(other.objection(&append(7)), None, "it does not hear that one at all");
    }
}
