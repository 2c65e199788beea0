//! The types openraft is told to work with.

use openraft::OptionalSend;
use openraft::impls::leader_id_std;

use crate::id::MemberId;
use crate::raft::proposal::Proposal;
use crate::raft::runtime::Runtime;
use crate::raft::state::Member;

/// Leader ids are Raft's own (one leader a term), members are numbers, an applied entry answers nothing: the
/// machine answers whom it has to by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = Proposal;
    type R = ();
    type NodeId = MemberId;
    type Node = Member;
    type Term = u64;
    type LeaderId = leader_id_std::LeaderId<u64, MemberId>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Proposal, MemberId, Member>;
    type Entry = openraft::Entry<<Self::LeaderId as openraft::vote::RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = Callback<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// A log entry.
pub type Entry = openraft::alias::EntryOf<TypeConfig>;
/// (term, index) of an entry.
pub type LogId = openraft::alias::LogIdOf<TypeConfig>;
/// A vote, or a leader's claim.
pub type Vote = openraft::alias::VoteOf<TypeConfig>;
/// Who belongs to the group.
pub type Membership = openraft::Membership<MemberId, Member>;
/// The same with the entry that said so.
pub type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
/// What became of a proposal, in openraft's words.
pub type WriteResult = openraft::raft::ClientWriteResult<TypeConfig>;

/// Gets openraft's answer to a proposal.
pub struct Callback<T>(pub Box<dyn FnOnce(T) + Send>);

impl<T: OptionalSend + 'static> openraft::raft::responder::Responder<TypeConfig, T> for Callback<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}
