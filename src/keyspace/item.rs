//! What a snapshot consists of, as bytes: a slot with its versions, a string, a hash, a field of the hash before it; what
//! follows a slot lies in it. Numbers are little-endian, every length a u32 in front.
//!
//! An item knows nothing of keyspaces, nor in which order a cut writes slots.

use crate::codec::{Malformed, put_bytes, put_u32, read_bytes, read_u32, take};
use crate::keyspace::record::Record;
use crate::keyspace::value::ValueRef;
use crate::time::Millis;

const STRING: u8 = 0;
const HASH: u8 = 1;
const FIELD: u8 = 2;
const SLOT: u8 = 3;

/// Appends a slot's number and its versions (the last change's and the last removal's).
pub fn put_slot(number: u16, (version, removed): (u32, u32), out: &mut Vec<u8>) {
    out.push(SLOT);
    out.extend_from_slice(&number.to_le_bytes());
    put_u32(out, version);
    put_u32(out, removed);
}

/// Appends a record of the slot put before.
pub fn put_record(record: &Record, out: &mut Vec<u8>) {
    let mut head = |kind: u8| {
        out.push(kind);
        put_u32(out, record.version());
        out.extend_from_slice(&record.expires_at().unwrap_or(u64::MAX).to_le_bytes());
        put_bytes(out, record.key());
    };
    match record.value() {
        ValueRef::Bytes(bytes) => {
            head(STRING);
            put_bytes(out, bytes);
        }
        ValueRef::Hash(hash) => {
            head(HASH);
            for (field, value) in hash.iter() {
                out.push(FIELD);
                put_bytes(out, field);
                put_bytes(out, value);
            }
        }
    }
}

/// See the module's documentation.
pub enum Item<'a> {
    /// A slot and its versions.
    Slot(u16, (u32, u32)),
    /// A string.
    String(Head<'a>, &'a [u8]),
    /// A hash; its fields follow.
    Hash(Head<'a>),
    /// A field and its value.
    Field(&'a [u8], &'a [u8]),
}

/// What records have in common.
pub struct Head<'a> {
    /// Of its last change.
    pub version: u32,
    /// When it expires.
    pub deadline: Option<Millis>,
    /// Its key.
    pub key: &'a [u8],
}

impl<'a> Item<'a> {
    /// The next item; `None`: its end is not here yet.
    pub fn read(from: &mut &'a [u8]) -> Result<Option<Item<'a>>, Malformed> {
        let mut at = *from;
        let item = match take(&mut at) {
            Err(Malformed) => return Ok(None),
            Ok([SLOT]) => Item::slot(&mut at),
            Ok([STRING]) => Head::read(&mut at).and_then(|head| Ok(Item::String(head, read_bytes(&mut at)?))),
            Ok([HASH]) => Head::read(&mut at).map(Item::Hash),
            Ok([FIELD]) => read_bytes(&mut at).and_then(|field| Ok(Item::Field(field, read_bytes(&mut at)?))),
            Ok(_) => return Err(Malformed),
        };
        // Lengths fail in one way only: by bytes that are not there.
        Ok(item.ok().inspect(|_| *from = at))
    }

    fn slot(from: &mut &'a [u8]) -> Result<Item<'a>, Malformed> {
        let number = u16::from_le_bytes(take(from)?);
        Ok(Item::Slot(number, (read_u32(from)?, read_u32(from)?)))
    }
}

impl<'a> Head<'a> {
    fn read(from: &mut &'a [u8]) -> Result<Head<'a>, Malformed> {
        let version = read_u32(from)?;
        let deadline = u64::from_le_bytes(take(from)?);
        Ok(Head { version, deadline: (deadline != u64::MAX).then_some(deadline), key: read_bytes(from)? })
    }
}
