//! A queue of messages bounded in number and in bytes: what does not fit is refused, and whoever sends counts it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

/// Messages that may wait; one more is refused.
pub const MAX_WAITING: usize = 1 << 16;
/// Bytes of them, likewise; a longer message passes if it is alone.
pub const MAX_BYTES: usize = 64 << 20;

/// The end that sends.
pub struct Sender<T> {
    queue: mpsc::Sender<(T, usize)>,
    bytes: Arc<AtomicUsize>,
}

/// The end that takes.
pub struct Receiver<T> {
    queue: mpsc::Receiver<(T, usize)>,
    bytes: Arc<AtomicUsize>,
}

/// It did not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// An empty queue.
pub fn backlog<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, queue) = mpsc::channel(MAX_WAITING);
    let bytes = Arc::<AtomicUsize>::default();
    (Sender { queue: sender, bytes: bytes.clone() }, Receiver { queue, bytes })
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), bytes: self.bytes.clone() }
    }
}

impl<T> Sender<T> {
    /// Queues what takes `len` bytes.
    pub fn send(&self, len: usize, make: impl FnOnce() -> T) -> Result<(), Full> {
        let before = self.bytes.fetch_add(len, Ordering::Relaxed);
        let fits = before == 0 || before + len <= MAX_BYTES;
        if fits && self.queue.try_send((make(), len)).is_ok() {
            return Ok(());
        }
        self.bytes.fetch_sub(len, Ordering::Relaxed);
        Err(Full)
    }
}

impl<T> Receiver<T> {
    /// What waits, at least one and about `bytes` of them at most; `None`: there will be no more.
    pub async fn next(&mut self, bytes: usize) -> Option<Vec<T>> {
        let (first, mut len) = self.queue.recv().await?;
        let mut taken = vec![first];
        while len < bytes
            && let Ok((next, more)) = self.queue.try_recv()
        {
            len += more;
            taken.push(next);
        }
        self.bytes.fetch_sub(len, Ordering::Relaxed);
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_fit_is_refused_until_something_was_taken() {
        let (sender, mut receiver) = backlog();
        assert_eq!(sender.send(MAX_BYTES * 2, || 1), Ok(()), "alone");
        assert_eq!(sender.send(1, || 2), Err(Full));
        assert_eq!(receiver.next(1).await, Some(vec![1]));
        for n in 0..MAX_WAITING {
            assert_eq!(sender.send(1, || n), Ok(()));
        }
        assert_eq!(sender.send(1, || 0), Err(Full));
        assert_eq!(receiver.next(10).await.map(|taken| taken.len()), Some(10));
        assert_eq!(sender.send(1, || 0), Ok(()));
    }
}
