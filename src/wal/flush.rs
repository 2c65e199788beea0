//! What is between those who append, the writer and the disk: outcomes, the log's condition, a turn of flushing.

use std::io;
use std::sync::Arc;

use crate::wal::disk::{Disk, DiskFile};
use crate::wal::scan::Position;

/// Gets the outcome of an append, exactly once. It must be short and must not append itself.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// How the log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It takes what it is given.
    Good,
    /// The disk is full: what it is given waits, and so do those who gave it.
    Full,
    /// It will never take anything again; why.
    Failed(String),
}

/// What the flusher has to do.
pub struct Flush {
    /// What was written to.
    pub files: Vec<Arc<dyn DiskFile>>,
    /// If names have changed.
    pub names: Option<Arc<dyn Disk>>,
    /// Where the log ended when this was begun.
    pub upto: Position,
    /// Whom to tell.
    pub done: Vec<Done>,
}

impl Flush {
    /// Waits for the disk.
    pub fn sync(&self) -> io::Result<()> {
        self.names.as_ref().map_or(Ok(()), |disk| disk.sync_names())?;
        self.files.iter().try_for_each(|file| file.sync())
    }
}
