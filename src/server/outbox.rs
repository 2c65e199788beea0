//! What a connection is told without having asked: its queues of invalidations and of messages.
//!
//! Both come from whatever thread applied a change or published; the connection's own thread writes them behind the
//! replies it has executed so far. That order is what makes tracking correct: a read's reply is written before any
//! push that was queued after the read, and a push is queued, under the slot's lock, only after the reads it concerns.
//!
//! Bounded, each queue in its own way: a client that does not read its invalidations gets one "everything may have
//! changed" in their place (see `tracking::backlog`); one that does not read its messages is closed, because they
//! cannot be had again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use slotcast_wire::reply::Proto;

use crate::pubsub::message::Push;
use crate::session::clients::Client;
use crate::tracking::backlog::{Backlog, Form};

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
    invalidations: Backlog,
    messages: Vec<u8>,
}

/// There were too many messages: the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow;

impl Queues {
    /// Invalidations in this form; none: they stay.
    fn move_to(&mut self, form: Option<Form>, out: &mut Vec<u8>) {
        if let Some(form) = form {
            self.invalidations.write(form, out);
        }
        out.append(&mut self.messages);
        self.messages.shrink_to(KEEP_BYTES);
    }

    fn len(&self) -> u64 {
        (self.invalidations.bytes() + self.messages.len()) as u64
    }
}

impl Outbox {
    /// The outbox of a connection, which is woken through its `client`.
    pub fn new(client: Arc<Client>) -> Self {
        let queues = Queues { proto: Proto::Resp2, invalidations: Backlog::default(), messages: Vec::new() };
        Self { client, queues: Mutex::new(queues), waiting: AtomicBool::new(false) }
    }

    /// Whose it is.
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Queues the invalidation of a key that was read.
    pub fn invalidate(&self, key: &[u8]) {
        self.queue(|invalidations| invalidations.tell(key));
        self.announce();
    }

    /// Queues the invalidation of everything, which makes the queued ones needless.
    pub fn invalidate_all(&self) {
        self.queue(Backlog::tell_everything);
        self.announce();
    }

    /// Queues the notice that the connection which was told in this one's place is gone.
    pub fn redirection_is_broken(&self, target: u64) {
        self.queue(|invalidations| invalidations.tell_broken(target));
        self.announce();
    }

    /// Queues the invalidation of a key that is broadcast. It leaves after [`Outbox::announce`] at the latest: so the
    /// keys of one request leave together.
    pub fn broadcast(&self, prefix: &[u8], key: &[u8]) {
        self.queue(|invalidations| invalidations.broadcast(prefix, key));
    }

    fn queue(&self, change: impl FnOnce(&mut Backlog)) {
        let mut queues = self.queues.lock();
        change(&mut queues.invalidations);
        self.client.queued.store(queues.len(), Ordering::Relaxed);
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
        self.client.queued.store(queues.len(), Ordering::Relaxed);
        drop(queues);
        self.announce();
        Ok(())
    }

    /// Whether the connection is to look into the queues.
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// Moves what is queued behind everything that is in `out`, invalidations in this form; whether there was anything.
    #[inline]
    pub fn drain(&self, form: Form, out: &mut Vec<u8>) -> bool {
        let waiting = self.waiting.load(Ordering::Acquire);
        if waiting {
            let mut queues = self.queues.lock();
            self.waiting.store(false, Ordering::Release);
            queues.move_to(Some(form), out);
            self.client.queued.store(0, Ordering::Relaxed);
        }
        waiting
    }

    /// Moves what is queued in front of what is in `out` from `mark` on: a reply after which the client doesn't expect
    /// it any more, because it has left a channel or changed its protocol. Until now invalidations had this form (none:
    /// they stay where they are); from now on messages are written for `proto`.
    pub fn cut_in(&self, form: Option<Form>, proto: Proto, mark: usize, out: &mut Vec<u8>) {
        let mut queues = self.queues.lock();
        queues.proto = proto;
        let mut before = Vec::new();
        queues.move_to(form, &mut before);
        self.client.queued.store(queues.len(), Ordering::Relaxed);
        drop(queues);
        out.splice(mark..mark, before);
    }

    /// Lets the connection look into the queues.
    pub fn announce(&self) {
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
    use crate::tracking::backlog::MAX_BYTES;

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
        outbox.drain(Form::Push, &mut out);
        let one = |key: &str| format!(">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\n{key}\r\n");
        assert_eq!(String::from_utf8(out.clone()).unwrap(), format!("+OK\r\n{}{}", one("a"), one("b")));
        outbox.drain(Form::Push, &mut out);
        assert_eq!(out.len(), 5 + one("a").len() * 2);
    }

    #[test]
    fn a_client_that_never_reads_is_told_that_all_may_have_changed() {
        let outbox = outbox();
        for n in 0..400_000 {
            outbox.invalidate(format!("some-key-of-a-cache:{n}").as_bytes());
            assert!(outbox.client.queued.load(Ordering::Relaxed) <= MAX_BYTES as u64);
        }
        let mut out = Vec::new();
        outbox.drain(Form::Push, &mut out);
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
        outbox.cut_in(Some(Form::Nothing), Proto::Resp3, 9, &mut out);
        outbox.deliver(&message(b"2"), 0).unwrap();
        assert!(outbox.drain(Form::Push, &mut out) && !outbox.drain(Form::Push, &mut out));
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
