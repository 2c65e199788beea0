//! The shard's replicated state machine: takes committed entries into the keyspace.
//!
//! The same entries make the same keyspace on every copy; the piece that comes beside an entry on the node that
//! proposed it only decides who is answered. A snapshot is the log's clock and the keyspace, cut between two entries and
//! written while later ones are applied.

use std::iter::once;
use std::sync::Arc;

use bytes::Bytes;
use slotcast_wire::reply::{Proto, Reply};
use slotcast_wire::request::Request;
use tokio::sync::oneshot;
use tracing::error;

use crate::codec::{Malformed, take};
use crate::command::needs::needs;
use crate::command::table;
use crate::keyspace::ahead::Lost;
use crate::keyspace::cut::{MAX_CHUNK, cut};
use crate::keyspace::discard::discard;
use crate::keyspace::effect::Change;
use crate::keyspace::snapshot::Reader;
use crate::raft::machine::{Cut, CutLost, InstallError, Local, MAX_SNAPSHOT_CHUNK, Machine, Staged, Stager};
use crate::shard::Shard;
use crate::shard::piece::{Piece, PieceReply, Pieces, Step};
use crate::shard::proposal::{self, Unit, Units};
use crate::shard::unit::{Occasion, Resolved, resolve};
use crate::time::Millis;

/// What a snapshot's first chunk begins with: the form of all that follows.
const FORMAT: u8 = 2;

const _: () = assert!(MAX_CHUNK <= MAX_SNAPSHOT_CHUNK);

/// See the module's documentation.
pub struct ShardMachine {
    shard: Arc<Shard>,
    scratch: Vec<u8>,
}

/// What one entry executes with.
struct Entry<'a> {
    index: u64,
    units: Units<'a>,
    now: Millis,
    seed: u64,
    /// This node has proposed it.
    here: bool,
}

/// Whose unit it is, on the node that proposed it.
#[derive(Clone, Copy, Default)]
struct Asker {
    author: Option<u64>,
    tracking: bool,
    stamped: bool,
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
        Asker { author, tracking, stamped }: Asker,
        reply: &mut Reply<'_>,
    ) -> Option<Option<Vec<usize>>> {
        entry.seed = entry.seed.wrapping_add(1);
        let (index, here) = (Some(entry.index), entry.here);
        let occasion = Occasion { now: entry.now, seed: entry.seed, author, tracking, stamped, index, here };
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
            Ok(Unit::BeginHistory { after, lineage }) => {
                if self.shard.history.lineage() == after {
                    self.shard.history.begin(lineage);
                    self.shard.observer.replaced(lineage, entry.index);
                }
                None
            }
            Err(Malformed) => {
                error!(shard = %self.shard.id, "an entry of the log doesn't decode: nodes of different versions?");
                None
            }
        }
    }

    /// Executes a piece; whom to answer, and what.
    fn piece(&self, piece: Piece, entry: &mut Entry<'_>) -> (oneshot::Sender<PieceReply>, PieceReply) {
        let mut bytes = Vec::new();
        let Piece { author, tracking, stamped, .. } = piece;
        let asker = Asker { author, tracking, stamped };
        let mut transaction = None;
        for step in &piece.steps {
            let mut reply = Reply::new(&mut bytes, piece.proto);
            match step {
                Step::Logged => {
                    if let Some(ends) = self.unit(entry, asker, &mut reply) {
                        transaction = Some(ends);
                    }
                }
                Step::Read(args) => {
                    let Some(command) = table::resolve(args.as_args()) else { continue };
                    let occasion = Occasion {
                        now: entry.now,
                        seed: self.shard.stamp.seed(),
                        author,
                        tracking,
                        stamped,
                        index: None,
                        here: true,
                    };
                    if let Ok(needs) = needs(command, args.as_args()) {
                        let resolved = (command, args.as_args());
                        self.shard
                            .observer
                            .looked_up(self.shard.read(resolved, &needs, occasion, &mut reply));
                    }
                }
            }
        }
        (piece.reply, PieceReply::Applied { bytes, transaction, index: entry.index })
    }
}

impl Machine for ShardMachine {
    fn apply(&mut self, index: u64, _term: u64, bytes: &Bytes, local: Option<Local>) {
        let Ok((time, seed, units)) = proposal::decode(bytes) else {
            error!(shard = %self.shard.id, index, "an entry of the log doesn't decode: nodes of different versions?");
            return;
        };
        let here = local.is_some();
        let mut entry = Entry { index, units, now: self.shard.stamp.advance(time), seed, here };
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut answers = Vec::new();
        if let Some(pieces) = local.as_ref().and_then(|local| local.downcast_ref::<Pieces>()) {
            let pieces = std::mem::take(&mut *pieces.lock());
            answers.extend(pieces.into_iter().map(|piece| self.piece(piece, &mut entry)));
        }
        // What has no piece: on followers all of it.
        while !entry.units.is_done() {
            scratch.clear();
            self.unit(&mut entry, Asker::default(), &mut Reply::new(&mut scratch, Proto::Resp2));
        }
        self.scratch = scratch;
        self.shard.history.advance(index);
        self.shard.observer.applied(index);
        // What is acknowledged is in the invalidation log: whoever asks where it stands learns of it.
        for (to, answer) in answers {
            // A connection that has closed meanwhile wants no reply.
            let _ = to.send(answer);
        }
    }

    fn snapshot(&mut self) -> Option<Cut> {
        let cut = cut(&self.shard.keyspace)?.map(|chunk| chunk.map_err(|Lost(why)| CutLost(why)));
        let Shard { stamp, history, .. } = &*self.shard;
        let mut head = vec![FORMAT];
        for part in [stamp.advance(0), history.lineage(), history.applied()] {
            head.extend_from_slice(&part.to_le_bytes());
        }
        Some(Box::new(once(Ok(head.into())).chain(cut)))
    }

    fn stager(&self) -> Stager {
        let shard = self.shard.clone();
        Arc::new(move || {
            let reader = Reader::new(shard.keyspace.successor());
            Box::new(StagedShard { shard: shard.clone(), head: None, reader: Some(reader) })
        })
    }
}

/// What a snapshot begins with.
#[derive(Clone, Copy)]
struct Head {
    /// The log's clock at the cut.
    time: Millis,
    /// The history it is a state of.
    lineage: u64,
    /// The last entry in it.
    index: u64,
}

/// A snapshot of the shard on its way in.
struct StagedShard {
    shard: Arc<Shard>,
    /// The first chunk.
    head: Option<Head>,
    /// The keys: the other chunks. Gone when it is installed.
    reader: Option<Reader>,
}

impl StagedShard {
    fn read(&mut self, chunk: &[u8]) -> Option<()> {
        if self.head.is_some() {
            return self.reader.as_mut()?.take(chunk).ok();
        }
        let mut chunk = chunk;
        let [FORMAT] = take(&mut chunk).ok()? else { return None };
        let mut next = || take(&mut chunk).map(u64::from_le_bytes).ok();
        self.head = Some(Head { time: next()?, lineage: next()?, index: next()? });
        chunk.is_empty().then_some(())
    }
}

impl Staged for StagedShard {
    fn take(&mut self, chunk: &Bytes) -> Result<(), InstallError> {
        self.read(chunk).ok_or_else(unfit)
    }

    fn install(mut self: Box<Self>) -> Result<(), InstallError> {
        let Head { time, lineage, index } = self.head.ok_or_else(unfit)?;
        let keyspace = self.reader.take().and_then(|reader| reader.finish().ok()).ok_or_else(unfit)?;
        self.shard.stamp.advance(time);
        self.shard.keyspace.succeed_by(keyspace);
        self.shard.history.begin(lineage);
        self.shard.history.advance(index);
        // Whoever remembers a key of the replaced state cannot know whether it changed.
        self.shard.observer.replaced(lineage, index);
        Ok(())
    }
}

impl Drop for StagedShard {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take() {
            discard(reader);
        }
    }
}

fn unfit() -> InstallError {
    InstallError("it is no snapshot of a keyspace of this version".into())
}

#[cfg(test)]
mod tests {
    use slotcast_wire::args::OwnedArgs;

    use super::*;
    use crate::id::GroupId;
    use crate::keyspace::effect::{Audience, Effect};
    use crate::keyspace::locked::{Lookups, Needs};
    use crate::shard::observer::Observer;
    use crate::time::Clock;

    /// Notes what it is told.
    #[derive(Default)]
    struct Told(parking_lot::Mutex<Vec<(u64, u64)>>);

    impl Audience for Told {
        fn cares_for(&self, _key: &[u8]) -> bool {
            false
        }
    }

    impl Observer for Told {
        fn observe(&self, _index: u64, _author: Option<u64>, _effects: &[Effect]) {}

        fn applied(&self, _index: u64) {}

        fn replaced(&self, lineage: u64, index: u64) {
            self.0.lock().push((lineage, index));
        }

        fn removed(&self, _change: Change, _keys: usize) {}

        fn remember(&self, _reader: u64, _key: &[u8]) {}

        fn looked_up(&self, _lookups: Lookups) {}
    }

    fn machine() -> (ShardMachine, Arc<Shard>, Arc<Told>) {
        let told = Arc::<Told>::default();
        let shard = Arc::new(Shard::new(GroupId(1), told.clone(), Clock::System, 1));
        (ShardMachine::new(shard.clone()), shard, told)
    }

    fn apply(machine: &mut ShardMachine, time: Millis, words: &[&str]) {
        let mut bytes = Vec::new();
        proposal::begin(time, 1, &mut bytes);
        let request: OwnedArgs = words.iter().map(|word| word.to_string()).collect();
        proposal::put_request(request.encoded(), &mut bytes);
        machine.apply(1, 1, &bytes.into(), None);
    }

    fn text(shard: &Shard, key: &str) -> Option<String> {
        let locked = shard.lock(&Needs::Everything, 0);
        let found = locked.string(key.as_bytes()).ok()??;
        Some(String::from_utf8_lossy(found).into_owned())
    }

    #[test]
    fn a_snapshot_brings_keys_and_clock_as_they_were_at_the_cut() {
        let ((mut from, ..), (mut to, copy, told)) = (machine(), machine());
        apply(&mut from, u64::MAX / 2, &["set", "a", "first"]);
        let mut begin = Vec::new();
        proposal::begin(1, 1, &mut begin);
        proposal::put_begin_history(0, 77, &mut begin);
        from.apply(5, 1, &begin.into(), None);
        let cut = from.snapshot().unwrap();
        assert!(from.snapshot().is_none(), "one at a time");
        apply(&mut from, u64::MAX / 2 + 1, &["set", "a", "second"]);
        apply(&mut from, u64::MAX / 2 + 1, &["set", "b", "later"]);
        apply(&mut to, 1, &["set", "gone", "x"]);
        let mut staged = to.stager()();
        cut.for_each(|chunk| staged.take(&chunk.unwrap()).unwrap());
        assert_eq!(text(&copy, "gone").as_deref(), Some("x"), "nothing changes before it is installed");
        staged.install().unwrap();
        assert_eq!(text(&copy, "a").as_deref(), Some("first"));
        assert_eq!((text(&copy, "b"), text(&copy, "gone")), (None, None));
        assert_eq!(copy.stamp.now(), u64::MAX / 2, "the log's clock");
        assert_eq!(*told.0.lock(), [(77, 5)], "caches forget the replaced state");
        assert_eq!((copy.history.lineage(), copy.history.applied()), (77, 5));
        assert!(from.snapshot().is_some());
    }

    #[test]
    fn what_is_no_whole_snapshot_is_not_installed() {
        let (mut from, ..) = machine();
        apply(&mut from, 1, &["set", "a", "first"]);
        let chunks: Vec<Bytes> = from.snapshot().unwrap().map(Result::unwrap).collect();
        let (to, copy, _) = machine();
        let staged = |chunks: &[Bytes]| {
            let mut staged = to.stager()();
            chunks.iter().try_for_each(|chunk| staged.take(chunk)).and_then(|()| staged.install())
        };
        assert!(staged(&[]).is_err());
        assert!(staged(&chunks[1..]).is_err(), "no clock, no format");
        let shortened = chunks[1].slice(..chunks[1].len() - 1);
        assert!(staged(&[chunks[0].clone(), shortened]).is_err());
        assert_eq!(copy.keyspace.usage().keys, 0);
        staged(&chunks).unwrap();
        assert_eq!(text(&copy, "a").as_deref(), Some("first"));
    }
}
