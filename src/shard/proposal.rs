//! What a log entry of a shard holds, as bytes.
//!
//! ```text
//! entry   = version u8 | leader's time u64 | seed u64 | unit*
//! unit    = 0 | length u32 | request          one request, the RESP bytes the client sent
//!         | 1 | length u32 | transaction      what EXEC executes, with what WATCH demands
//!         | 2 | length u32 | key*             remove these if they are past their deadline
//!         | 3 | length u32 | key*             remove these: memory is short
//!         | 4 | length u32 | after u64, u64   another history begins, if the one so far is `after`
//! transaction = watched u32 | (kind u8 | version u32 | key)* | requests u32 | (length u32 | request)*
//! key     = length u32 | bytes
//! ```
//! All integers little-endian. Requests stay as they came: the leader copies bytes, a follower parses them with the
//! parser that took them in. Decoding never panics and never reads past the end; an entry that doesn't decode was
//! not written by this version, and the machine stops rather than diverge.

use crate::codec::{Malformed, put_bytes, put_u32, read_bytes, read_u32, take};
use crate::keyspace::slot::Stamp;
use crate::time::Millis;

const VERSION: u8 = 1;
const REQUEST: u8 = 0;
const TRANSACTION: u8 = 1;
const EXPIRE: u8 = 2;
const EVICT: u8 = 3;
const BEGIN_HISTORY: u8 = 4;
const HEADER: usize = 1 + 8 + 8;

/// One indivisible piece of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unit<'a> {
    /// One request's RESP bytes.
    Request(&'a [u8]),
    /// A transaction.
    Transaction {
        /// Keys, and the state they must have.
        watched: Vec<(&'a [u8], Stamp)>,
        /// The requests' RESP bytes.
        requests: Vec<&'a [u8]>,
    },
    /// Keys to remove if they are past their deadline.
    Expire(Vec<&'a [u8]>),
    /// Keys to remove.
    Evict(Vec<&'a [u8]>),
    /// Another history begins (see [`History`](crate::shard::history::History)).
    BeginHistory {
        /// The lineage so far; another one: nothing happens, the proposal came twice.
        after: u64,
        /// The lineage from here on.
        lineage: u64,
    },
}

/// The start of an entry.
pub fn begin(time: Millis, seed: u64, out: &mut Vec<u8>) {
    out.push(VERSION);
    out.extend_from_slice(&time.to_le_bytes());
    out.extend_from_slice(&seed.to_le_bytes());
}

/// Appends a request.
pub fn put_request(request: &[u8], out: &mut Vec<u8>) {
    out.push(REQUEST);
    put_bytes(out, request);
}

/// Appends a transaction.
pub fn put_transaction<'a>(
    watched: &[(Box<[u8]>, Stamp)],
    requests: impl ExactSizeIterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) {
    put_unit(TRANSACTION, out, |out| {
        put_u32(out, watched.len() as u32);
        for (key, stamp) in watched {
            let (kind, version) = match stamp {
                Stamp::Absent(version) => (0, version),
                Stamp::Present(version) => (1, version),
            };
            out.push(kind);
            put_u32(out, *version);
            put_bytes(out, key);
        }
        put_u32(out, requests.len() as u32);
        requests.for_each(|request| put_bytes(out, request));
    });
}

/// Appends keys to remove if they are past their deadline.
pub fn put_expire(keys: &[Box<[u8]>], out: &mut Vec<u8>) {
    put_unit(EXPIRE, out, |out| keys.iter().for_each(|key| put_bytes(out, key)));
}

/// Appends keys to remove.
pub fn put_evict(keys: &[Box<[u8]>], out: &mut Vec<u8>) {
    put_unit(EVICT, out, |out| keys.iter().for_each(|key| put_bytes(out, key)));
}

/// Appends the beginning of a history.
pub fn put_begin_history(after: u64, lineage: u64, out: &mut Vec<u8>) {
    put_unit(BEGIN_HISTORY, out, |out| {
        [after, lineage].iter().for_each(|part| out.extend_from_slice(&part.to_le_bytes()));
    });
}

/// Time, seed and units of an entry.
pub fn decode(entry: &[u8]) -> Result<(Millis, u64, Units<'_>), Malformed> {
    let mut from = entry;
    let [version] = take(&mut from)?;
    if version != VERSION {
        return Err(Malformed);
    }
    let (time, seed) = (u64::from_le_bytes(take(&mut from)?), u64::from_le_bytes(take(&mut from)?));
    Ok((time, seed, Units(from)))
}

/// Bytes an entry takes before its first unit.
pub const fn header_len() -> usize {
    HEADER
}

/// The units of an entry, in order.
pub struct Units<'a>(&'a [u8]);

impl Units<'_> {
    /// Whether no unit is left.
    pub fn is_done(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> Iterator for Units<'a> {
    type Item = Result<Unit<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_empty()).then(|| {
            let unit = read_unit(&mut self.0);
            if unit.is_err() {
                self.0 = &[];
            }
            unit
        })
    }
}

fn read_unit<'a>(from: &mut &'a [u8]) -> Result<Unit<'a>, Malformed> {
    let [kind] = take(from)?;
    let mut body = read_bytes(from)?;
    match kind {
        REQUEST => Ok(Unit::Request(body)),
        TRANSACTION => {
            let mut watched = Vec::new();
            for _ in 0..read_u32(&mut body)? {
                let [kind] = take(&mut body)?;
                let version = read_u32(&mut body)?;
                let stamp = if kind == 0 { Stamp::Absent(version) } else { Stamp::Present(version) };
                watched.push((read_bytes(&mut body)?, stamp));
            }
            let mut requests = Vec::new();
            for _ in 0..read_u32(&mut body)? {
                requests.push(read_bytes(&mut body)?);
            }
            Ok(Unit::Transaction { watched, requests })
        }
        EXPIRE => read_keys(body).map(Unit::Expire),
        EVICT => read_keys(body).map(Unit::Evict),
        BEGIN_HISTORY => {
            let mut next = || take(&mut body).map(u64::from_le_bytes);
            Ok(Unit::BeginHistory { after: next()?, lineage: next()? })
        }
        _ => Err(Malformed),
    }
}

fn read_keys(mut body: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
    let mut keys = Vec::new();
    while !body.is_empty() {
        keys.push(read_bytes(&mut body)?);
    }
    Ok(keys)
}

fn put_unit(kind: u8, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    let at = out.len();
    put_u32(out, 0);
    body(out);
    let len = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&len.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_entry_decodes_to_what_went_in() {
        let mut entry = Vec::new();
        begin(12, 34, &mut entry);
        assert_eq!(entry.len(), header_len());
        put_evict(&[Box::from(*b"old")], &mut entry);
        put_expire(&[], &mut entry);
        put_begin_history(0, u64::MAX / 2, &mut entry);
        put_request(b"*1\r\n$4\r\nPING\r\n", &mut entry);
        let watched = [(Box::from(*b"w"), Stamp::Absent(7))];
        put_transaction(&watched, [&b"a"[..], b"b"].into_iter(), &mut entry);
        let (time, seed, units) = decode(&entry).unwrap();
        assert_eq!((time, seed), (12, 34));
        let units: Vec<_> = units.collect::<Result<_, _>>().unwrap();
        assert_eq!(
            units,
            [
                Unit::Evict(vec![b"old"]),
                Unit::Expire(vec![]),
                Unit::BeginHistory { after: 0, lineage: u64::MAX / 2 },
                Unit::Request(b"*1\r\n$4\r\nPING\r\n"),
                Unit::Transaction { watched: vec![(b"w", Stamp::Absent(7))], requests: vec![b"a", b"b"] },
            ]
        );
    }

    proptest! {
        #[test]
        fn nonsense_is_refused(mut bytes: Vec<u8>, versioned: bool) {
            if versioned && !bytes.is_empty() {
                bytes[0] = VERSION;
            }
            if let Ok((_, _, units)) = decode(&bytes) {
                let _ = units.collect::<Result<Vec<_>, _>>();
            }
        }
    }
}
