//! A keyspace as bytes, and a digest to compare two of them.
//!
//! A snapshot is a sequence of items. A slot may come more than once and in several parts, since a cut writes what is
//! about to change ahead of its turn. It holds exactly what replicas must agree on: keys, values, deadlines, versions;
//! not the last use, which is each node's own estimate.
//!
//! Reading takes the bytes in pieces of any size and keeps at most one unfinished item; what doesn't parse is refused.
//! How pieces travel is the raft room's concern.

use std::hash::{BuildHasher, Hasher};

use slotcast_wire::slot::SLOTS;

use crate::codec::Malformed;
use crate::keyspace::Keyspace;
use crate::keyspace::hash::Hash;
use crate::keyspace::item::{Item, put_record};
use crate::keyspace::record::Record;
use crate::keyspace::slot::Slot;
use crate::keyspace::value::Value;

/// Puts a keyspace together from a snapshot's bytes.
pub struct Reader {
    keyspace: Keyspace,
    slot: Option<u16>,
    /// The hash whose fields are coming in.
    hash: Option<Record>,
    /// The beginning of an item whose end has not come yet.
    rest: Vec<u8>,
}

impl Reader {
    /// Into a keyspace that is empty.
    pub fn new(keyspace: Keyspace) -> Self {
        Self { keyspace, slot: None, hash: None, rest: Vec::new() }
    }

    /// Takes the next bytes.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            let left = self.read(bytes)?;
            self.rest.extend_from_slice(left);
            return Ok(());
        }
        let mut rest = std::mem::take(&mut self.rest);
        rest.extend_from_slice(bytes);
        let left = self.read(&rest)?.len();
        rest.drain(..rest.len() - left);
        self.rest = rest;
        Ok(())
    }

    /// The keyspace, if the bytes have come to an end.
    pub fn finish(mut self) -> Result<Keyspace, Malformed> {
        self.close()?;
        if self.rest.is_empty() { Ok(self.keyspace) } else { Err(Malformed) }
    }

    /// Reads as many items as there are; what is left.
    fn read<'a>(&mut self, mut from: &'a [u8]) -> Result<&'a [u8], Malformed> {
        while let Some(item) = Item::read(&mut from)? {
            self.put(item)?;
        }
        Ok(from)
    }

    fn put(&mut self, item: Item<'_>) -> Result<(), Malformed> {
        if let Item::Field(field, value) = item {
            return match self.hash.as_mut().and_then(Record::boxed_mut) {
                Some(Value::Hash(hash)) => {
                    hash.set(field, value);
                    Ok(())
                }
                _ => Err(Malformed),
            };
        }
        self.close()?;
        match item {
            Item::Slot(number, versions) if (number as usize) < SLOTS => {
                self.slot = Some(number);
                self.keyspace.lock(number).set_versions(versions);
            }
            Item::String(head, value) => {
                let mut record = Record::inline(head.key, value, head.deadline);
                record.set_version(head.version);
                self.keyspace.restore(self.slot.ok_or(Malformed)?, record);
            }
            Item::Hash(head) => {
                let value = Box::new(Value::Hash(Hash::default()));
                let mut record = Record::boxed(head.key, value, head.deadline);
                record.set_version(head.version);
                self.hash = Some(record);
            }
            Item::Slot(..) | Item::Field(..) => return Err(Malformed),
        }
        Ok(())
    }

    /// Puts away the hash whose fields have all come.
    fn close(&mut self) -> Result<(), Malformed> {
        if let Some(record) = self.hash.take() {
            self.keyspace.restore(self.slot.ok_or(Malformed)?, record);
        }
        Ok(())
    }
}

/// A number that two keyspaces share if (and, but for collisions, only if) their slots hold the same: the sum of
/// the records' hashes, so that the tables' order doesn't matter. Unseeded: equal across nodes.
pub fn digest(keyspace: &Keyspace, number: u16) -> u64 {
    let slot: &Slot = &keyspace.lock(number);
    let state = foldhash::fast::FixedState::with_seed(0x51_07_ca_57);
    let mut bytes = Vec::new();
    slot.iter().fold(0, |sum: u64, record| {
        bytes.clear();
        put_record(record, &mut bytes);
        let mut hasher = state.build_hasher();
        hasher.write(&bytes);
        sum.wrapping_add(hasher.finish())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::keyspace::cut::cut;
    use crate::keyspace::effect::Nobody;
    use crate::keyspace::locked::{Deadline, Locked, Needs};

    fn dump(keyspace: &Arc<Keyspace>) -> Vec<u8> {
        cut(keyspace).unwrap().flat_map(|chunk| chunk.unwrap()).collect()
    }

    /// Reads bytes in pieces of `length`.
    fn read(bytes: &[u8], length: usize) -> Result<Keyspace, Malformed> {
        let mut reader = Reader::new(Keyspace::new());
        bytes.chunks(length.max(1)).try_for_each(|piece| reader.take(piece))?;
        reader.finish()
    }

    fn filled(writes: &[(String, String, bool, Option<u32>, bool)]) -> Arc<Keyspace> {
        let keyspace = Arc::new(Keyspace::new());
        let mut locked = Locked::new(&keyspace, &Needs::Everything, 0, 0, &Nobody);
        for (key, value, hash, deadline, remove) in writes {
            let deadline = deadline.map_or(Deadline::Never, |at| Deadline::At(at as u64 + 1));
            if *remove {
                locked.remove(key.as_bytes());
            } else if *hash {
                let mut fields = Hash::default();
                fields.set(value.as_bytes(), b"v");
                fields.set(b"another", value.as_bytes());
                locked.put(key.as_bytes(), Value::Hash(fields), deadline);
            } else {
                locked.put_bytes(key.as_bytes(), value.as_bytes(), deadline);
            }
        }
        drop(locked);
        keyspace
    }

    proptest! {
        #[test]
        fn a_snapshot_restores_the_same_state(writes in proptest::collection::vec(("[a-e]", "[a-z]{0,9}", any::<bool>(), any::<Option<u32>>(), any::<bool>()), 0..40), length in 1..200usize) {
            let keyspace = filled(&writes);
            let restored = read(&dump(&keyspace), length);
            prop_assert!(restored.is_ok());
            let restored = restored.unwrap();
            for slot in 0..SLOTS as u16 {
                prop_assert_eq!(digest(&restored, slot), digest(&keyspace, slot));
            }
            prop_assert_eq!(restored.usage().keys, keyspace.usage().keys);
            prop_assert_eq!(restored.usage().volatile, keyspace.usage().volatile);
            let stamps = |keyspace: &Keyspace| {
                let locked = Locked::new(keyspace, &Needs::Everything, 0, 0, &Nobody);
                writes.iter().map(|w| locked.stamp(w.0.as_bytes())).collect::<Vec<_>>()
            };
            prop_assert_eq!(stamps(&restored), stamps(&keyspace));
        }

        #[test]
        fn nonsense_is_refused_not_believed(bytes: Vec<u8>, length in 1..9usize) {
            let _ = read(&bytes, length);
        }

        #[test]
        fn a_snapshot_without_its_end_is_refused_or_lacks_whole_items(cut in 0..100usize) {
            let keyspace = filled(&[("a".into(), "v".into(), false, None, false)]);
            let bytes = dump(&keyspace);
            let shortened = read(&bytes[..cut.min(bytes.len())], 7).map(|keyspace| keyspace.usage().keys);
            prop_assert!(matches!((shortened, cut), (Err(Malformed), _) | (Ok(0), 0 | 11) | (Ok(1), 30..)));
        }
    }
}
