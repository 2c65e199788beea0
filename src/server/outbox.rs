//! What a connection is told without having asked: its queue of pushes.
//!
//! Pushes come from whatever thread applied a change; the connection's own thread writes them behind the replies it
//! has executed so far. That order is what makes tracking correct: a read's reply is written before any push that
//! was queued after the read, and a push is queued, under the slot's lock, only after the reads it concerns.
//!
//! Bounded: a client that does not read its invalidations gets one "everything may have changed" in their place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use slotcast_wire::push;

use crate::session::clients::Client;

/// Bytes of pushes that may wait; beyond it they are replaced by one that invalidates everything.
pub const MAX_PUSH_BYTES: usize = 8 << 20;

/// See the module's documentation.
pub struct Outbox {
    client: Arc<Client>,
    pushes: Mutex<Vec<u8>>,
    waiting: AtomicBool,
}

impl Outbox {
    /// The outbox of a connection, which is woken through its `client`.
    pub fn new(client: Arc<Client>) -> Self {
        Self { client, pushes: Mutex::default(), waiting: AtomicBool::new(false) }
    }

    /// Queues the invalidation of one key.
    pub fn invalidate(&self, key: &[u8]) {
        let mut pushes = self.pushes.lock();
        if pushes.len() + key.len() > MAX_PUSH_BYTES {
            pushes.clear();
            push::invalidate_all(&mut pushes);
        } else {
            push::invalidate_keys(&mut pushes, &[key]);
        }
        self.signal();
    }

    /// Queues the invalidation of everything, which makes the queued ones needless.
    pub fn invalidate_all(&self) {
        let mut pushes = self.pushes.lock();
        pushes.clear();
        push::invalidate_all(&mut pushes);
        self.signal();
    }

    /// Takes the queued pushes, to be sent behind everything that is in `out`.
    #[inline]
    pub fn drain(&self, out: &mut Vec<u8>) {
        if self.waiting.load(Ordering::Acquire) {
            let mut pushes = self.pushes.lock();
            self.waiting.store(false, Ordering::Release);
            out.append(&mut pushes);
        }
    }

    fn signal(&self) {
        if !self.waiting.swap(true, Ordering::AcqRel) {
            self.client.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::clients::Clients;

    fn outbox() -> Outbox {
        let nowhere = ([127, 0, 0, 1], 0).into();
        Outbox::new(Clients::default().register(nowhere, nowhere, 0))
    }

    #[test]
    fn pushes_wait_in_order_and_leave_at_once() {
        let outbox = outbox();
        outbox.invalidate(b"a");
        outbox.invalidate(b"b");
        let mut out = b"+OK\r\n".to_vec();
        outbox.drain(&mut out);
        let one = |key: &str| format!(">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\n{key}\r\n");
        assert_eq!(String::from_utf8(out.clone()).unwrap(), format!("+OK\r\n{}{}", one("a"), one("b")));
        outbox.drain(&mut out);
        assert_eq!(out.len(), 5 + one("a").len() * 2);
    }

    #[test]
    fn a_client_that_never_reads_is_told_that_all_may_have_changed() {
        let outbox = outbox();
        for n in 0..400_000 {
            outbox.invalidate(format!("some-key-of-a-cache:{n}").as_bytes());
            assert!(outbox.pushes.lock().len() <= MAX_PUSH_BYTES + 100);
        }
        let mut out = Vec::new();
        outbox.drain(&mut out);
        assert!(out.starts_with(b">2\r\n$10\r\ninvalidate\r\n_\r\n"));
    }
}
