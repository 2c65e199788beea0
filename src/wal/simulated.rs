//! A disk in memory that loses power, runs full and fails when it is told to.
//!
//! Every operation that changes something is counted, so that a test can let the n-th one fail, or lose power just
//! before it, for every n there is.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::RngCore;
use rand::rngs::StdRng;

use crate::wal::disk::{Disk, DiskFile};

/// Bytes that reach the disk together, or not.
const PAGE: usize = 512;

/// A cheap handle; clones are the same disk.
#[derive(Clone, Default)]
pub struct SimulatedDisk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// By name, what the kernel knows.
    names: BTreeMap<String, u64>,
    /// By name, what would be there after a power loss.
    kept_names: BTreeMap<String, u64>,
    files: BTreeMap<u64, Content>,
    next_file: u64,
    operations: u64,
    fail: Option<Failure>,
    /// Bytes all files together may take.
    room: Option<u64>,
    /// Files opened in an earlier life of the machine are closed.
    boot: u64,
}

#[derive(Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    kept: Vec<u8>,
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

struct SimulatedFile {
    disk: SimulatedDisk,
    file: u64,
    boot: u64,
}

impl SimulatedDisk {
    /// Lets an operation fail.
    pub fn fail(&self, failure: Option<Failure>) {
        self.0.lock().fail = failure;
    }

    /// Bounds what all files together may take; `None`: no bound.
    pub fn limit(&self, room: Option<u64>) {
        self.0.lock().room = room;
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// Bytes all files take.
    pub fn used(&self) -> u64 {
        let state = self.0.lock();
        state
            .names
            .values()
            .filter_map(|file| state.files.get(file))
            .map(|file| file.bytes.len() as u64)
            .sum()
    }

    /// The machine dies: of what was not synced, some pages have reached the disk and others have not. Files opened
    /// before answer nothing but errors.
    pub fn lose_power(&self, rng: &mut StdRng) {
        let mut state = self.0.lock();
        state.boot += 1;
        state.fail = None;
        state.names = state.kept_names.clone();
        for file in state.files.values_mut() {
            let mut survived = file.kept.clone();
            for (page, bytes) in file.bytes.chunks(PAGE).enumerate() {
                if rng.next_u32().is_multiple_of(2) {
                    let at = page * PAGE;
                    survived.resize(survived.len().max(at + bytes.len()), 0);
                    survived[at..at + bytes.len()].copy_from_slice(bytes);
                }
            }
            *file = Content { kept: survived.clone(), bytes: survived };
        }
    }

    /// The process dies: all that was written is there; its files are closed.
    pub fn kill(&self) {
        let mut state = self.0.lock();
        state.boot += 1;
        state.fail = None;
    }

    /// Flips a bit of a file.
    pub fn damage(&self, name: &str, at: usize) {
        let mut state = self.0.lock();
        let Some(file) = state.names.get(name).copied().and_then(|file| state.files.get_mut(&file)) else {
            return;
        };
        for bytes in [&mut file.bytes, &mut file.kept] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1;
            }
        }
    }

    fn handle(&self, file: u64, boot: u64) -> Arc<dyn DiskFile> {
        Arc::new(SimulatedFile { disk: self.clone(), file, boot })
    }
}

impl State {
    /// Counts an operation and fails if it is its turn.
    fn operate(&mut self) -> io::Result<()> {
        self.operations += 1;
        match self.fail {
            Some(fail) if self.operations == fail.at || fail.for_ever && self.operations > fail.at => {
                Err(fail.kind.into())
            }
            _ => Ok(()),
        }
    }

    fn check_room(&self, more: u64) -> io::Result<()> {
        let used: u64 = self
            .names
            .values()
            .filter_map(|file| self.files.get(file))
            .map(|file| file.bytes.len() as u64)
            .sum();
        match self.room.is_some_and(|room| used + more > room) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

impl Disk for SimulatedDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.0.lock();
        let file = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(file, state.boot))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.operate()?;
        let file = state.next_file;
        state.next_file += 1;
        state.files.insert(file, Content::default());
        state.names.insert(name.to_owned(), file);
        Ok(self.handle(file, state.boot))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.operate()?;
        let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.operate()?;
        state.names.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.operate()?;
        state.kept_names = state.names.clone();
        Ok(())
    }
}

impl SimulatedFile {
    fn with<T>(&self, act: impl FnOnce(&mut State, u64) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.0.lock();
        if state.boot != self.boot {
            return Err(io::Error::other("the process that opened this file is dead"));
        }
        act(&mut state, self.file)
    }
}

impl Content {
    fn write(&mut self, at: usize, bytes: &[u8]) {
        self.bytes.resize(self.bytes.len().max(at + bytes.len()), 0);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

impl DiskFile for SimulatedFile {
    fn read(&self) -> io::Result<Vec<u8>> {
        self.with(|state, file| Ok(state.files.get(&file).cloned().unwrap_or_default().bytes))
    }

    fn read_at(&self, at: u64, length: usize) -> io::Result<Vec<u8>> {
        self.with(|state, file| {
            let bytes =
                state.files.get(&file).and_then(|file| file.bytes.get(at as usize..at as usize + length));
            bytes.map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        })
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(|state, file| {
            let length = state.files.get(&file).map_or(0, |file| file.bytes.len() as u64);
            let more = (at + bytes.len() as u64).saturating_sub(length);
            let done = state.operate().and_then(|()| state.check_room(more));
            let half = state.fail.is_some_and(|fail| fail.half);
            let written = if done.is_ok() { bytes } else { &bytes[..if half { bytes.len() / 2 } else { 0 }] };
            if let Some(content) = state.files.get_mut(&file).filter(|_| !written.is_empty()) {
                content.write(at as usize, written);
            }
            done
        })
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.with(|state, file| {
            state.operate()?;
            if let Some(content) = state.files.get_mut(&file) {
                content.bytes.truncate(length as usize);
                content.kept.truncate(length as usize);
            }
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|state, file| {
            state.operate()?;
            if let Some(content) = state.files.get_mut(&file) {
                content.kept = content.bytes.clone();
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        assert!(file.read().is_err());
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
}
