//! A log entry as bytes on disk.

use bytes::{Buf, Bytes, BytesMut};
use openraft::EntryPayload;

use crate::raft::encoding::{Malformed, log_id_of, membership, put_membership};
use crate::raft::proposal::Proposal;
use crate::raft::types::Entry;
use crate::raft::wire::{BLANK, MEMBERSHIP, NORMAL};

/// What an entry holds, in two pieces: the second one is a proposal's own, not a copy.
pub fn encode_payload(entry: &Entry) -> ([u8; 1], Bytes) {
    match &entry.payload {
        EntryPayload::Blank => ([BLANK], Bytes::new()),
        EntryPayload::Normal(proposal) => ([NORMAL], proposal.bytes.clone()),
        EntryPayload::Membership(membership) => {
            let mut out = BytesMut::new();
            put_membership(&mut out, membership);
            ([MEMBERSHIP], out.freeze())
        }
    }
}

/// The entry with what the bytes say.
pub fn decode_payload(term: u64, index: u64, mut bytes: Bytes) -> Result<Entry, Malformed> {
    let payload = match bytes.try_get_u8()? {
        BLANK => EntryPayload::Blank,
        NORMAL => EntryPayload::Normal(Proposal { bytes, local: None }),
        MEMBERSHIP => EntryPayload::Membership(membership(&mut bytes)?),
        _ => return Err(Malformed("unknown kind of entry")),
    };
    Ok(Entry { log_id: log_id_of(term, index), payload })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::id::NodeId;
    use crate::raft::state::Member;
    use crate::raft::types::Membership;

    #[test]
    fn entries_come_back_as_they_were() {
        let proposal = Proposal { bytes: Bytes::from_static(b"hello"), local: None };
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(proposal),
            EntryPayload::Membership(
                Membership::new(
                    vec![BTreeSet::from([1])],
                    BTreeMap::from([(
                        1,
                        Member { node: NodeId::from_bytes([1; 20]), addr: ([127, 0, 0, 1], 1).into() },
                    )]),
                )
                .unwrap(),
            ),
        ];
        for payload in payloads {
            let entry = Entry { log_id: log_id_of(4, 10), payload };
            let (head, rest) = encode_payload(&entry);
            let bytes = Bytes::from([&head[..], &rest].concat());
            assert_eq!(format!("{:?}", decode_payload(4, 10, bytes.clone()).unwrap()), format!("{entry:?}"));
        }
        assert!(decode_payload(4, 10, Bytes::from_static(b"")).is_err());
        assert!(decode_payload(4, 10, Bytes::from_static(b"\x09abc")).is_err());
    }
}
