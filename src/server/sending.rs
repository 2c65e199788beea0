//! The sending half of a connection: what its socket takes now, what is kept for later, and when that is too much.

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context as TaskContext, Poll};

use tokio::io::AsyncWrite;

use crate::server::connection::Connection;

impl Connection {
    /// Sends as much of `out` as the socket takes and keeps the rest.
    pub(super) fn send_or_keep(&mut self, task: &mut TaskContext<'_>, out: &[u8]) -> io::Result<()> {
        let mut sent = 0;
        if self.output.is_empty() {
            while sent < out.len() {
                match Pin::new(&mut self.stream).poll_write(task, &out[sent..]) {
                    Poll::Ready(written) => sent += written?,
                    Poll::Pending => break,
                }
            }
        }
        self.output.extend_from_slice(&out[sent..]);
        let limit = self.server.output_limit(&self.session);
        if limit > 0 && (self.output.len() - self.sent) as u64 > limit {
            self.server.context.metrics.output_limit_disconnections.add(1);
            return Err(io::Error::other("its replies exceed client-output-buffer-limit"));
        }
        self.server.context.metrics.output_bytes.add(out.len() as u64);
        Ok(())
    }

    /// Sends what is left of earlier turns.
    pub(super) fn poll_flush(&mut self, task: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        if self.output.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let client = &self.session.client;
        while self.sent < self.output.len() {
            match Pin::new(&mut self.stream).poll_write(task, &self.output[self.sent..]) {
                Poll::Ready(written) => {
                    self.sent += written?;
                    client.stalled_since.store(0, Relaxed);
                }
                Poll::Pending => {
                    client.unsent.store((self.output.len() - self.sent) as u64, Relaxed);
                    let now = self.server.context.clock.now();
                    let _ = client.stalled_since.compare_exchange(0, now, Relaxed, Relaxed);
                    return Poll::Pending;
                }
            }
        }
        client.unsent.store(0, Relaxed);
        self.output = Vec::new();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}
