//! An XREAD of invalidation logs that may have to wait, and how changes look as a stream's entries.

use std::time::Duration;

use slotcast_wire::reply::{Proto, Reply};

use crate::id::GroupId;
use crate::session::context::Context;
use crate::session::following::Lands;
use crate::tracking::excerpt::{Change, Excerpt, Id};
use crate::tracking::feed::Territory;

/// An XREAD, as it is tried and tried again.
pub struct Reading {
    /// Their keys, their shards, and the ids already seen.
    pub streams: Vec<(Box<[u8]>, GroupId, Id)>,
    /// Changes of each, at most.
    pub count: usize,
    /// How long it waits (zero: without limit); none: not at all.
    pub block: Option<Duration>,
    /// How the reply is written.
    pub proto: Proto,
}

impl Reading {
    /// Appends the reply, if there is anything new.
    pub fn read(&self, context: &Context, out: &mut Vec<u8>) -> bool {
        let lands = Lands(context.view());
        let (mut found, mut frames) = (0, Vec::new());
        for (key, shard, after) in &self.streams {
            let Some(ring) = context.rings.ring(*shard) else { continue };
            let excerpt = Excerpt::after(&ring, *after, Id::MAX, self.count);
            if excerpt.is_empty() {
                continue;
            }
            found += 1;
            let mut reply = Reply::new(&mut frames, self.proto);
            if self.proto == Proto::Resp2 {
                reply.array(2);
            }
            reply.bulk(key);
            write(&excerpt, &lands, *shard, &mut reply);
        }
        if found > 0 {
            let mut reply = Reply::new(out, self.proto);
            match self.proto {
                Proto::Resp2 => reply.array(found),
                Proto::Resp3 => reply.map(found),
            }
            reply.raw(&frames);
        }
        found > 0
    }
}

/// Writes changes as a stream's entries.
pub fn write(excerpt: &Excerpt, lands: &Lands, shard: GroupId, reply: &mut Reply<'_>) {
    reply.array(excerpt.changes.len());
    let lineage = excerpt.lineage.to_string();
    for (id, change) in &excerpt.changes {
        reply.array(2);
        reply.bulk(id.to_string().as_bytes());
        let mut fields: Vec<&[u8]> = vec![b"lineage", lineage.as_bytes()];
        let slots;
        match change {
            Change::Key(key) => fields.extend([&b"key"[..], key]),
            Change::Slot(slot) => {
                slots = slot.to_string();
                fields.extend([&b"flush"[..], b"toomany", b"slots", slots.as_bytes()]);
            }
            Change::All(reason) => {
                let ranges = lands.slots(shard).0.ranges();
                let ranges: Vec<String> =
                    ranges.iter().map(|(first, last)| format!("{first}-{last}")).collect();
                slots = ranges.join(",");
                fields.extend([&b"flush"[..], reason.name().as_bytes(), b"slots", slots.as_bytes()]);
            }
        }
        reply.array(fields.len());
        fields.iter().for_each(|field| reply.bulk(field));
    }
}
