//! One file of a simulated disk, page by page: what was written, and what of that a power loss leaves.

use std::collections::BTreeSet;

/// Bytes that reach the disk together, or not.
pub const PAGE: usize = 512;

/// A file.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    bytes: Vec<u8>,
    kept: Vec<u8>,
    /// Pages that are not on the disk as they were written, and that no fsync will bring there.
    lost: BTreeSet<usize>,
}

impl Pages {
    /// As the kernel has it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether the disk has the same.
    pub fn is_synced(&self) -> bool {
        self.bytes == self.kept
    }

    /// Writes in place, and beyond the end.
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        self.bytes.resize(self.bytes.len().max(at + bytes.len()), 0);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.lost.retain(|page| (page + 1) * PAGE <= at || page * PAGE >= at + bytes.len());
    }

    /// Cuts it, on the disk too.
    pub fn truncate(&mut self, length: usize) {
        self.bytes.truncate(length);
        self.kept.truncate(length);
    }

    /// Flips a bit of a byte, on the disk too.
    pub fn flip(&mut self, at: usize) {
        let both = [&mut self.bytes, &mut self.kept];
        both.into_iter().filter_map(|bytes| bytes.get_mut(at)).for_each(|byte| *byte ^= 1);
    }

    /// Brings to the disk what is not lost.
    pub fn sync(&mut self) {
        let mut kept = self.bytes.clone();
        for page in &self.lost {
            let end = kept.len().min((page + 1) * PAGE);
            for (at, byte) in kept.iter_mut().enumerate().take(end).skip(page * PAGE) {
                *byte = self.kept.get(at).copied().unwrap_or(0);
            }
        }
        self.kept = kept;
    }

    /// The kernel could not write, and takes for clean what it could not write.
    pub fn fail_to_sync(&mut self) {
        let kept = |page: usize| self.kept.get(page * PAGE..self.kept.len().min((page + 1) * PAGE));
        let unsynced =
            self.bytes.chunks(PAGE).enumerate().filter(|(page, bytes)| kept(*page) != Some(*bytes));
        self.lost = unsynced.map(|(page, _)| page).collect();
    }

    /// Of the pages that are not on the disk, those are nevertheless that `lucky` says, in order.
    pub fn lose_power(&mut self, mut lucky: impl FnMut() -> bool) {
        let mut survived = std::mem::take(&mut self.kept);
        for (page, bytes) in self.bytes.chunks(PAGE).enumerate() {
            if lucky() && !self.lost.contains(&page) {
                let at = page * PAGE;
                survived.resize(survived.len().max(at + bytes.len()), 0);
                survived[at..at + bytes.len()].copy_from_slice(bytes);
            }
        }
        *self = Pages { kept: survived.clone(), bytes: survived, lost: BTreeSet::new() };
    }
}
