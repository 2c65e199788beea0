//! Counters of a node, for INFO and for metrics exposition. Relaxed atomics: each is right, together they are no
//! one moment.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

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
    /// Keys that reads looked up and found; counted a batch at a time.
    pub keyspace_hits: Counter,
    /// Keys that reads looked up in vain.
    pub keyspace_misses: Counter,
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
    /// Error replies by their first word.
    pub errors: Errors,
    /// Clients closed since they did not read their replies.
    pub output_limit_disconnections: Counter,
    /// Times that published messages were not taken to another node, or not taken in from one, because too many waited.
    pub messages_dropped: Counter,
    /// Messages to other nodes.
    pub bus_messages_sent: Counter,
    /// Messages from other nodes.
    pub bus_messages_received: Counter,
}

impl Metrics {
    /// Counts an error reply (its text without the leading `-`).
    pub fn note_error(&self, text: &str) {
        self.error_replies.add(1);
        self.errors.add(text.split(' ').next().unwrap_or_default());
    }

    /// Counts a batch of requests and the keys its reads looked up.
    pub fn note_turn(&self, commands: u64, hits: u64, misses: u64) {
        for (counter, by) in [
            (&self.commands_processed, commands),
            (&self.keyspace_hits, hits),
            (&self.keyspace_misses, misses),
        ] {
            if by > 0 {
                counter.add(by);
            }
        }
    }

    /// CONFIG RESETSTAT.
    pub fn reset(&self) {
        let counters = [
            &self.connections_received,
            &self.connections_rejected,
            &self.commands_processed,
            &self.keyspace_hits,
            &self.keyspace_misses,
            &self.input_bytes,
            &self.output_bytes,
            &self.expired_keys,
            &self.evicted_keys,
            &self.error_replies,
            &self.output_limit_disconnections,
            &self.messages_dropped,
            &self.bus_messages_sent,
            &self.bus_messages_received,
        ];
        counters.iter().for_each(|counter| counter.reset());
        self.errors.0.lock().clear();
    }
}

/// Error codes told apart; errors with a further code are counted as [`OTHER`].
const MOST_CODES: usize = 64;
/// Where errors beyond the limit are counted.
const OTHER: &str = "OTHER";

/// Error replies by code (`ERR`, `WRONGTYPE`, `MOVED`). Errors are rare enough for a lock.
#[derive(Debug, Default)]
pub struct Errors(Mutex<BTreeMap<Box<str>, u64>>);

impl Errors {
    fn add(&self, code: &str) {
        let mut counts = self.0.lock();
        let code = if counts.len() < MOST_CODES || counts.contains_key(code) { code } else { OTHER };
        match counts.get_mut(code) {
            Some(count) => *count += 1,
            None => {
                counts.insert(code.into(), 1);
            }
        }
    }

    /// Codes and counts, by code.
    pub fn counts(&self) -> Vec<(Box<str>, u64)> {
        self.0.lock().iter().map(|(code, count)| (code.clone(), *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_code_and_the_codes_are_bounded() {
        let metrics = Metrics::default();
        metrics.note_error("ERR syntax error");
        metrics.note_error("ERR no such key");
        metrics.note_error("MOVED 1 a:2");
        assert_eq!(metrics.errors.counts(), [("ERR".into(), 2), ("MOVED".into(), 1)]);
        for code in 0..200 {
            metrics.note_error(&format!("E{code} x"));
        }
        assert_eq!(metrics.errors.counts().len(), MOST_CODES + 1);
        assert_eq!(metrics.error_replies.count(), 203);
        metrics.reset();
        assert_eq!((metrics.errors.counts().len(), metrics.error_replies.count()), (0, 0));
    }
}
