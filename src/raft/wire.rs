//! What members of a group say to each other over the bus, as bytes.
//!
//! Every message names the group and the *member* it is for: one incarnation of a node must not get what was meant
//! for an earlier one. Log entries are decoded without copying (their payloads are slices of the frame), nothing a
//! peer sends panics, and nothing is allocated for a length that is not there.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};

use crate::id::{GroupId, MemberId};
use crate::raft::encoding::{
    Malformed, counted, existing_log_id, log_id, membership, put_log_id, put_membership, put_snapshot_meta,
    put_vote, snapshot_meta, vote,
};
use crate::raft::freshness::{Mark, Word};
use crate::raft::proposal::Proposal;
use crate::raft::types::{Entry, SnapshotMeta, TypeConfig, Vote};

/// The bus service of all groups.
pub const RAFT_SERVICE: u8 = 1;

const APPEND: u8 = 1;
const VOTE: u8 = 2;
const PRE_VOTE: u8 = 3;
const TRANSFER: u8 = 4;
const SNAPSHOT_CHUNK: u8 = 5;
const SNAPSHOT_END: u8 = 6;
const FLUSH: u8 = 7;
const LEAVE: u8 = 8;

pub const BLANK: u8 = 0;
pub const NORMAL: u8 = 1;
pub const MEMBERSHIP: u8 = 2;
/// Bytes an encoded entry has at least: term, index, kind.
const MIN_ENTRY: usize = 17;

/// A message.
#[derive(Debug)]
pub enum Message {
    /// Log entries, or a heartbeat.
    Append {
        /// openraft's.
        request: AppendEntriesRequest<TypeConfig>,
        /// The leader's lease was valid when it was sent.
        under_lease: Option<Word>,
    },
    /// Vote for me.
    Vote(VoteRequest<TypeConfig>),
    /// Would you vote for me?
    PreVote(VoteRequest<TypeConfig>),
    /// Somebody shall lead in my place.
    Transfer(TransferLeaderRequest<TypeConfig>),
    /// Say when your disk has the log up to this index.
    Flush(u64),
    /// This member is about to stop: say when the others have all that is in the log now.
    Leave(MemberId),
    /// The next chunk of a snapshot; number 0 begins one.
    SnapshotChunk {
        /// Names the transfer: the sending member and its count.
        transfer: (MemberId, u64),
        /// The chunk's number.
        number: u32,
        /// The chunk.
        chunk: Bytes,
    },
    /// A snapshot is complete: install it.
    SnapshotEnd {
        /// As in its chunks.
        transfer: (MemberId, u64),
        /// How many chunks there were.
        chunks: u32,
        /// The leader's claim.
        vote: Vote,
        /// What it covers.
        meta: SnapshotMeta,
    },
}

/// An answer.
#[derive(Debug)]
pub enum Answer {
    /// To an append, and when it was given.
    Append(AppendEntriesResponse<TypeConfig>, Mark),
    /// To a vote or pre-vote.
    Vote(VoteResponse<TypeConfig>),
    /// The snapshot is installed, or this vote is higher.
    Installed(Vote),
    /// Done.
    Accepted,
    /// It cannot be: no such member here, stopped, out of order, not understood.
    Refused(String),
}

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The group.
    pub group: GroupId,
    /// The member.
    pub member: MemberId,
}

/// A message as bytes.
pub fn encode(to: Address, message: &Message) -> Bytes {
    let mut out = BytesMut::with_capacity(64 + size_hint(message));
    let mut head = |kind: u8| {
        out.put_u8(kind);
        out.put_u32(to.group.0);
        out.put_u64(to.member);
    };
    match message {
        Message::Append { request, under_lease } => {
            head(APPEND);
            out.put_u8(u8::from(under_lease.is_some()));
            if let Some(Word { mark, reached }) = under_lease {
                put_mark(&mut out, *mark);
                out.put_u64(*reached);
            }
            put_append(&mut out, request);
        }
        Message::Vote(request) => {
            head(VOTE);
            put_vote_request(&mut out, request);
        }
        Message::PreVote(request) => {
            head(PRE_VOTE);
            put_vote_request(&mut out, request);
        }
        Message::Transfer(request) => {
            head(TRANSFER);
            put_vote(&mut out, request.from_leader());
            out.put_u64(*request.to_node_id());
            put_log_id(&mut out, request.last_log_id());
        }
        Message::Flush(index) => {
            head(FLUSH);
            out.put_u64(*index);
        }
        Message::Leave(member) => {
            head(LEAVE);
            out.put_u64(*member);
        }
        Message::SnapshotChunk { transfer, number, chunk } => {
            head(SNAPSHOT_CHUNK);
            put_transfer(&mut out, *transfer);
            out.put_u32(*number);
            out.put_slice(chunk);
        }
        Message::SnapshotEnd { transfer, chunks, vote, meta } => {
            head(SNAPSHOT_END);
            put_transfer(&mut out, *transfer);
            out.put_u32(*chunks);
            put_vote(&mut out, vote);
            put_snapshot_meta(&mut out, meta);
        }
    }
    out.freeze()
}

fn size_hint(message: &Message) -> usize {
    match message {
        Message::Append { request, .. } => request.entries.iter().map(|entry| 32 + payload_len(entry)).sum(),
        Message::SnapshotChunk { chunk, .. } => chunk.len(),
        _ => 64,
    }
}

fn payload_len(entry: &Entry) -> usize {
    if let EntryPayload::Normal(proposal) = &entry.payload { proposal.bytes.len() } else { 0 }
}

/// A message out of bytes.
pub fn decode(mut input: Bytes) -> Result<(Address, Message), Malformed> {
    let kind = input.try_get_u8()?;
    let to = Address { group: GroupId(input.try_get_u32()?), member: input.try_get_u64()? };
    let message = match kind {
        APPEND => {
            let under_lease = match input.try_get_u8()? {
                0 => None,
                _ => Some(Word { mark: mark(&mut input)?, reached: input.try_get_u64()? }),
            };
            Message::Append { request: append(&mut input)?, under_lease }
        }
        VOTE => Message::Vote(vote_request(&mut input)?),
        PRE_VOTE => Message::PreVote(vote_request(&mut input)?),
        TRANSFER => {
            let (from, to) = (vote(&mut input)?, input.try_get_u64()?);
            Message::Transfer(TransferLeaderRequest::new(from, to, log_id(&mut input)?))
        }
        FLUSH => Message::Flush(input.try_get_u64()?),
        LEAVE => Message::Leave(input.try_get_u64()?),
        SNAPSHOT_CHUNK => Message::SnapshotChunk {
            transfer: transfer(&mut input)?,
            number: input.try_get_u32()?,
            chunk: input,
        },
        SNAPSHOT_END => {
            let (transfer, chunks) = (transfer(&mut input)?, input.try_get_u32()?);
            Message::SnapshotEnd {
                transfer,
                chunks,
                vote: vote(&mut input)?,
                meta: snapshot_meta(&mut input)?,
            }
        }
        _ => return Err(Malformed("unknown kind")),
    };
    Ok((to, message))
}

/// An answer as bytes.
pub fn encode_answer(answer: &Answer) -> Bytes {
    let mut out = BytesMut::with_capacity(48);
    match answer {
        Answer::Append(response, mark) => {
            put_appended(&mut out, response);
            put_mark(&mut out, *mark);
        }
        Answer::Vote(response) => {
            out.put_u8(4);
            put_vote(&mut out, &response.vote);
            out.put_u8(response.vote_granted as u8);
            put_log_id(&mut out, response.last_log_id.as_ref());
        }
        Answer::Installed(vote) => {
            out.put_u8(5);
            put_vote(&mut out, vote);
        }
        Answer::Accepted => out.put_u8(6),
        Answer::Refused(why) => {
            out.put_u8(7);
            out.put_slice(why.as_bytes());
        }
    }
    out.freeze()
}

fn put_appended(out: &mut BytesMut, response: &AppendEntriesResponse<TypeConfig>) {
    match response {
        AppendEntriesResponse::Success => out.put_u8(0),
        AppendEntriesResponse::PartialSuccess(upto) => {
            out.put_u8(1);
            put_log_id(out, upto.as_ref());
        }
        AppendEntriesResponse::Conflict => out.put_u8(2),
        AppendEntriesResponse::HigherVote(vote) => {
            out.put_u8(3);
            put_vote(out, vote);
        }
    }
}

fn put_mark(out: &mut BytesMut, mark: Mark) {
    out.put_u64(mark.life);
    out.put_u64(mark.at);
}

fn mark(input: &mut Bytes) -> Result<Mark, Malformed> {
    Ok(Mark { life: input.try_get_u64()?, at: input.try_get_u64()? })
}

/// An answer out of bytes.
pub fn decode_answer(mut input: Bytes) -> Result<Answer, Malformed> {
    Ok(match input.try_get_u8()? {
        kind @ 0..=3 => {
            let response = match kind {
                0 => AppendEntriesResponse::Success,
                1 => AppendEntriesResponse::PartialSuccess(log_id(&mut input)?),
                2 => AppendEntriesResponse::Conflict,
                _ => AppendEntriesResponse::HigherVote(vote(&mut input)?),
            };
            Answer::Append(response, mark(&mut input)?)
        }
        4 => {
            let (vote, granted) = (vote(&mut input)?, input.try_get_u8()? != 0);
            Answer::Vote(VoteResponse::new(vote, log_id(&mut input)?, granted))
        }
        5 => Answer::Installed(vote(&mut input)?),
        6 => Answer::Accepted,
        7 => Answer::Refused(String::from_utf8_lossy(&input).into_owned()),
        _ => return Err(Malformed("unknown answer")),
    })
}

fn put_append(out: &mut BytesMut, request: &AppendEntriesRequest<TypeConfig>) {
    put_vote(out, &request.vote);
    put_log_id(out, request.prev_log_id.as_ref());
    put_log_id(out, request.leader_commit.as_ref());
    out.put_u32(request.entries.len() as u32);
    for entry in &request.entries {
        out.put_u64(entry.log_id.committed_leader_id().term);
        out.put_u64(entry.log_id.index);
        match &entry.payload {
            EntryPayload::Blank => out.put_u8(BLANK),
            EntryPayload::Normal(proposal) => {
                out.put_u8(NORMAL);
                out.put_u32(proposal.bytes.len() as u32);
                out.put_slice(&proposal.bytes);
            }
            EntryPayload::Membership(membership) => {
                out.put_u8(MEMBERSHIP);
                put_membership(out, membership);
            }
        }
    }
}

fn append(input: &mut Bytes) -> Result<AppendEntriesRequest<TypeConfig>, Malformed> {
    let (vote, prev_log_id, leader_commit) = (vote(input)?, log_id(input)?, log_id(input)?);
    let count = input.try_get_u32()? as usize;
    if count > input.len() / MIN_ENTRY {
        return Err(Malformed("more entries than bytes"));
    }
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let log_id = existing_log_id(input)?;
        let payload = match input.try_get_u8()? {
            BLANK => EntryPayload::Blank,
            NORMAL => EntryPayload::Normal(Proposal { bytes: counted(input)?, local: None }),
            MEMBERSHIP => EntryPayload::Membership(membership(input)?),
            _ => return Err(Malformed("unknown kind of entry")),
        };
        entries.push(Entry { log_id, payload });
    }
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

fn put_vote_request(out: &mut BytesMut, request: &VoteRequest<TypeConfig>) {
    put_vote(out, &request.vote);
    put_log_id(out, request.last_log_id.as_ref());
    out.put_u8(request.leadership_transfer as u8);
}

fn vote_request(input: &mut Bytes) -> Result<VoteRequest<TypeConfig>, Malformed> {
    let mut request = VoteRequest::new(vote(input)?, log_id(input)?);
    request.leadership_transfer = input.try_get_u8()? != 0;
    Ok(request)
}

fn put_transfer(out: &mut BytesMut, (member, count): (MemberId, u64)) {
    out.put_u64(member);
    out.put_u64(count);
}

fn transfer(input: &mut Bytes) -> Result<(MemberId, u64), Malformed> {
    Ok((input.try_get_u64()?, input.try_get_u64()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    use openraft::alias::CommittedLeaderIdOf;

    use crate::id::NodeId;
    use crate::raft::state::Member;
    use crate::raft::types::{LogId, Membership, StoredMembership};
    use proptest::prelude::*;

    const MARK: Mark = Mark { life: 7, at: 8 };
    const TO: Address = Address { group: GroupId(3), member: 77 };

    fn id(term: u64, index: u64) -> LogId {
        LogId::new(CommittedLeaderIdOf::<TypeConfig>::new(term), index)
    }

    fn some_membership() -> Membership {
        let member =
            |n: u8| Member { node: NodeId::from_bytes([n; 20]), addr: ([127, 0, 0, 1], n as u16).into() };
        Membership::new(
            vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])],
            BTreeMap::from([(1, member(1)), (2, member(2)), (3, member(3)), (9, member(9))]),
        )
        .unwrap()
    }

    fn there_and_back(message: &Message) -> String {
        let (to, message) = decode(encode(TO, message)).unwrap();
        assert_eq!(to, TO);
        format!("{message:?}")
    }

    #[test]
    fn messages_come_back_as_they_were() {
        let vote = Vote::new_committed(5, 2);
        let proposal = |bytes: &'static [u8]| Proposal { bytes: Bytes::from_static(bytes), local: None };
        let entries = vec![
            Entry { log_id: id(4, 10), payload: EntryPayload::Blank },
            Entry { log_id: id(5, 11), payload: EntryPayload::Normal(proposal(b"hello")) },
            Entry { log_id: id(5, 12), payload: EntryPayload::Normal(proposal(b"")) },
            Entry { log_id: id(5, 13), payload: EntryPayload::Membership(some_membership()) },
        ];
        let meta = SnapshotMeta {
            last_log_id: Some(id(5, 13)),
            last_membership: StoredMembership::new(Some(id(5, 13)), some_membership()),
        };
        let mut vote_request = VoteRequest::new(Vote::new(6, 1), Some(id(5, 13)));
        vote_request.leadership_transfer = true;
        let messages = [
            Message::Append {
                request: AppendEntriesRequest {
                    vote,
                    prev_log_id: Some(id(4, 9)),
                    entries,
                    leader_commit: None,
                },
                under_lease: Some(Word { mark: MARK, reached: 9 }),
            },
            Message::Vote(vote_request.clone()),
            Message::PreVote(vote_request),
            Message::Transfer(TransferLeaderRequest::new(vote, 3, Some(id(5, 13)))),
            Message::Flush(9),
            Message::Leave(3),
            Message::SnapshotChunk { transfer: (1, 2), number: 3, chunk: Bytes::from_static(b"chunk") },
            Message::SnapshotEnd { transfer: (1, 2), chunks: 4, vote, meta },
        ];
        for message in messages {
            assert_eq!(there_and_back(&message), format!("{message:?}"));
        }
    }

    #[test]
    fn answers_come_back_as_they_were() {
        let vote = Vote::new(5, 2);
        let answers = [
            Answer::Append(AppendEntriesResponse::Success, MARK),
            Answer::Append(AppendEntriesResponse::PartialSuccess(Some(id(1, 2))), MARK),
            Answer::Append(AppendEntriesResponse::Conflict, MARK),
            Answer::Append(AppendEntriesResponse::HigherVote(vote), MARK),
            Answer::Vote(VoteResponse::new(vote, None, true)),
            Answer::Installed(vote),
            Answer::Accepted,
            Answer::Refused("gone".into()),
        ];
        for answer in answers {
            assert_eq!(
                format!("{:?}", decode_answer(encode_answer(&answer)).unwrap()),
                format!("{answer:?}")
            );
        }
    }

    #[test]
    fn a_message_cut_anywhere_is_malformed() {
        let entries = vec![Entry { log_id: id(5, 13), payload: EntryPayload::Membership(some_membership()) }];
        let vote = Vote::new_committed(5, 2);
        let request =
            AppendEntriesRequest { vote, prev_log_id: None, entries, leader_commit: Some(id(4, 4)) };
        let bytes = encode(TO, &Message::Append { request, under_lease: None });
        for length in 0..bytes.len() {
            assert!(decode(bytes.slice(..length)).is_err(), "cut at {length}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_malformed(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(Bytes::from(bytes.clone()));
            let _ = decode_answer(Bytes::from(bytes));
        }

        #[test]
        fn no_count_of_entries_makes_it_allocate(count in any::<u32>(), rest in proptest::collection::vec(any::<u8>(), 0..64)) {
            let request = AppendEntriesRequest {
                vote: Vote::new_committed(1, 1), prev_log_id: None, entries: vec![], leader_commit: None,
            };
            let mut bytes = encode(TO, &Message::Append { request, under_lease: None }).to_vec();
            let at = bytes.len() - 4;
            bytes[at..].copy_from_slice(&count.to_be_bytes());
            bytes.extend_from_slice(&rest);
            let _ = decode(Bytes::from(bytes));
        }
    }
}
