//! The shard's replicated state machine: takes committed entries into the keyspace.
//!
//! The same entries make the same keyspace on every copy; the piece that comes beside an entry on the node that
//! proposed it only decides who is answered. A snapshot is the keyspace and the log's clock, cut at once.

use std::sync::Arc;

use bytes::Bytes;
use slotcast_wire::reply::{Proto, Reply};
use slotcast_wire::request::Request;
use slotcast_wire::slot::SLOTS;
use tracing::error;

use crate::codec::Malformed;
use crate::command::needs::needs;
use crate::command::table;
use crate::keyspace::effect::{Change, Effect};
use crate::keyspace::locked::{Locked, Needs};
use crate::keyspace::snapshot::{read_slots, write_slot};
use crate::raft::machine::{Cut, InstallError, Local, MAX_SNAPSHOT_CHUNK, Machine, Stager, gathering};
use crate::shard::Shard;
use crate::shard::piece::{Piece, PieceReply, Pieces, Step};
use crate::shard::proposal::{self, Unit, Units};
use crate::shard::unit::{Occasion, Resolved, resolve};
use crate::time::Millis;

/// See the module's documentation.
pub struct ShardMachine {
    shard: Arc<Shard>,
    scratch: Vec<u8>,
}

/// What one entry executes with.
struct Entry<'a> {
    units: Units<'a>,
    now: Millis,
    seed: u64,
}

impl ShardMachine {
    /// The machine of a shard's copy.
    pub fn new(shard: Arc<Shard>) -> Self {
        Self { shard, scratch: Vec::new() }
    }

    /// Executes the entry's next unit; what a transaction says of its replies.
    fn unit(
        &self,
        entry: &mut Entry<'_>,
        (author, tracking): (Option<u64>, bool),
        reply: &mut Reply<'_>,
    ) -> Option<Option<Vec<usize>>> {
        entry.seed = entry.seed.wrapping_add(1);
        let occasion = Occasion { now: entry.now, seed: entry.seed, author, tracking };
        match entry.units.next()? {
            Ok(Unit::Request(encoded)) => {
                let mut request = Request::default();
                if let Some(command) = resolve(encoded, &mut request) {
                    let resolved = (command, request.args(encoded));
                    if let Ok(needs) = needs(command, resolved.1) {
                        self.shard.write(resolved, &needs, occasion, reply);
                    }
                }
                None
            }
            Ok(Unit::Transaction { watched, requests }) => {
                let parse = |encoded: &&[u8]| {
                    let mut request = Request::default();
                    resolve(encoded, &mut request).map(|command| (command, request))
                };
                let parsed: Vec<_> =
                    requests.iter().filter_map(|encoded| Some((parse(encoded)?, *encoded))).collect();
                let resolved: Vec<Resolved<'_>> = parsed
                    .iter()
                    .map(|((command, request), encoded)| (*command, request.args(encoded)))
                    .collect();
                Some(self.shard.transaction(&watched, &resolved, occasion, reply))
            }
            Ok(Unit::Expire(keys)) => {
                self.shard.remove(&keys, Change::Expired, occasion);
                None
            }
            Ok(Unit::Evict(keys)) => {
                self.shard.remove(&keys, Change::Evicted, occasion);
                None
            }
            Err(Malformed) => {
                error!(shard = %self.shard.id, "an entry of the log doesn't decode: nodes of different versions?");
                None
            }
        }
    }

    fn piece(&self, piece: Piece, index: u64, entry: &mut Entry<'_>) {
        let mut bytes = Vec::new();
        let mut transaction = None;
        for step in &piece.steps {
            let mut reply = Reply::new(&mut bytes, piece.proto);
            match step {
                Step::Logged => {
                    if let Some(ends) = self.unit(entry, (piece.author, piece.tracking), &mut reply) {
                        transaction = Some(ends);
                    }
                }
                Step::Read(args) => {
                    let Some(command) = table::resolve(args.as_args()) else { continue };
                    let occasion = Occasion {
                        now: entry.now,
                        seed: self.shard.stamp.seed(),
                        author: piece.author,
                        tracking: piece.tracking,
                    };
                    if let Ok(needs) = needs(command, args.as_args()) {
                        self.shard.read((command, args.as_args()), &needs, occasion, &mut reply);
                    }
                }
            }
        }
        // A connection that has closed meanwhile wants no reply.
        let _ = piece.reply.send(PieceReply::Applied { bytes, transaction, index });
    }
}

impl Machine for ShardMachine {
    fn apply(&mut self, index: u64, _term: u64, bytes: &Bytes, local: Option<Local>) {
        let Ok((time, seed, units)) = proposal::decode(bytes) else {
            error!(shard = %self.shard.id, index, "an entry of the log doesn't decode: nodes of different versions?");
            return;
        };
        let mut entry = Entry { units, now: self.shard.stamp.advance(time), seed };
        let mut scratch = std::mem::take(&mut self.scratch);
        if let Some(pieces) = local.as_ref().and_then(|local| local.downcast_ref::<Pieces>()) {
            for piece in std::mem::take(&mut *pieces.lock()) {
                self.piece(piece, index, &mut entry);
            }
        }
        // What has no piece: on followers all of it.
        while !entry.units.is_done() {
            scratch.clear();
            self.unit(&mut entry, (None, false), &mut Reply::new(&mut scratch, Proto::Resp2));
        }
        self.scratch = scratch;
    }

    fn snapshot(&mut self) -> Option<Cut> {
        let mut chunk = self.shard.stamp.advance(0).to_le_bytes().to_vec();
        let mut chunks = Vec::new();
        for slot in 0..SLOTS as u16 {
            write_slot(&self.shard.keyspace, slot, &mut chunk);
            if chunk.len() >= MAX_SNAPSHOT_CHUNK / 2 {
                split(std::mem::take(&mut chunk), &mut chunks);
            }
        }
        split(chunk, &mut chunks);
        Some(Box::new(chunks.into_iter().map(Ok)))
    }

    fn stager(&self) -> Stager {
        let shard = self.shard.clone();
        gathering(move |chunks| install(&shard, chunks))
    }
}

fn install(shard: &Shard, chunks: Vec<Bytes>) -> Result<(), InstallError> {
    let refuse = || InstallError("it is no snapshot of a keyspace of this version".into());
    let bytes: Vec<u8> = chunks.concat();
    let (time, slots) = bytes.split_first_chunk().ok_or_else(refuse)?;
    shard.stamp.advance(u64::from_le_bytes(*time));
    let now = shard.stamp.now();
    let mut locked = Locked::new(&shard.keyspace, &Needs::Everything, now, 0, || true);
    locked.flush();
    drop(locked);
    let read = read_slots(&shard.keyspace, slots).map_err(|_| refuse());
    // Whoever remembers a key of the replaced state cannot know whether it changed.
    shard.observer.observe(None, &[Effect::Flushed]);
    read
}

fn split(chunk: Vec<u8>, chunks: &mut Vec<Bytes>) {
    let mut rest = Bytes::from(chunk);
    while rest.len() > MAX_SNAPSHOT_CHUNK {
        chunks.push(rest.split_to(MAX_SNAPSHOT_CHUNK));
    }
    if !rest.is_empty() {
        chunks.push(rest);
    }
}
