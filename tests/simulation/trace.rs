//! What happened, in order: hashed, so that two runs can be compared, and its end kept, so that a failure can be read.

use std::collections::VecDeque;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use parking_lot::Mutex;

/// Events kept.
const KEPT: usize = 150;

/// A run's events. A cheap handle.
#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<Events>>);

#[derive(Default)]
struct Events {
    now: u64,
    moment: u64,
    hasher: DefaultHasher,
    last: VecDeque<String>,
    shown: bool,
    violations: Vec<String>,
}

impl Trace {
    /// A trace that is printed as it grows, if `shown`.
    pub fn new(shown: bool) -> Trace {
        Trace(Arc::new(Mutex::new(Events { shown, ..Events::default() })))
    }

    /// It is `now` (ms).
    pub fn advance(&self, now: u64) {
        self.0.lock().now = now;
    }

    /// The time in ms.
    pub fn now(&self) -> u64 {
        self.0.lock().now
    }

    /// A moment of its own: greater than all before.
    pub fn moment(&self) -> u64 {
        let mut events = self.0.lock();
        events.moment += 1;
        events.moment
    }

    /// An event.
    pub fn note(&self, event: String) {
        let mut events = self.0.lock();
        let line = format!("{:>6} ms  {event}", events.now);
        line.hash(&mut events.hasher);
        if events.shown {
            println!("{line}");
        }
        events.last.push_back(line);
        if events.last.len() > KEPT {
            events.last.pop_front();
        }
    }

    /// Something that must never happen has.
    pub fn violation(&self, what: String) {
        self.note(format!("VIOLATION: {what}"));
        self.0.lock().violations.push(what);
    }

    /// What must never have happened and has.
    pub fn violations(&self) -> Vec<String> {
        self.0.lock().violations.clone()
    }

    /// The hash of all events.
    pub fn hash(&self) -> u64 {
        self.0.lock().hasher.finish()
    }

    /// The last events, one a line.
    pub fn tail(&self) -> String {
        self.0.lock().last.iter().map(|line| format!("{line}\n")).collect()
    }
}
