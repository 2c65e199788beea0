//! Watches, while all is well, whether the nodes and the campaign itself get a processor when they want one: on a machine
//! that is too busy, lateness says nothing about the cluster. Linux counts it, for each thread.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use slotcast_verify::stalls::Stalls;

use crate::calm::Calm;
use crate::clock;

/// Between two looks.
const PACE: Duration = Duration::from_millis(20);
/// What is shorter is how a machine is.
const SHORT: Duration = Duration::from_millis(4);

/// What has been seen so far; a cheap handle.
#[derive(Clone, Default)]
pub struct Processors(Arc<Shared>);

#[derive(Default)]
struct Shared {
    stalls: Mutex<Stalls>,
    over: AtomicBool,
}

impl Processors {
    /// Begins to look, on a thread of its own.
    pub fn start(calm: Calm) -> Result<Processors, String> {
        let processors = Processors::default();
        let looking = processors.clone();
        let thread = std::thread::Builder::new().name("processors".into());
        thread.spawn(move || looking.look(&calm)).map_err(|error| error.to_string())?;
        Ok(processors)
    }

    /// Ends it; what it has seen.
    pub fn end(&self) -> Stalls {
        self.0.over.store(true, Ordering::Release);
        self.0.stalls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn look(&self, calm: &Calm) {
        let (mut waits, mut before) = (HashMap::new(), clock::now());
        while !self.0.over.load(Ordering::Acquire) {
            std::thread::sleep(PACE);
            let now = clock::now();
            let pids = calm.since().map_or(Vec::new(), |_| calm.pids());
            let own = pids.first().map(|_| std::process::id());
            let mut longest = Duration::from_nanos(now - before).saturating_sub(PACE);
            let mut seen = HashMap::new();
            for (thread, wait) in pids.into_iter().chain(own).flat_map(waited) {
                let since = waits.get(&thread).map_or(Duration::ZERO, |known| wait.saturating_sub(*known));
                longest = longest.max(since);
                seen.insert(thread, wait);
            }
            if longest > SHORT {
                let mut stalls = self.0.stalls.lock().unwrap_or_else(PoisonError::into_inner);
                stalls.note(before, now, longest.as_nanos() as u64);
            }
            (waits, before) = (seen, now);
        }
    }
}

/// How long each thread of a process has waited for a processor so far; nothing where the system does not tell.
fn waited(pid: u32) -> Vec<(String, Duration)> {
    let threads = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task"));
    let threads = threads.into_iter().flatten().flatten();
    let wait = |thread: fs::DirEntry| {
        let told = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        let wait = told.split(' ').nth(1)?.parse().ok()?;
        Some((thread.file_name().to_string_lossy().into_owned(), Duration::from_nanos(wait)))
    };
    threads.filter_map(wait).collect()
}
