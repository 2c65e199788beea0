//! The frames of the invalidation stream (`INVALIDATIONS SUBSCRIBE`), as both ends write and read them.
//!
//! ```text
//! >6 inv        shard lineage from to [key index ...]    every change in (from, to] that the subscriber asked for
//! >7 inv-slots  shard lineage to epoch [a b ...] reason  treat each key of these slots (a to b) as changed at `to`
//! >2 inv-hb     [shard lineage to age ...]               a quorum vouched for the stream up to `to`, `age` ms ago
//! |1 stamp      [shard lineage index pttl]               in front of a reply: when it was true (CLIENT STAMP ON)
//! ```
//! A key is named twice in a row if the entry of its last change had changed it before: a stamp says in which entry a
//! write is and not where in it, so a cache must not take its own write of that index for the last one.
//!
//! An interval leaves nothing out: filters, batches, and a key's changes put together never look like a gap, and a gap
//! shows as a `from` that isn't where the subscriber stands.

use crate::frame::Frame;
use crate::position::Position;
use crate::reply::{Proto, Reply};
use crate::slot::SLOTS;

/// Why slots are invalidated instead of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The log does not reach back to where the subscriber stands.
    Window,
    /// All keys were removed.
    Flushed,
    /// More keys have changed than are worth naming.
    TooMany,
    /// The shard's history is another one.
    Lineage,
}

/// A push of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Push {
    /// Keys that changed.
    Keys {
        /// The end of the interval.
        to: Position,
        /// Its start: the subscriber's cursor before it.
        from: u64,
        /// Each with the index of its last change in the interval; twice in a row if that entry changed it more than once.
        keys: Vec<(Vec<u8>, u64)>,
    },
    /// Slots of which any key may have changed.
    Slots {
        /// As of.
        to: Position,
        /// The topology's version that `slots` is of.
        epoch: u64,
        /// First and last, both included.
        slots: Vec<(u16, u16)>,
        /// Why.
        reason: Reason,
    },
    /// The subscriber has everything up to these positions, and so much was true so many ms ago.
    Heartbeat(Vec<(Position, u64)>),
}

const KEYS: &[u8] = b"inv";
const SLOT_RANGES: &[u8] = b"inv-slots";
const HEARTBEAT: &[u8] = b"inv-hb";
const STAMP: &[u8] = b"stamp";

impl Reason {
    const ALL: [(Reason, &'static str); 4] = [
        (Reason::Window, "window"),
        (Reason::Flushed, "flushall"),
        (Reason::TooMany, "toomany"),
        (Reason::Lineage, "lineage"),
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(reason, _)| *reason == self).map_or("", |(_, name)| name)
    }

    fn read(name: &[u8]) -> Option<Reason> {
        Self::ALL.iter().find(|(_, known)| known.as_bytes() == name).map(|(reason, _)| *reason)
    }
}

/// Appends `inv`.
pub fn write_keys<K: AsRef<[u8]>>(out: &mut Vec<u8>, to: Position, from: u64, keys: &[(K, u64)]) {
    let mut push = push(out, 6, KEYS);
    write_lineage(&mut push, to);
    push.integer(from as i64);
    push.integer(to.index as i64);
    push.array(keys.len() * 2);
    for (key, index) in keys {
        push.bulk(key.as_ref());
        push.integer(*index as i64);
    }
}

/// Appends `inv-slots`.
pub fn write_slots(out: &mut Vec<u8>, to: Position, epoch: u64, slots: &[(u16, u16)], reason: Reason) {
    let mut push = push(out, 7, SLOT_RANGES);
    write_lineage(&mut push, to);
    push.integer(to.index as i64);
    push.integer(epoch as i64);
    write_ranges(&mut push, slots);
    push.bulk(reason.name().as_bytes());
}

/// Appends `inv-hb`.
pub fn write_heartbeat(out: &mut Vec<u8>, positions: &[(Position, u64)]) {
    let mut push = push(out, 2, HEARTBEAT);
    push.array(positions.len() * 4);
    for (position, age) in positions {
        write_lineage(&mut push, *position);
        push.integer(position.index as i64);
        push.integer(*age as i64);
    }
}

/// Appends slots as an array of first, last, first, last ...
pub fn write_ranges(reply: &mut Reply<'_>, slots: &[(u16, u16)]) {
    reply.array(slots.len() * 2);
    for (first, last) in slots {
        reply.integer((*first).into());
        reply.integer((*last).into());
    }
}

/// Appends the attribute `stamp`, which the reply is to follow. `pttl`: the key's remaining time in ms as PTTL says it
/// (-1: it has no deadline, -2: there is no key).
pub fn write_stamp(out: &mut Vec<u8>, position: Position, pttl: i64) {
    let mut attribute = Reply::new(out, Proto::Resp3);
    if attribute.attribute(1) {
        attribute.bulk(STAMP);
        attribute.array(4);
        write_lineage(&mut attribute, position);
        attribute.integer(position.index as i64);
        attribute.integer(pttl);
    }
}

/// Reads a push of the stream; `None`: it is another one, or malformed.
pub fn read_push(push: &Frame) -> Option<Push> {
    let Frame::Push(parts) = push else { return None };
    match (parts.first()?.as_bytes()?, parts.get(1..)?) {
        (KEYS, [shard, lineage, from, to, Frame::Array(keys)]) => {
            let pair = |pair: &[Frame]| Some((pair.first()?.as_bytes()?.to_vec(), number(pair.get(1)?)?));
            let keys = keys.chunks(2).map(pair).collect::<Option<_>>()?;
            Some(Push::Keys { to: position(shard, lineage, to)?, from: number(from)?, keys })
        }
        (SLOT_RANGES, [shard, lineage, to, epoch, slots, reason]) => Some(Push::Slots {
            to: position(shard, lineage, to)?,
            epoch: number(epoch)?,
            slots: read_ranges(slots)?,
            reason: Reason::read(reason.as_bytes()?)?,
        }),
        (HEARTBEAT, [Frame::Array(positions)]) => {
            let one = |one: &[Frame]| {
                let [shard, lineage, to, age] = one else { return None };
                Some((position(shard, lineage, to)?, number(age)?))
            };
            positions.chunks(4).map(one).collect::<Option<_>>().map(Push::Heartbeat)
        }
        _ => None,
    }
}

/// Reads slots written by [`write_ranges`].
pub fn read_ranges(slots: &Frame) -> Option<Vec<(u16, u16)>> {
    let Frame::Array(slots) = slots else { return None };
    let slot = |frame: Option<&Frame>| {
        number(frame?).filter(|slot| *slot < SLOTS as u64).and_then(|slot| u16::try_from(slot).ok())
    };
    slots.chunks(2).map(|pair| Some((slot(pair.first())?, slot(pair.get(1))?))).collect()
}

/// The stamp among a reply's attributes, and the key's remaining time.
pub fn read_stamp(attributes: &[(Frame, Frame)]) -> Option<(Position, i64)> {
    let (_, stamp) = attributes.iter().find(|(name, _)| name.as_bytes() == Some(STAMP))?;
    let Frame::Array(parts) = stamp else { return None };
    let [shard, lineage, index, Frame::Integer(pttl)] = parts.as_slice() else { return None };
    Some((position(shard, lineage, index)?, *pttl))
}

fn push<'a>(out: &'a mut Vec<u8>, len: usize, kind: &[u8]) -> Reply<'a> {
    let mut push = Reply::new(out, Proto::Resp3);
    push.push(len);
    push.bulk(kind);
    push
}

fn write_lineage(reply: &mut Reply<'_>, position: Position) {
    reply.integer(position.shard.into());
    reply.integer(position.lineage as i64);
}

fn position(shard: &Frame, lineage: &Frame, index: &Frame) -> Option<Position> {
    let shard = number(shard)?.try_into().ok()?;
    Some(Position { shard, lineage: number(lineage)?, index: number(index)? })
}

fn number(frame: &Frame) -> Option<u64> {
    match frame {
        Frame::Integer(n) => u64::try_from(*n).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FrameDecoder;

    fn decode(bytes: &[u8]) -> Frame {
        let (taken, frame) = FrameDecoder::default().decode(bytes).unwrap();
        assert_eq!(taken, bytes.len());
        frame.unwrap()
    }

    const AT: Position = Position { shard: 2, lineage: 77, index: 40 };

    #[test]
    fn what_one_end_writes_the_other_reads() {
        let mut out = Vec::new();
        write_keys(&mut out, AT, 30, &[("a", 31), ("b", 40)]);
        let keys = vec![(b"a".to_vec(), 31), (b"b".to_vec(), 40)];
        assert_eq!(read_push(&decode(&out)), Some(Push::Keys { to: AT, from: 30, keys }));
        out.clear();
        write_slots(&mut out, AT, 9, &[(0, 5), (16383, 16383)], Reason::TooMany);
        let slots = vec![(0, 5), (16383, 16383)];
        let wanted = Push::Slots { to: AT, epoch: 9, slots, reason: Reason::TooMany };
        assert_eq!(read_push(&decode(&out)), Some(wanted));
        out.clear();
        write_heartbeat(&mut out, &[(AT, 12), (AT, 0)]);
        assert_eq!(read_push(&decode(&out)), Some(Push::Heartbeat(vec![(AT, 12), (AT, 0)])));
        out.clear();
        write_stamp(&mut out, AT, -2);
        Reply::new(&mut out, Proto::Resp3).null();
        let Frame::Attributed(attributes, reply) = decode(&out) else { panic!("an attribute") };
        assert_eq!((read_stamp(&attributes), *reply), (Some((AT, -2)), Frame::Null));
    }

    #[test]
    fn other_pushes_and_nonsense_are_none_of_them() {
        let bulk = |text: &str| Frame::Bulk(text.into());
        for push in [
            vec![],
            vec![bulk("invalidate"), Frame::Null],
            vec![bulk("inv"), Frame::Integer(1)],
            vec![bulk("inv-hb"), Frame::Array(vec![Frame::Integer(1)])],
            vec![bulk("inv-hb"), Frame::Array(vec![Frame::Integer(-1); 4])],
        ] {
            assert_eq!(read_push(&Frame::Push(push)), None);
        }
        assert_eq!(read_ranges(&Frame::Array(vec![Frame::Integer(1)])), None);
        assert_eq!(read_ranges(&Frame::Array(vec![Frame::Integer(0), Frame::Integer(16384)])), None);
        assert_eq!(read_push(&bulk("inv")), None);
    }
}
