//! A keyspace as bytes, and a digest to compare two of them.
//!
//! A snapshot is a sequence of slots: each with its number, its versions and its records, all lengths as
//! little-endian u32. It holds exactly what replicas must agree on: keys, values, deadlines, versions; not the last
//! use, which is each node's own estimate. Everything read back is bounded by the bytes at hand and refused if it
//! doesn't parse. How chunks travel is the raft room's concern.

use std::hash::{BuildHasher, Hasher};

use crate::codec::{Malformed, put_bytes, put_u32, read_bytes, read_u32, take};
use crate::keyspace::Keyspace;
use crate::keyspace::hash::Hash;
use crate::keyspace::record::Record;
use crate::keyspace::slot::Slot;
use crate::keyspace::value::{Value, ValueRef};

const STRING: u8 = 0;
const HASH: u8 = 1;

/// Appends a slot, unless nothing ever happened to it.
pub fn write_slot(keyspace: &Keyspace, number: u16, out: &mut Vec<u8>) {
    let slot = keyspace.lock(number);
    if slot.versions() == (0, 0) {
        return;
    }
    out.extend_from_slice(&number.to_le_bytes());
    let (version, removed) = slot.versions();
    put_u32(out, version);
    put_u32(out, removed);
    put_u32(out, slot.len() as u32);
    for record in slot.iter() {
        write_record(record, out);
    }
}

fn write_record(record: &Record, out: &mut Vec<u8>) {
    let kind = match record.value() {
        ValueRef::Bytes(_) => STRING,
        ValueRef::Hash(_) => HASH,
    };
    out.push(kind);
    put_u32(out, record.version());
    out.extend_from_slice(&record.expires_at().unwrap_or(u64::MAX).to_le_bytes());
    put_bytes(out, record.key());
    match record.value() {
        ValueRef::Bytes(bytes) => put_bytes(out, bytes),
        ValueRef::Hash(hash) => {
            put_u32(out, hash.len() as u32);
            for (field, value) in hash.iter() {
                put_bytes(out, field);
                put_bytes(out, value);
            }
        }
    }
}

/// Reads slots until the bytes end, into `keyspace`.
pub fn read_slots(keyspace: &Keyspace, mut from: &[u8]) -> Result<(), Malformed> {
    while !from.is_empty() {
        let number = u16::from_le_bytes(take(&mut from)?);
        let versions = (read_u32(&mut from)?, read_u32(&mut from)?);
        let records = read_u32(&mut from)?;
        if number as usize >= slotcast_wire::slot::SLOTS {
            return Err(Malformed);
        }
        for _ in 0..records {
            keyspace.restore(number, read_record(&mut from)?);
        }
        keyspace.lock(number).set_versions(versions);
    }
    Ok(())
}

fn read_record(from: &mut &[u8]) -> Result<Record, Malformed> {
    let [kind] = take(from)?;
    let version = read_u32(from)?;
    let deadline = u64::from_le_bytes(take(from)?);
    let deadline = (deadline != u64::MAX).then_some(deadline);
    let key = read_bytes(from)?;
    let mut record = match kind {
        STRING => Record::inline(key, read_bytes(from)?, deadline),
        HASH => {
            let mut hash = Hash::default();
            for _ in 0..read_u32(from)? {
                let field = read_bytes(from)?;
                hash.set(field, read_bytes(from)?);
            }
            Record::boxed(key, Box::new(Value::Hash(hash)), deadline)
        }
        _ => return Err(Malformed),
    };
    record.set_version(version);
    Ok(record)
}

/// A number that two keyspaces share if (and, but for collisions, only if) their slots hold the same: the sum of
/// the records' hashes, so that the tables' order doesn't matter. Unseeded: equal across nodes.
pub fn digest(keyspace: &Keyspace, number: u16) -> u64 {
    let slot: &Slot = &keyspace.lock(number);
    let state = foldhash::fast::FixedState::with_seed(0x51_07_ca_57);
    let mut bytes = Vec::new();
    slot.iter().fold(0, |sum: u64, record| {
        bytes.clear();
        write_record(record, &mut bytes);
        let mut hasher = state.build_hasher();
        hasher.write(&bytes);
        sum.wrapping_add(hasher.finish())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use slotcast_wire::slot::SLOTS;

    use super::*;
    use crate::keyspace::locked::{Deadline, Locked, Needs};

    fn dump(keyspace: &Keyspace) -> Vec<u8> {
        let mut out = Vec::new();
        (0..SLOTS as u16).for_each(|slot| write_slot(keyspace, slot, &mut out));
        out
    }

    proptest! {
        #[test]
        fn a_snapshot_restores_the_same_state(writes in proptest::collection::vec(("[a-e]", "[a-z]{0,9}", any::<bool>(), any::<Option<u32>>(), any::<bool>()), 0..40)) {
            let keyspace = Keyspace::new();
            let mut locked = Locked::new(&keyspace, &Needs::Everything, 0, 0, || false);
            for (key, value, hash, deadline, remove) in &writes {
                let deadline = deadline.map_or(Deadline::Never, |at| Deadline::At(at as u64 + 1));
                if *remove {
                    locked.remove(key.as_bytes());
                } else if *hash {
                    let mut fields = Hash::default();
                    fields.set(value.as_bytes(), b"v");
                    locked.put(key.as_bytes(), Value::Hash(fields), deadline);
                } else {
                    locked.put_bytes(key.as_bytes(), value.as_bytes(), deadline);
                }
            }
            let stamps: Vec<_> = writes.iter().map(|w| locked.stamp(w.0.as_bytes())).collect();
            drop(locked);
            let bytes = dump(&keyspace);
            let restored = Keyspace::new();
            prop_assert_eq!(read_slots(&restored, &bytes), Ok(()));
            for slot in 0..SLOTS as u16 {
                prop_assert_eq!(digest(&restored, slot), digest(&keyspace, slot));
            }
            prop_assert_eq!(restored.usage().keys, keyspace.usage().keys);
            prop_assert_eq!(restored.usage().volatile, keyspace.usage().volatile);
            let locked = Locked::new(&restored, &Needs::Everything, 0, 0, || false);
            let again: Vec<_> = writes.iter().map(|w| locked.stamp(w.0.as_bytes())).collect();
            prop_assert_eq!(again, stamps);
        }

        #[test]
        fn nonsense_is_refused_not_believed(bytes: Vec<u8>) {
            let _ = read_slots(&Keyspace::new(), &bytes);
        }
    }
}
