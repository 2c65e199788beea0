//! What a connection is told without having asked: its queues of invalidations and of messages.
//!
//! Both come from whatever thread applied a change or published; the connection's own thread writes them behind the
//! replies it has executed so far. That order is what makes tracking correct: a read's reply is written before any
//! push that was queued after the read, and a push is queued, under the slot's lock, only after the reads it concerns.
//!
//! Bounded, each queue in its own way: a client that does not read its invalidations gets one "everything may have
//! changed" in their place; one that does not read its messages is closed, because they cannot be had again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use slotcast_wire::push;
use slotcast_wire::reply::Proto;

use crate::pubsub::message::Push;
use crate::session::clients::Client;

/// Bytes of invalidations that may wait; beyond it they are replaced by one that invalidates everything.
pub const MAX_PUSH_BYTES: usize = 8 << 20;
/// A queue that has grown beyond this gives its memory back when it is empty.
const KEEP_BYTES: usize = 64 << 10;

/// See the module's documentation.
pub struct Outbox {
    client: Arc<Client>,
    queues: Mutex<Queues>,
    waiting: AtomicBool,
}

struct Queues {
    /// What the client speaks: the form of its messages.
    proto: Proto,
    invalidations: Vec<u8>,
    messages: Vec<u8>,
}

/// There were too many messages: the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow;

impl Queues {
    fn move_to(&mut self, out: &mut Vec<u8>) {
        for queue in [&mut self.invalidations, &mut self.messages] {
            out.append(queue);
            queue.shrink_to(KEEP_BYTES);
        }
    }

    fn len(&self) -> u64 {
        (self.invalidations.len() + self.messages.len()) as u64
    }
}

impl Outbox {
    /// The outbox of a connection, which is woken through its `client`.
    pub fn new(client: Arc<Client>) -> Self {
        let queues = Queues { proto: Proto::Resp2, invalidations: Vec::new(), messages: Vec::new() };
        Self { client, queues: Mutex::new(queues), waiting: AtomicBool::new(false) }
    }

    /// Queues the invalidation of one key.
    pub fn invalidate(&self, key: &[u8]) {
        let mut queues = self.queues.lock();
        let pushes = &mut queues.invalidations;
        if pushes.len() + key.len() > MAX_PUSH_BYTES {
            pushes.clear();
            push::invalidate_all(pushes);
        } else {
            push::invalidate_keys(pushes, &[key]);
        }
        self.signal(&queues);
    }

    /// Queues the invalidation of everything, which makes the queued ones needless.
    pub fn invalidate_all(&self) {
        let mut queues = self.queues.lock();
        queues.invalidations.clear();
        push::invalidate_all(&mut queues.invalidations);
        self.signal(&queues);
    }

    /// Queues a message. If more than `limit` bytes (0: any number) wait for the client then, it is closed instead.
    pub fn deliver(&self, message: &Push, limit: u64) -> Result<(), Overflow> {
        let mut queues = self.queues.lock();
        let waiting =
            (queues.messages.len() + message.len()) as u64 + self.client.unsent.load(Ordering::Relaxed);
        if limit > 0 && waiting > limit {
            queues.messages = Vec::new();
            self.client.kill();
            return Err(Overflow);
        }
        let proto = queues.proto;
        message.write(proto, &mut queues.messages);
        self.signal(&queues);
        Ok(())
    }

    /// Moves what is queued behind everything that is in `out`; whether there was anything.
    #[inline]
    pub fn drain(&self, out: &mut Vec<u8>) -> bool {
        let waiting = self.waiting.load(Ordering::Acquire);
        if waiting {
            let mut queues = self.queues.lock();
            self.waiting.store(false, Ordering::Release);
            queues.move_to(out);
            self.client.queued.store(0, Ordering::Relaxed);
        }
        waiting
    }

    /// Moves what is queued in front of what is in `out` from `mark` on: a reply after which the client doesn't expect
    /// it any more, because it has left a channel or changed its protocol. Messages have the form of `proto` from now on.
    pub fn cut_in(&self, proto: Proto, mark: usize, out: &mut Vec<u8>) {
        let mut queues = self.queues.lock();
        queues.proto = proto;
        let mut before = Vec::new();
        queues.move_to(&mut before);
        self.client.queued.store(0, Ordering::Relaxed);
        drop(queues);
        out.splice(mark..mark, before);
    }

    fn signal(&self, queues: &Queues) {
        self.client.queued.store(queues.len(), Ordering::Relaxed);
        if !self.waiting.swap(true, Ordering::AcqRel) {
            self.client.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pubsub::message::Message;
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
            assert!(outbox.queues.lock().invalidations.len() <= MAX_PUSH_BYTES + 100);
        }
        let mut out = Vec::new();
        outbox.drain(&mut out);
        assert!(out.starts_with(b">2\r\n$10\r\ninvalidate\r\n_\r\n"));
    }

    fn message(payload: &[u8]) -> Push {
        Message { sharded: false, channel: b"c", payload }.push()
    }

    #[test]
    fn messages_speak_the_client_s_protocol_and_go_before_a_reply_that_ends_them() {
        let outbox = outbox();
        outbox.deliver(&message(b"1"), 0).unwrap();
        let mut out = b"+before\r\n+HELLO\r\n".to_vec();
        outbox.cut_in(Proto::Resp3, 9, &mut out);
        outbox.deliver(&message(b"2"), 0).unwrap();
        assert!(outbox.drain(&mut out) && !outbox.drain(&mut out));
        let text = |first, payload| format!("{first}3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\n{payload}\r\n");
        let expected = format!("+before\r\n{}+HELLO\r\n{}", text('*', 1), text('>', 2));
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_client_that_never_reads_its_messages_is_closed() {
        let outbox = outbox();
        let long = message(&[b'x'; 1000]);
        let taken = (0..100).take_while(|_| outbox.deliver(&long, 10_000).is_ok()).count();
        assert_eq!(taken, 10_000 / long.len());
        assert!(outbox.client.is_killed());
        assert_eq!(outbox.queues.lock().messages.capacity(), 0);
    }
}
