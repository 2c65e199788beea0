//! A member whose log may lack its end, though others have counted on that (the machine died, and the disk had not been
//! waited for).
//!
//! Its vote is whole, so it will never vote twice; but by voting for somebody who lacks what it has forgotten itself it
//! could make a leader that lacks what was committed. So it says nothing and hears nothing until all copies were
//! looked at, and one of them, whose log goes farthest (no committed entry that any copy still has is missing there:
//! Raft's election restriction, Raft thesis §3.6.1, over all members instead of most), is named the *source*. Then it
//! votes for the source only (a copy that never was in doubt may be it, and lead still: it is made to stand again).
//!
//! It follows the source, and whoever leads in a term later than any it had known: another may have been elected
//! before this member heard the source. Such a leader got no vote from here, so it has all that was committed; and it was
//! never told here that anything is on this disk. Once an entry of such a term is applied here, all that may be missing,
//! which is older, is there again, and this is a member like any other.

use std::time::Duration;

use tokio::time::Instant;

use crate::id::MemberId;
use crate::raft::types::Vote;
use crate::raft::wire::Message;

/// No member: their ids begin at 1. As a source: the group has a leader, and this member votes for nobody.
pub const NOBODY: MemberId = 0;
/// A source that has not led for so long has died meanwhile, or another one has led since.
const PATIENCE: Duration = Duration::from_secs(30);

/// The doubt about one member.
#[derive(Clone, Copy, Debug)]
pub struct Doubt {
    /// The greatest term it had known.
    pub term: u64,
    /// Whom it votes for, and since when.
    pub source: Option<(MemberId, Instant)>,
}

impl Doubt {
    /// Whether it may hear this message.
    pub fn admits(&self, message: &Message) -> bool {
        let Some((source, _)) = self.source else { return false };
        let is_source = |vote: &Vote| vote.leader_id.voted_for == source;
        let leads = |vote: &Vote| is_source(vote) || vote.leader_id.term > self.term;
        match message {
            Message::Append { request, .. } => leads(&request.vote),
            Message::Vote(request) | Message::PreVote(request) => is_source(&request.vote),
            // It is of no effect before its end is admitted.
            Message::SnapshotChunk { .. } => true,
            Message::SnapshotEnd { vote, .. } => leads(vote),
            Message::Transfer(_) | Message::Flush(_) | Message::Leave(_) => false,
        }
    }

    /// The answer to whoever has led all the time and has not noticed what was lost here: a greater term, in which
    /// somebody has to be elected again. Then logs are compared anew.
    pub fn objection(&self, message: &Message) -> Option<Vote> {
        let Message::Append { request, .. } = message else { return None };
        (self.source.is_some() && request.vote.leader_id.term <= self.term)
            .then(|| Vote::new(self.term + 1, NOBODY))
    }

    /// Whether an entry of a term later than any it had known is applied.
    pub fn is_over(&self, applied_term: Option<u64>) -> bool {
        self.source.is_some() && applied_term > Some(self.term)
    }

    /// Whether it will never end.
    pub fn is_hopeless(&self, now: Instant) -> bool {
        self.source.is_some_and(|(_, since)| since + PATIENCE < now)
    }
}

#[cfg(test)]
mod tests {
    use openraft::raft::{AppendEntriesRequest, VoteRequest};

    use super::*;

    #[test]
    fn it_votes_for_the_source_only_until_it_has_an_entry_of_a_later_term() {
        let vote = |member| Message::Vote(VoteRequest::new(Vote::new(9, member), None));
        let mut doubt = Doubt { term: 7, source: None };
        assert!(!doubt.admits(&vote(11)) && !doubt.is_over(Some(8)));
        let now = Instant::now();
        doubt.source = Some((12, now));
        assert!(!doubt.admits(&vote(11)) && doubt.admits(&vote(12)));
        assert!(!doubt.is_over(Some(7)) && !doubt.is_over(None) && doubt.is_over(Some(8)));
        assert!(!doubt.is_hopeless(now) && doubt.is_hopeless(now + PATIENCE * 2));
    }

    fn append(term: u64, leader: MemberId) -> Message {
        let vote = Vote::new_committed(term, leader);
        let request = AppendEntriesRequest { vote, prev_log_id: None, entries: vec![], leader_commit: None };
        Message::Append { request, under_lease: None }
    }

    /// The source has led, has died, and another one leads: this one never heard the source.
    #[test]
    fn it_follows_who_was_elected_meanwhile_but_nobody_it_may_have_acknowledged_something_to() {
        let unnamed = Doubt { term: 7, source: None };
        assert!(!unnamed.admits(&append(8, 12)) && !unnamed.admits(&append(8, 13)));
        let doubt = Doubt { term: 7, source: Some((12, Instant::now())) };
        assert!(doubt.admits(&append(7, 12)) && doubt.admits(&append(8, 13)));
        assert!(!doubt.admits(&append(7, 13)));
        assert_eq!(doubt.objection(&append(8, 13)), None);
    }

    #[test]
    fn a_source_that_still_leads_is_told_to_stand_again() {
        let append = |term| append(term, 12);
        let doubt = Doubt { term: 7, source: Some((12, Instant::now())) };
        assert_eq!(doubt.objection(&append(7)), Some(Vote::new(8, NOBODY)));
        assert_eq!(doubt.objection(&append(8)), None);
        let other = Doubt { source: Some((13, Instant::now())), ..doubt };
        assert_eq!(other.objection(&append(7)), Some(Vote::new(8, NOBODY)), "nor may it hear another one");
        assert_eq!(Doubt { source: None, ..doubt }.objection(&append(7)), None);
    }
}
