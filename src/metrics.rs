//! Counters of a node, for INFO and for metrics exposition. Relaxed atomics: each is right, together they are no
//! one moment.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A counter that only grows (or is reset by CONFIG RESETSTAT).
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The count.
    pub fn count(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Back to zero.
    pub fn reset(&self) {
        self.0.store(0, Relaxed);
    }
}

/// The node's counters. Names follow INFO.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Connections accepted.
    pub connections_received: Counter,
    /// Connections refused at `maxclients`.
    pub connections_rejected: Counter,
    /// Requests executed; counted a batch at a time.
    pub commands_processed: Counter,
    /// Bytes read from clients.
    pub input_bytes: Counter,
    /// Bytes written to clients.
    pub output_bytes: Counter,
    /// Keys whose time came.
    pub expired_keys: Counter,
    /// Keys evicted.
    pub evicted_keys: Counter,
    /// Error replies.
    pub error_replies: Counter,
    /// Clients closed since they did not read their replies.
    pub output_limit_disconnections: Counter,
}
