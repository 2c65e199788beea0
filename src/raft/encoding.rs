//! Raft's small words as bytes: votes, log ids, memberships, what a snapshot covers.
//!
//! They stand in messages, in the write-ahead log and in snapshots' files, so they are here once. Numbers are
//! big-endian. Bytes that are none of them are refused, never believed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::alias::CommittedLeaderIdOf;
use openraft::vote::RaftLeaderId;
use serde::{Deserialize, Serialize};

use crate::id::MemberId;
use crate::raft::state::Member;
use crate::raft::types::{LogId, Membership, SnapshotMeta, StoredMembership, TypeConfig, Vote};

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a malformed raft message: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

impl From<bytes::TryGetError> for Malformed {
    fn from(_: bytes::TryGetError) -> Malformed {
        Malformed("it ends too early")
    }
}

/// (term, index) as openraft names an entry.
pub fn log_id_of(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderIdOf::<TypeConfig>::new(term), index)
}

/// What a snapshot covers, as bytes: on the wire and in a snapshot's file.
pub fn put_snapshot_meta(out: &mut BytesMut, meta: &SnapshotMeta) {
    put_log_id(out, meta.last_log_id.as_ref());
    put_log_id(out, meta.last_membership.log_id().as_ref());
    put_membership(out, meta.last_membership.membership());
}

/// The same out of bytes.
pub fn snapshot_meta(input: &mut Bytes) -> Result<SnapshotMeta, Malformed> {
    let last_log_id = log_id(input)?;
    let last_membership = StoredMembership::new(log_id(input)?, membership(input)?);
    Ok(SnapshotMeta { last_log_id, last_membership })
}

/// Appends a vote.
pub fn put_vote(out: &mut BytesMut, vote: &Vote) {
    out.put_u64(vote.leader_id.term);
    out.put_u64(vote.leader_id.voted_for);
    out.put_u8(vote.committed as u8);
}

/// A vote out of bytes.
pub fn vote(input: &mut Bytes) -> Result<Vote, Malformed> {
    let leader_id = RaftLeaderId::new(input.try_get_u64()?, input.try_get_u64()?);
    Ok(Vote { leader_id, committed: input.try_get_u8()? != 0 })
}

/// Appends a log id, or that there is none.
pub fn put_log_id(out: &mut BytesMut, id: Option<&LogId>) {
    out.put_u8(id.is_some() as u8);
    if let Some(id) = id {
        out.put_u64(id.committed_leader_id().term);
        out.put_u64(id.index);
    }
}

/// The same out of bytes.
pub fn log_id(input: &mut Bytes) -> Result<Option<LogId>, Malformed> {
    Ok(if input.try_get_u8()? == 0 { None } else { Some(existing_log_id(input)?) })
}

/// A log id that is there, out of bytes.
pub fn existing_log_id(input: &mut Bytes) -> Result<LogId, Malformed> {
    Ok(log_id_of(input.try_get_u64()?, input.try_get_u64()?))
}

/// A length and as many bytes.
pub fn counted(input: &mut Bytes) -> Result<Bytes, Malformed> {
    let length = input.try_get_u32()? as usize;
    if length > input.len() {
        return Err(Malformed("it ends too early"));
    }
    Ok(input.split_to(length))
}

/// A membership: rare, so readable (JSON).
#[derive(Serialize, Deserialize)]
struct PlainMembership {
    configs: Vec<BTreeSet<MemberId>>,
    members: BTreeMap<MemberId, Member>,
}

/// Appends a membership.
pub fn put_membership(out: &mut BytesMut, membership: &Membership) {
    let plain = PlainMembership {
        configs: membership.get_joint_config().clone(),
        members: membership.nodes().map(|(id, member)| (*id, member.clone())).collect(),
    };
    // A map of numbers to plain structs always has a JSON form.
    let json = serde_json::to_vec(&plain).unwrap_or_default();
    out.put_u32(json.len() as u32);
    out.put_slice(&json);
}

/// A membership out of bytes.
pub fn membership(input: &mut Bytes) -> Result<Membership, Malformed> {
    let plain: PlainMembership =
        serde_json::from_slice(&counted(input)?).map_err(|_| Malformed("a membership that is no JSON"))?;
    if plain.configs.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(plain.configs, plain.members).map_err(|_| Malformed("an impossible membership"))
}
