//! The end of the log that is written to: encodes, writes, goes on to the next segment, holds back what finds no room.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;

use crate::wal::disk::{Disk, DiskFile};
use crate::wal::flush::{Condition, Done, Flush};
use crate::wal::ledger::Ledger;
use crate::wal::record::{Kind, Record};
use crate::wal::scan::{Found, Position};
use crate::wal::segment::{Header, name};
use crate::wal::trust::{Boot, Sync};
use crate::wal::{Key, NODE};

/// How long segments are, in bytes. A record never goes over two, so the last one of a segment may reach beyond.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// The first one; each next one is four times as long ...
    pub first: u64,
    /// ... up to this.
    pub longest: u64,
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes { first: 1 << 20, longest: 64 << 20 }
    }
}

impl Sizes {
    fn after(self, size: u64) -> u64 {
        (size * 4).min(self.longest)
    }
}

/// Bytes held back while the disk is full. A member that appends beyond that is told that it failed, and is replaced.
pub const MOST_HELD: usize = 64 << 20;
/// The encoding buffer is let go of when one turn made it longer than this.
const KEPT_BUFFER: usize = 4 << 20;

/// A file that is removed when the disk is full, so that votes, which are small, still find room: a node that could not
/// vote would hang, and could not even hand its leaderships over.
pub const BALLAST: &str = "ballast";
/// Its bytes.
pub const BALLAST_BYTES: u64 = 256 << 10;

/// Suffix of a segment that is being prepared.
pub const UNFINISHED: &str = ".new";

/// What is said again of a member at the head of each segment.
#[derive(Clone, Debug, Default)]
struct Head {
    vote: Option<(u64, u64, bool)>,
    committed: Option<(u64, u64)>,
    base: Option<(u64, u64)>,
}

/// Encoded records that wait for room, and who is to be told.
struct Held {
    bytes: Vec<u8>,
    done: Done,
    durable: bool,
}

/// See the module. Its owner locks it.
pub struct Writer {
    disk: Arc<dyn Disk>,
    header: Header,
    /// How it writes, which in doubt is not what the header says.
    sync: Sync,
    file: Arc<dyn DiskFile>,
    /// Where the next record goes.
    at: u64,
    /// Where the next segment begins.
    size: u64,
    sizes: Sizes,
    /// Which segments are needed.
    pub ledger: Ledger,
    heads: BTreeMap<Key, Head>,
    note: Option<Vec<u8>>,
    buffer: Vec<u8>,
    /// Told when the disk has it.
    waiting: Vec<Done>,
    /// Earlier segments that the disk may not have whole.
    unsynced: Vec<Arc<dyn DiskFile>>,
    names_unsynced: bool,
    synced: Position,
    /// What the log says is synced.
    said: Position,
    held: VecDeque<Held>,
    held_bytes: usize,
    /// Whether there is a file that can be thrown overboard.
    ballast: bool,
    /// The next segment, zeroed, and its size.
    prepared: Option<(Arc<dyn DiskFile>, u64)>,
    failed: Option<String>,
}

impl Writer {
    /// Begins segment `header.number` after what was found.
    pub fn begin(
        disk: Arc<dyn Disk>,
        (header, sync, sizes): (Header, Sync, Sizes),
        ledger: Ledger,
        members: &BTreeMap<Key, Found>,
        note: Option<Vec<u8>>,
    ) -> io::Result<Writer> {
        let head = |found: &Found| Head { vote: found.vote, committed: found.committed, base: found.base };
        let heads = members.iter().map(|(key, found)| (*key, head(found))).collect();
        let file = disk.create(&name(header.number))?;
        let start = (header.number, 0);
        let mut writer = Writer {
            disk,
            header,
            sync,
            file: file.clone(),
            at: 0,
            size: sizes.first,
            sizes,
            ledger,
            heads,
            note,
            buffer: Vec::new(),
            waiting: Vec::new(),
            unsynced: Vec::new(),
            names_unsynced: true,
            synced: start,
            said: start,
            held: VecDeque::new(),
            held_bytes: 0,
            ballast: false,
            prepared: None,
            failed: None,
        };
        writer.enter(file, header, sizes.first, false)?;
        writer.unsynced.clear();
        Ok(writer)
    }

    /// Goes on in a new file: with its header, and what earlier segments said that must not go with them.
    fn enter(&mut self, file: Arc<dyn DiskFile>, header: Header, size: u64, cleared: bool) -> io::Result<()> {
        self.buffer.clear();
        self.buffer.extend_from_slice(&header.bytes());
        let mark = header.mark();
        let mut put = |record: Record| record.put(mark, &mut self.buffer);
        if cleared {
            put(Record::new(Kind::Cleared, NODE, 0, 0));
        }
        if let Some(note) = &self.note {
            put(Record { body: [&[], note], ..Record::new(Kind::Note, NODE, 0, 0) });
        }
        for (key, head) in &self.heads {
            if let Some((term, member, won)) = head.vote {
                put(Record { body: [&[], &[won as u8]], ..Record::new(Kind::Vote, *key, term, member) });
            }
            if let Some((term, index)) = head.committed {
                put(Record::new(Kind::Committed, *key, term, index));
            }
        }
        file.write_at(0, &self.buffer)?;
        self.unsynced.push(std::mem::replace(&mut self.file, file));
        self.names_unsynced = true;
        (self.header, self.size, self.at) = (header, size, self.buffer.len() as u64);
        self.ledger.begin(header.number);
        self.ledger.wrote(self.at);
        Ok(())
    }

    /// From the next segment on the log says that all before it is whole, as of this boot.
    pub fn believe(&mut self, boot: Option<Boot>) -> io::Result<()> {
        let doubted = self.header;
        (self.header.boot, self.header.sync) = (boot, self.sync);
        self.rotate(false).inspect_err(|_| self.header = doubted)
    }

    /// Goes on to the next segment, or stays in this one if that cannot be.
    fn rotate(&mut self, cleared: bool) -> io::Result<()> {
        let header = Header { number: self.header.number + 1, ..self.header };
        let called = name(header.number);
        let longer = self.sizes.after(self.size);
        let (file, size) = match self.prepared.take() {
            Some((file, size)) => {
                self.disk.rename(&(called.clone() + UNFINISHED), &called)?;
                (file, size)
            }
            None => (self.disk.create(&called)?, longer),
        };
        self.enter(file, header, size, cleared)
    }

    /// Zeroes the next segment, so that waiting for the disk is later a write of its contents only (twice as fast).
    /// To be called by the flusher; writes outside of the lock.
    pub fn unprepared(&self) -> Option<(Arc<dyn Disk>, String, u64)> {
        let wanted = self.sync == Sync::Always && self.prepared.is_none() && self.failed.is_none();
        let size = self.sizes.after(self.size);
        // Not before a part of this one is used: a log that is hardly written to takes no room.
        (wanted && self.at > self.size / 4)
            .then(|| (self.disk.clone(), name(self.header.number + 1) + UNFINISHED, size))
    }

    /// That was done for the segment after `number`.
    pub fn prepared(&mut self, file: Arc<dyn DiskFile>, called: &str, size: u64) {
        if called == name(self.header.number + 1) + UNFINISHED {
            self.prepared = Some((file, size));
        }
    }

    /// Appends records; who is to be told at once is returned.
    pub fn append<'a>(
        &mut self,
        records: impl IntoIterator<Item = Record<'a>>,
        done: Done,
        durable: bool,
    ) -> Option<(Done, io::Result<()>)> {
        if let Some(why) = &self.failed {
            return Some((done, Err(io::Error::other(why.clone()))));
        }
        if self.at >= self.size && self.held.is_empty() {
            match self.rotate(false) {
                Err(error) if !is_full(&error) => return self.fail(done, &error),
                _ => {}
            }
        }
        self.encode(records);
        self.write(done, durable)
    }

    fn encode<'a>(&mut self, records: impl IntoIterator<Item = Record<'a>>) {
        let mark = self.header.mark();
        self.buffer.clear();
        if self.said != self.synced {
            self.said = self.synced;
            Record::new(Kind::Synced, NODE, self.synced.0, self.synced.1).put(mark, &mut self.buffer);
        }
        for record in records {
            record.put(mark, &mut self.buffer);
            let Record { kind, key, term, index, body } = record;
            match kind {
                Kind::Append => self.ledger.appended(key, index),
                Kind::Note => self.note = Some(body.concat()),
                Kind::Vote => self.head(key).vote = Some((term, index, body[1] == [1])),
                Kind::Committed => self.head(key).committed = Some((term, index)),
                Kind::Purge => self.head(key).base = Some((term, index)),
                Kind::Forget => {
                    self.heads.remove(&key);
                    self.ledger.forget(key);
                }
                _ => {}
            }
        }
    }

    /// Other members of this one's group.
    pub fn others_of(&self, (group, member): Key) -> BTreeSet<Key> {
        let known = self.heads.keys().copied().chain(self.ledger.members());
        known.filter(|other| other.0 == group && other.1 != member).collect()
    }

    fn head(&mut self, key: Key) -> &mut Head {
        self.heads.entry(key).or_default()
    }

    /// Writes the buffer, or holds it back.
    fn write(&mut self, done: Done, durable: bool) -> Option<(Done, io::Result<()>)> {
        // What must be on the disk before its owner goes on (votes) may overtake entries, which nobody counts on yet.
        let written = match self.held.is_empty() || durable && !self.ballast {
            true => self.file.write_at(self.at, &self.buffer),
            false => Err(io::ErrorKind::StorageFull.into()),
        };
        if self.ballast && written.as_ref().is_err_and(is_full) {
            self.ballast = self.disk.remove(BALLAST).is_err();
            if durable {
                return self.write(done, durable);
            }
        }
        let length = self.buffer.len();
        let told = match written {
            Ok(()) => {
                self.at += length as u64;
                self.ledger.wrote(length as u64);
                self.written(done, durable)
            }
            Err(error) if is_full(&error) && self.held_bytes + length > MOST_HELD => Some((done, Err(error))),
            Err(error) if is_full(&error) => {
                self.held_bytes += length;
                self.held.push_back(Held { bytes: std::mem::take(&mut self.buffer), done, durable });
                None
            }
            Err(error) => self.fail(done, &error),
        };
        if self.buffer.capacity() > KEPT_BUFFER {
            self.buffer = Vec::new();
        }
        told
    }

    fn written(&mut self, done: Done, durable: bool) -> Option<(Done, io::Result<()>)> {
        if durable || self.sync == Sync::Always {
            self.waiting.push(done);
            return None;
        }
        Some((done, Ok(())))
    }

    fn fail(&mut self, done: Done, error: &io::Error) -> Option<(Done, io::Result<()>)> {
        self.waiting.push(done);
        self.failed = Some(error.to_string());
        None
    }

    /// Whether the ballast is overboard, or was never there: before entries are written it must be.
    pub fn lacks_ballast(&self) -> bool {
        !self.ballast && self.failed.is_none()
    }

    /// It is there now.
    pub fn ballasted(&mut self) {
        self.ballast = true;
    }

    /// Writes what was held back, as far as there is room; who is to be told of it.
    pub fn retry(&mut self) -> Vec<(Done, io::Result<()>)> {
        let mut told = Vec::new();
        while let Some(held) = self.held.pop_front() {
            match self.file.write_at(self.at, &held.bytes) {
                Ok(()) => {
                    self.held_bytes -= held.bytes.len();
                    self.at += held.bytes.len() as u64;
                    self.ledger.wrote(held.bytes.len() as u64);
                    told.extend(self.written(held.done, held.durable));
                }
                Err(error) => {
                    if !is_full(&error) {
                        self.failed = Some(error.to_string());
                    }
                    self.held.push_front(held);
                    break;
                }
            }
        }
        told
    }

    /// Begins anew: nothing written so far counts.
    pub fn clear(&mut self, boot: Option<Boot>, done: Done) -> Option<(Done, io::Result<()>)> {
        (self.note, self.heads) = Default::default();
        self.ledger.clear();
        (self.header.boot, self.header.sync) = (boot, self.sync);
        if let Err(error) = self.rotate(true) {
            return self.fail(done, &error);
        }
        self.append([], done, true)
    }

    /// What the disk does not have yet; `None`: it has all.
    pub fn unflushed(&mut self) -> Option<Flush> {
        let upto = (self.header.number, self.at);
        if self.failed.is_some() || upto == self.synced && self.waiting.is_empty() && !self.names_unsynced {
            return None;
        }
        let mut files = std::mem::take(&mut self.unsynced);
        files.push(self.file.clone());
        let names = std::mem::take(&mut self.names_unsynced).then(|| self.disk.clone());
        Some(Flush { files, names, upto, done: std::mem::take(&mut self.waiting) })
    }

    /// It has it now, or never will: after an error nobody knows what of it the disk has.
    pub fn flushed(&mut self, flush: &Flush, result: &io::Result<()>) {
        match result {
            Ok(()) => self.synced = flush.upto,
            Err(error) => self.failed = Some(format!("fdatasync: {error}")),
        }
    }

    /// Takes out everybody who waits for a log that has failed.
    pub fn take_failed(&mut self) -> (Option<String>, Vec<Done>) {
        let Some(why) = self.failed.clone() else { return (None, Vec::new()) };
        let held = std::mem::take(&mut self.held).into_iter().map(|held| held.done);
        self.held_bytes = 0;
        (Some(why), self.waiting.drain(..).chain(held).collect())
    }

    /// How it is.
    pub fn condition(&self) -> Condition {
        match &self.failed {
            Some(why) => Condition::Failed(why.clone()),
            None if !self.held.is_empty() => Condition::Full,
            None => Condition::Good,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
