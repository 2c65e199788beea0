//! A member's snapshots on disk: files named `<group>-<member>-<index>.snap`.
//!
//! A file is a sequence of records, each with its length and a checksum over its number, its length and its bytes:
//! first who it belongs to, then the snapshot's chunks, last what the snapshot covers. So a file that was torn,
//! shortened, lengthened or changed anywhere is refused as a whole. It is written under another name, synced as it
//! grows (one sync of gigabytes would hold up the log's), and renamed once it is all on disk; then older ones go.
//!
//! Files are written by blocking threads if the disk blocks; the chunks come from the raft thread, paced. What is in the
//! chunks is the machine's business.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::task::spawn_blocking;

use crate::id::{GroupId, MemberId};
use crate::raft::encoding::{put_snapshot_meta, snapshot_meta};
use crate::raft::machine::{Cut, CutLost, InstallError, MAX_SNAPSHOT_CHUNK, Staged, pull};
use crate::raft::types::SnapshotMeta;
use crate::wal::disk::{Disk, DiskFile};

/// What a file begins with: the format and its version.
const MAGIC: &[u8] = b"slotcast snapshot 1\n";
/// Between two chunks of a cut on their way to disk: a shard of 2 million keys takes six seconds. Nobody waits for it, and
/// the log wants the disk too.
const PAUSE: Duration = Duration::from_millis(2);
/// Bytes written between two syncs.
const SYNC_EVERY: usize = 8 << 20;
/// Bytes of a record, at most: a chunk, or a membership, which is smaller.
const MAX_RECORD: usize = MAX_SNAPSHOT_CHUNK + 1;
/// Length and checksum.
const RECORD_HEAD: usize = 8;

const OWNER: u8 = 0;
const CHUNK: u8 = 1;
const END: u8 = 2;

/// Where one member keeps its snapshots.
#[derive(Clone, Debug)]
pub struct SnapshotDir {
    disk: Arc<dyn Disk>,
    group: GroupId,
    member: MemberId,
}

/// Why there is no snapshot to be had from disk, or none to be brought there.
#[derive(Debug)]
pub enum SnapshotError {
    /// The disk would not.
    Io(String, io::Error),
    /// The file is not what was written.
    Damaged(String, String),
    /// The file is whole, but the machine cannot take it.
    Unfit(String, InstallError),
    /// The state was lost before it was all written.
    Lost(CutLost),
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotError::Io(path, error) => write!(f, "{path}: {error}"),
            SnapshotError::Damaged(path, why) => {
                write!(
                    f,
                    "{path} is damaged ({why}): move it away, and this copy is brought up from the others"
                )
            }
            SnapshotError::Unfit(path, error) => write!(f, "{path}: {error}"),
            SnapshotError::Lost(lost) => lost.fmt(f),
        }
    }
}

impl std::error::Error for SnapshotError {}

impl SnapshotDir {
    /// A member's own among the files of `disk`.
    pub fn new(disk: Arc<dyn Disk>, group: GroupId, member: MemberId) -> SnapshotDir {
        SnapshotDir { disk, group, member }
    }

    /// Writes a cut, paced, and puts it in the place of earlier ones; `meta` says what it covers. To be called on the
    /// raft thread.
    pub async fn save(&self, meta: &SnapshotMeta, mut cut: Cut) -> Result<(), SnapshotError> {
        let mut file = self.begin()?;
        while let Some(chunk) = pull(&mut cut, PAUSE).await {
            file = file.write(chunk.map_err(SnapshotError::Lost)?).await?;
        }
        file.finish(meta.clone()).await?.publish().await
    }

    /// Begins a file that takes chunks as they come.
    pub fn begin(&self) -> Result<Unfinished, SnapshotError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("{}-{}-{}.part", self.group.0, self.member, COUNT.fetch_add(1, Ordering::Relaxed));
        let file = self.disk.create(&name).map_err(|error| self.failed(&name, error))?;
        let part = Part { disk: self.disk.clone(), name };
        let mut unfinished = Unfinished { dir: self.clone(), file, part, length: 0, records: 0, unsynced: 0 };
        let owner = [MAGIC, &self.group.0.to_le_bytes(), &self.member.to_le_bytes()].concat();
        unfinished.append(OWNER, &owner)?;
        Ok(unfinished)
    }

    /// Reads the newest snapshot into `staged`, chunk by chunk; what it covers, `None` if there is none. Blocking.
    /// Throws away what a crash left half written. On an error `staged` is half filled and must not be installed.
    pub fn load(&self, staged: &mut dyn Staged) -> Result<Option<SnapshotMeta>, SnapshotError> {
        self.remove_where(|file| file.index.is_none())?;
        let newest =
            self.files()?.into_iter().filter(|file| file.member == self.member).max_by_key(|file| file.index);
        let Some(newest) = newest else { return Ok(None) };
        let failed = |error| self.failed(&newest.name, error);
        let file = self.disk.open(&newest.name).map_err(failed)?;
        let mut records = Records { file, dir: self, name: &newest.name, at: 0, number: 0 };
        let owner = [MAGIC, &self.group.0.to_le_bytes(), &self.member.to_le_bytes()].concat();
        match records.next()? {
            (OWNER, body) if *body == owner => {}
            _ => return Err(records.damaged("it is no snapshot of this member, or of another version")),
        }
        loop {
            match records.next()? {
                (CHUNK, chunk) => {
                    let unfit = |error| SnapshotError::Unfit(self.disk.place(&newest.name), error);
                    staged.take(&chunk).map_err(unfit)?;
                }
                (END, body) => return records.end(body).map(Some),
                _ => return Err(records.damaged("an unknown kind of record")),
            }
        }
    }

    /// A snapshot from here that the machine could not take.
    pub fn unfit(&self, error: InstallError) -> SnapshotError {
        SnapshotError::Unfit(self.disk.place(""), error)
    }

    /// Bytes of the file that goes up to `index`; 0: it is gone.
    pub fn bytes(&self, index: u64) -> u64 {
        self.disk.open(&self.name(index)).and_then(|file| file.length()).unwrap_or(0)
    }

    fn name(&self, index: u64) -> String {
        format!("{}-{}-{index}.snap", self.group.0, self.member)
    }

    fn remove_where(&self, unwanted: impl Fn(&Named) -> bool) -> Result<(), SnapshotError> {
        for file in self.files()?.into_iter().filter(unwanted) {
            match self.disk.remove(&file.name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(self.failed(&file.name, error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The group's files, of whichever member.
    fn files(&self) -> Result<Vec<Named>, SnapshotError> {
        let names = self.disk.list().map_err(|error| self.failed("", error))?;
        Ok(names.into_iter().filter_map(Named::read).filter(|file| file.group == self.group.0).collect())
    }

    fn failed(&self, name: &str, error: io::Error) -> SnapshotError {
        SnapshotError::Io(self.disk.place(name), error)
    }

    /// Works on a thread that may wait for the disk.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
    ) -> Result<T, SnapshotError> {
        match self.disk.blocks() {
            true => {
                let stopped = |error| self.failed("", io::Error::other(error));
                spawn_blocking(work).await.map_err(stopped)?
            }
            false => work(),
        }
    }
}

/// A file, by its name. `index`: none while it is being written.
struct Named {
    name: String,
    group: u32,
    member: MemberId,
    index: Option<u64>,
}

impl Named {
    fn read(name: String) -> Option<Named> {
        let (stem, extension) = name.rsplit_once('.')?;
        let mut numbers = stem.split('-').map(|number| number.parse::<u64>().ok());
        let (group, member, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let index = match extension {
            "snap" => Some(count),
            "part" => None,
            _ => return None,
        };
        Some(Named { group: u32::try_from(group).ok()?, member, index, name })
    }
}

/// A file under its provisional name; removed when dropped, unless it was given its own.
#[derive(Debug)]
struct Part {
    disk: Arc<dyn Disk>,
    name: String,
}

impl Drop for Part {
    fn drop(&mut self) {
        // It may have its name by now. If it cannot be removed, the next start does it.
        let _ = self.disk.remove(&self.name);
    }
}

/// A file that still takes chunks.
pub struct Unfinished {
    dir: SnapshotDir,
    file: Arc<dyn DiskFile>,
    part: Part,
    length: u64,
    records: u32,
    unsynced: usize,
}

impl Unfinished {
    /// Writes the next chunk. It is written once this returns, and synced some time later.
    pub async fn write(self, chunk: Bytes) -> Result<Unfinished, SnapshotError> {
        let dir = self.dir.clone();
        dir.blocking(move || {
            let mut file = self;
            file.append(CHUNK, &chunk)?;
            Ok(file)
        })
        .await
    }

    /// Writes what the chunks cover and syncs it all.
    pub async fn finish(self, meta: SnapshotMeta) -> Result<Finished, SnapshotError> {
        let dir = self.dir.clone();
        dir.blocking(move || {
            let mut file = self;
            let mut body = BytesMut::new();
            put_snapshot_meta(&mut body, &meta);
            file.append(END, &body)?;
            file.file.sync().map_err(|error| file.failed(error))?;
            Ok(Finished { dir: file.dir, part: file.part, index: meta.last_log_id.map_or(0, |id| id.index) })
        })
        .await
    }

    fn append(&mut self, kind: u8, body: &[u8]) -> Result<(), SnapshotError> {
        let length = body.len() as u32 + 1;
        let crc = checksum(self.records, length, kind, body);
        let record = [&length.to_le_bytes(), &crc.to_le_bytes(), &[kind][..], body].concat();
        let written = self.file.write_at(self.length, &record);
        self.records += 1;
        self.length += record.len() as u64;
        self.unsynced += record.len();
        let synced = match self.unsynced {
            0..SYNC_EVERY => Ok(()),
            _ => {
                self.unsynced = 0;
                self.file.sync()
            }
        };
        written.and(synced).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: io::Error) -> SnapshotError {
        self.dir.failed(&self.part.name, error)
    }
}

/// A file that is whole and on disk, under its provisional name.
#[derive(Debug)]
pub struct Finished {
    dir: SnapshotDir,
    part: Part,
    index: u64,
}

impl Finished {
    /// The last index it covers.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Gives the file its name and removes the group's older ones: from here on a restart begins with it. Member ids are
    /// handed out in ascending order, so one that was replaced takes nothing from its successor.
    pub async fn publish(self) -> Result<(), SnapshotError> {
        let dir = self.dir.clone();
        dir.blocking(move || {
            let name = self.dir.name(self.index);
            let this = (self.dir.member, Some(self.index));
            if self.dir.files()?.iter().any(|file| (file.member, file.index) > this) {
                return Ok(()); // A newer one came first.
            }
            let disk = &self.dir.disk;
            disk.rename(&self.part.name, &name)
                .and_then(|()| disk.sync_names())
                .map_err(|error| self.dir.failed(&name, error))?;
            self.dir.remove_where(|file| file.index.is_some() && (file.member, file.index) < this)
        })
        .await
    }
}

fn checksum(number: u32, length: u32, kind: u8, body: &[u8]) -> u32 {
    let mut head = [0; 9];
    head[..4].copy_from_slice(&number.to_le_bytes());
    head[4..8].copy_from_slice(&length.to_le_bytes());
    head[8] = kind;
    crc32c::crc32c_append(crc32c::crc32c(&head), body)
}

/// A file's records as they are read.
struct Records<'a> {
    file: Arc<dyn DiskFile>,
    dir: &'a SnapshotDir,
    name: &'a str,
    at: u64,
    number: u32,
}

impl Records<'_> {
    /// The next record: its kind and the rest.
    fn next(&mut self) -> Result<(u8, Bytes), SnapshotError> {
        let head = self.read(RECORD_HEAD + 1)?;
        let [l0, l1, l2, l3, c0, c1, c2, c3, kind] = head[..] else {
            return Err(self.damaged("it ends too early"));
        };
        let (length, crc) = (u32::from_le_bytes([l0, l1, l2, l3]), u32::from_le_bytes([c0, c1, c2, c3]));
        if length == 0 || length as usize > MAX_RECORD {
            return Err(self.damaged("an impossible length"));
        }
        let body = self.read(length as usize - 1)?;
        if checksum(self.number, length, kind, &body) != crc {
            return Err(self.damaged("the checksum does not match"));
        }
        self.number += 1;
        Ok((kind, body.into()))
    }

    /// What the file covers, out of its last record.
    fn end(&mut self, body: Bytes) -> Result<SnapshotMeta, SnapshotError> {
        let meta = snapshot_meta(&mut body.clone()).map_err(|error| self.damaged(&error.to_string()))?;
        match self.file.length().map_err(|error| self.dir.failed(self.name, error))? {
            length if length == self.at => Ok(meta),
            _ => Err(self.damaged("bytes after its end")),
        }
    }

    fn read(&mut self, length: usize) -> Result<Vec<u8>, SnapshotError> {
        let bytes = self.file.read_at(self.at, length).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("it ends too early"),
            _ => self.dir.failed(self.name, error),
        })?;
        self.at += length as u64;
        Ok(bytes)
    }

    fn damaged(&self, why: &str) -> SnapshotError {
        SnapshotError::Damaged(self.dir.disk.place(self.name), format!("record {}: {why}", self.number))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::atomic::AtomicUsize;

    use openraft::alias::CommittedLeaderIdOf;
    use parking_lot::Mutex;

    use super::*;
    use crate::raft::machine::gathering;
    use crate::raft::types::{LogId, TypeConfig};
    use crate::wal::disk::Directory;

    /// A directory of the test's own, gone with it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Scratch {
            static COUNT: AtomicUsize = AtomicUsize::new(0);
            let n = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("slotcast-snapshot-{}-{n}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Scratch(path)
        }

        fn dir(&self) -> SnapshotDir {
            self.dir_of(77)
        }

        fn dir_of(&self, member: MemberId) -> SnapshotDir {
            let disk = Directory::open(&self.0.join("snapshots")).unwrap();
            SnapshotDir::new(Arc::new(disk), GroupId(3), member)
        }

        fn names(&self) -> Vec<String> {
            let listing = fs::read_dir(self.0.join("snapshots")).unwrap();
            listing.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn meta(index: u64) -> SnapshotMeta {
        let last_log_id = Some(LogId::new(CommittedLeaderIdOf::<TypeConfig>::new(4), index));
        SnapshotMeta { last_log_id, ..SnapshotMeta::default() }
    }

    fn cut(chunks: &[&'static str]) -> Cut {
        let chunks: Vec<_> = chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk.as_bytes()))).collect();
        Box::new(chunks.into_iter())
    }

    /// What is loaded: the meta and the chunks.
    fn load(dir: &SnapshotDir) -> Result<(Option<SnapshotMeta>, Vec<Bytes>), SnapshotError> {
        let seen = Arc::<Mutex<Vec<Bytes>>>::default();
        let chunks = seen.clone();
        let mut staged = gathering(move |chunks| {
            *seen.lock() = chunks;
            Ok(())
        })();
        let meta = dir.load(&mut *staged)?;
        staged.install().unwrap();
        let chunks = std::mem::take(&mut *chunks.lock());
        Ok((meta, chunks))
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_saved_is_loaded_and_replaces_what_was_there() {
        let scratch = Scratch::new();
        let dir = scratch.dir();
        assert!(load(&dir).unwrap().0.is_none(), "nothing there yet, the directory neither");
        dir.save(&meta(5), cut(&["old"])).await.unwrap();
        dir.save(&meta(9), cut(&["new", "", "est"])).await.unwrap();
        let (loaded, chunks) = load(&dir).unwrap();
        assert_eq!((loaded, chunks), (Some(meta(9)), vec!["new".into(), "".into(), "est".into()]));
        assert_eq!(scratch.names(), ["3-77-9.snap"]);
        dir.save(&meta(7), cut(&["late"])).await.unwrap();
        assert_eq!(scratch.names(), ["3-77-9.snap"], "an older one does not replace it");
        let successor = scratch.dir_of(78);
        assert!(load(&successor).unwrap().0.is_none(), "another member's is not mine");
        successor.save(&meta(2), cut(&["again"])).await.unwrap();
        assert_eq!(scratch.names(), ["3-78-2.snap"], "a successor's replaces it");
        dir.save(&meta(10), cut(&["too late"])).await.unwrap();
        assert_eq!(scratch.names(), ["3-78-2.snap"], "and not the other way round");
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_does_not_come_to_its_end_leaves_nothing() {
        let scratch = Scratch::new();
        let dir = scratch.dir();
        let lost: Cut = Box::new([Ok(Bytes::from_static(b"a")), Err(CutLost("for a test"))].into_iter());
        assert!(matches!(dir.save(&meta(5), lost).await, Err(SnapshotError::Lost(_))));
        drop(dir.begin().unwrap().write(Bytes::from_static(b"a")).await.unwrap());
        assert_eq!(scratch.names(), Vec::<String>::new());
        // What a crash leaves half written is thrown away at the next start.
        fs::write(scratch.0.join("snapshots/3-77-0.part"), b"half").unwrap();
        assert!(load(&dir).unwrap().0.is_none());
        assert_eq!(scratch.names(), Vec::<String>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_was_shortened_lengthened_or_changed_anywhere_is_refused() {
        let scratch = Scratch::new();
        let dir = scratch.dir();
        dir.save(&meta(5), cut(&["some", "chunks"])).await.unwrap();
        let path = scratch.0.join("snapshots/3-77-5.snap");
        let whole = fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            matches!(load(&dir), Err(SnapshotError::Damaged(..)))
        };
        for length in 0..whole.len() {
            assert!(refused(&whole[..length]), "cut at {length}");
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(refused(&flipped), "bit {bit}");
        }
        assert!(refused(&[&whole[..], b"x"].concat()));
        assert!(!refused(&whole));
        // A chunk more or less, each with a checksum that was right in its place.
        let chunk = RECORD_HEAD + 1 + 4;
        let first = whole.windows(4).position(|bytes| bytes == b"some").unwrap() - RECORD_HEAD - 1;
        let record = &whole[first..first + chunk];
        assert!(refused(&[&whole[..first], &whole[first + chunk..]].concat()));
        assert!(refused(&[&whole[..first], record, &whole[first..]].concat()));
    }

    #[tokio::test(start_paused = true)]
    async fn another_members_file_under_this_ones_name_is_refused() {
        let scratch = Scratch::new();
        scratch.dir_of(78).save(&meta(5), cut(&["a"])).await.unwrap();
        let names = ["3-78-5.snap", "3-77-5.snap"].map(|name| scratch.0.join("snapshots").join(name));
        fs::rename(&names[0], &names[1]).unwrap();
        let error = load(&scratch.dir()).unwrap_err().to_string();
        assert!(error.contains("no snapshot of this member") && error.contains("3-77-5.snap"), "{error}");
    }
}
