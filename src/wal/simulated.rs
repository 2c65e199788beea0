//! A disk in memory that loses power, runs full, fails and crashes its process when it is told to.
//!
//! Every operation that changes something is counted, so that a test can let the n-th one fail, or be the last thing its
//! process does, for every n there is. After an fsync that failed it does as Linux does: what was not synced is read as
//! it was written, is on no disk, and no later fsync brings it there.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::RngCore;
use rand::rngs::StdRng;

use crate::wal::disk::{Disk, DiskFile};
use crate::wal::pages::Pages;

/// A cheap handle; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
    /// Names' common beginning, which callers do not see.
    folder: String,
    /// The handle is worth nothing when the process that got it is dead; `None`: it outlives them all.
    life: Option<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// By name, what the kernel knows.
    names: BTreeMap<String, u64>,
    /// By name, what would be there after a power loss.
    kept_names: BTreeMap<String, u64>,
    files: BTreeMap<u64, Pages>,
    next_file: u64,
    operations: u64,
    fail: Option<Failure>,
    crash: Option<Crash>,
    /// Bytes all files together may take.
    room: Option<u64>,
    /// Files opened in an earlier life of the machine are closed.
    life: u64,
}

/// What shall fail.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    /// At this operation, counted from the disk's first; and at all after it, if so.
    pub at: u64,
    /// Also all later ones.
    pub for_ever: bool,
    /// With this error.
    pub kind: io::ErrorKind,
    /// A write that fails writes the first half.
    pub half: bool,
}

/// The kinds of operations that change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Of a file's bytes, or its length.
    Write,
    /// Of a file.
    Sync,
    /// A file is created, renamed, removed, or the directory synced.
    Names,
}

/// When a process dies, by what it does to its disk.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// Operations that still happen.
    pub left: u64,
    /// Operations that count; `None`: all.
    pub of: Option<Operation>,
    /// If the one at which it dies is a write, the first half of that happens too.
    pub half: bool,
}

impl SimulatedDisk {
    /// A directory of the disk, for the process that begins now; it fails once that is dead.
    pub fn mount(&self, folder: &str) -> Arc<dyn Disk> {
        let life = Some(self.state.lock().life);
        Arc::new(SimulatedDisk { state: self.state.clone(), folder: format!("{folder}/"), life })
    }

    /// Lets an operation fail.
    pub fn fail(&self, failure: Option<Failure>) {
        self.state.lock().fail = failure;
    }

    /// Lets the process die at an operation: neither that nor any later one happens.
    pub fn crash(&self, crash: Crash) {
        self.state.lock().crash = Some(crash);
    }

    /// Whether the process has come to the operation at which it dies. Whoever simulates it sees to the rest.
    pub fn has_crashed(&self) -> bool {
        self.state.lock().crash.is_some_and(|crash| crash.left == 0)
    }

    /// Bounds what all files together may take; `None`: no bound.
    pub fn limit(&self, room: Option<u64>) {
        self.state.lock().room = room;
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Bytes all files take.
    pub fn used(&self) -> u64 {
        self.state.lock().used()
    }

    /// Whether a power loss would take nothing away.
    pub fn is_synced(&self) -> bool {
        let state = self.state.lock();
        let synced = |file: &u64| state.files.get(file).is_none_or(Pages::is_synced);
        state.names == state.kept_names && state.names.values().all(synced)
    }

    /// The files there are, and their lengths.
    pub fn written(&self) -> Vec<(String, usize)> {
        let state = self.state.lock();
        let length = |file: &u64| state.files.get(file).map_or(0, |file| file.bytes().len());
        state.names.iter().map(|(name, file)| (name.clone(), length(file))).collect()
    }

    /// The machine dies: of what was not synced, some pages have reached the disk and others have not. Files opened
    /// before answer nothing but errors.
    pub fn lose_power(&self, rng: &mut StdRng) {
        let mut state = self.state.lock();
        state.begin_anew();
        state.names = state.kept_names.clone();
        for file in state.files.values_mut() {
            file.lose_power(|| rng.next_u32().is_multiple_of(2));
        }
    }

    /// The process dies: all that was written is there; its files are closed.
    pub fn kill(&self) {
        self.state.lock().begin_anew();
    }

    /// The files there are are lost.
    pub fn wipe(&self) {
        let mut state = self.state.lock();
        (state.names, state.kept_names, state.files) = Default::default();
    }

    /// Flips a bit of a file.
    pub fn damage(&self, name: &str, at: usize) {
        let mut state = self.state.lock();
        let name = self.full(name);
        let Some(file) = state.names.get(&name).copied().and_then(|file| state.files.get_mut(&file)) else {
            return;
        };
        file.flip(at);
    }

    fn full(&self, name: &str) -> String {
        self.folder.clone() + name
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock();
        if self.life.is_some_and(|life| state.life != life) {
            return Err(io::Error::other("the process that used this disk is dead"));
        }
        act(&mut state)
    }

    fn handle(&self, file: u64, life: u64) -> Arc<dyn DiskFile> {
        let disk = SimulatedDisk { life: Some(life), ..self.clone() };
        Arc::new(SimulatedFile { disk, file })
    }
}

impl State {
    fn begin_anew(&mut self) {
        self.life += 1;
        (self.fail, self.crash) = (None, None);
    }

    fn used(&self) -> u64 {
        let files = self.names.values().filter_map(|file| self.files.get(file));
        files.map(|file| file.bytes().len() as u64).sum()
    }

    /// Counts an operation and fails if it is its turn.
    fn operate(&mut self, operation: Operation) -> io::Result<()> {
        if let Some(crash) = self.crash.as_mut() {
            if crash.of.is_none_or(|of| of == operation) {
                crash.left = crash.left.saturating_sub(1);
            }
            if crash.left == 0 {
                return Err(io::Error::other("the process has died"));
            }
        }
        self.operations += 1;
        match self.fail {
            Some(fail) if self.operations == fail.at || fail.for_ever && self.operations > fail.at => {
                Err(fail.kind.into())
            }
            _ => Ok(()),
        }
    }

    /// Whether half of a write that failed just now happens: never after the process' death.
    fn half(&mut self) -> bool {
        let died = self.crash.as_ref().is_some_and(|crash| crash.left == 0);
        let crashed = died && self.crash.as_mut().is_some_and(|crash| std::mem::take(&mut crash.half));
        crashed || !died && self.fail.is_some_and(|fail| fail.half)
    }

    fn check_room(&self, more: u64) -> io::Result<()> {
        match self.room.is_some_and(|room| self.used() + more > room) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

impl Disk for SimulatedDisk {
    fn blocks(&self) -> bool {
        false
    }

    fn place(&self, name: &str) -> String {
        self.full(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.with(|state| {
            let own = |name: &String| name.strip_prefix(&self.folder).map(str::to_owned);
            Ok(state.names.keys().filter_map(own).collect())
        })
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.with(|state| {
            let file = *state.names.get(&self.full(name)).ok_or(io::ErrorKind::NotFound)?;
            Ok(self.handle(file, state.life))
        })
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.with(|state| {
            state.operate(Operation::Names)?;
            let file = state.next_file;
            state.next_file += 1;
            state.files.insert(file, Pages::default());
            state.names.insert(self.full(name), file);
            Ok(self.handle(file, state.life))
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.with(|state| {
            state.operate(Operation::Names)?;
            let file = state.names.remove(&self.full(from)).ok_or(io::ErrorKind::NotFound)?;
            state.names.insert(self.full(to), file);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.with(|state| {
            state.operate(Operation::Names)?;
            state.names.remove(&self.full(name)).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    }

    fn sync_names(&self) -> io::Result<()> {
        self.with(|state| {
            state.operate(Operation::Names)?;
            let own = |(name, _): &(&String, &u64)| name.starts_with(&self.folder);
            state.kept_names.retain(|name, file| !own(&(name, file)));
            let synced: Vec<_> =
                state.names.iter().filter(own).map(|(name, file)| (name.clone(), *file)).collect();
            state.kept_names.extend(synced);
            Ok(())
        })
    }
}

struct SimulatedFile {
    disk: SimulatedDisk,
    file: u64,
}

impl SimulatedFile {
    fn with<T>(&self, act: impl FnOnce(&mut State, u64) -> io::Result<T>) -> io::Result<T> {
        self.disk.with(|state| act(state, self.file))
    }
}

impl DiskFile for SimulatedFile {
    fn length(&self) -> io::Result<u64> {
        self.with(|state, file| Ok(state.files.get(&file).map_or(0, |file| file.bytes().len() as u64)))
    }

    fn read_at(&self, at: u64, length: usize) -> io::Result<Vec<u8>> {
        self.with(|state, file| {
            let bytes =
                state.files.get(&file).and_then(|file| file.bytes().get(at as usize..at as usize + length));
            bytes.map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        })
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(|state, file| {
            let length = state.files.get(&file).map_or(0, |file| file.bytes().len() as u64);
            let more = (at + bytes.len() as u64).saturating_sub(length);
            let done = state.operate(Operation::Write).and_then(|()| state.check_room(more));
            let half = done.is_err() && state.half();
            let written = if done.is_ok() { bytes } else { &bytes[..if half { bytes.len() / 2 } else { 0 }] };
            if let Some(content) = state.files.get_mut(&file).filter(|_| !written.is_empty()) {
                content.write(at as usize, written);
            }
            done
        })
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.with(|state, file| {
            state.operate(Operation::Write)?;
            if let Some(content) = state.files.get_mut(&file) {
                content.truncate(length as usize);
            }
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|state, file| {
            let done = state.operate(Operation::Sync);
            let died = state.crash.is_some_and(|crash| crash.left == 0);
            if let Some(content) = state.files.get_mut(&file) {
                match &done {
                    Ok(()) => content.sync(),
                    Err(_) if died => {}
                    Err(_) => content.fail_to_sync(),
                }
            }
            done
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::pages::PAGE;
    use rand::SeedableRng;

    #[test]
    fn what_was_synced_outlasts_a_power_loss_and_what_was_written_a_kill() {
        let disk = SimulatedDisk::default();
        let file = disk.create("a").unwrap();
        file.write_at(0, b"kept").unwrap();
        file.sync().unwrap();
        disk.sync_names().unwrap();
        disk.create("b").unwrap();
        file.write_at(4, b"!").unwrap();
        disk.kill();
        assert!(file.read().is_err() && !disk.is_synced());
        assert_eq!(disk.open("a").unwrap().read().unwrap(), b"kept!");
        disk.lose_power(&mut StdRng::seed_from_u64(1));
        assert!(disk.open("a").unwrap().read().unwrap().starts_with(b"kept"));
        assert!(disk.open("b").is_err());
    }

    #[test]
    fn it_fails_and_runs_full_as_told() {
        let disk = SimulatedDisk::default();
        let file = disk.create("a").unwrap();
        let fail =
            |half| Failure { at: disk.operations() + 1, for_ever: false, kind: io::ErrorKind::Other, half };
        disk.fail(Some(fail(true)));
        assert!(file.write_at(0, b"four").is_err());
        assert_eq!(file.read().unwrap(), b"fo");
        file.write_at(0, b"four").unwrap();
        disk.limit(Some(5));
        assert_eq!(file.write_at(4, b"xy").unwrap_err().kind(), io::ErrorKind::StorageFull);
        file.write_at(3, b"x").unwrap();
        disk.limit(None);
        file.write_at(4, b"xy").unwrap();
        assert_eq!(disk.used(), 6);
    }
    #[test]
    fn what_a_failed_fsync_did_not_write_no_later_one_does() {
        let disk = SimulatedDisk::default();
        let file = disk.create("a").unwrap();
        disk.sync_names().unwrap();
        file.write_at(0, &[1; PAGE]).unwrap();
        file.sync().unwrap();
        file.write_at(0, &[2; PAGE + 1]).unwrap();
        let at = disk.operations() + 1;
        disk.fail(Some(Failure { at, for_ever: false, kind: io::ErrorKind::Other, half: false }));
        assert!(file.sync().is_err());
        file.write_at(PAGE as u64, &[3]).unwrap();
        file.sync().unwrap();
        assert_eq!(file.read().unwrap(), [&[2; PAGE][..], &[3]].concat());
        disk.lose_power(&mut StdRng::seed_from_u64(1));
        assert_eq!(disk.open("a").unwrap().read().unwrap(), [&[1; PAGE][..], &[3]].concat());
    }

    #[test]
    fn a_process_does_nothing_after_the_operation_it_dies_at() {
        let disk = SimulatedDisk::default();
        let folder = disk.mount("folder");
        let file = folder.create("a").unwrap();
        disk.crash(Crash { left: 2, of: Some(Operation::Write), half: true });
        file.write_at(0, b"four").unwrap();
        file.sync().unwrap();
        assert!(!disk.has_crashed());
        assert!(file.write_at(4, b"more").is_err() && disk.has_crashed());
        assert!(file.write_at(0, b"never").is_err() && folder.remove("a").is_err());
        disk.kill();
        assert!(folder.list().is_err(), "it is dead");
        let folder = disk.mount("folder");
        assert_eq!(folder.list().unwrap(), ["a"]);
        assert_eq!(folder.open("a").unwrap().read().unwrap(), b"fourmo");
        assert_eq!(disk.mount("other").list().unwrap(), Vec::<String>::new());
    }
}
