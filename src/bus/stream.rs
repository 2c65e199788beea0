//! Frames over the two halves of a connection: a reader that cuts, a writer that coalesces.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use futures::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::bus::frame::Frame;

/// Bytes asked of the socket at once, unless a frame under way needs more.
const READ_SIZE: usize = 64 << 10;
/// A frame under way reserves at most this much ahead, so that a claimed length costs nothing until bytes come.
const RESERVE_AHEAD: usize = 4 << 20;
/// Frames are gathered into one write up to this many bytes.
const WRITE_SIZE: usize = 64 << 10;
/// A body at least this long is written from where it lies instead of being copied into the gathered write.
const BIG_BODY: usize = 32 << 10;

/// Time the other node has to take one write; then the connection is given up (its host may be gone without a word).
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads frames.
pub struct Reader {
    half: Box<dyn AsyncRead + Send + Unpin>,
    input: BytesMut,
}

impl Reader {
    /// Reads from `half`.
    pub fn new(half: Box<dyn AsyncRead + Send + Unpin>) -> Reader {
        Reader { half, input: BytesMut::with_capacity(READ_SIZE) }
    }

    /// The next frame that has already come in, if a whole one has.
    pub fn buffered(&mut self) -> io::Result<Option<Frame>> {
        Frame::take(&mut self.input).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Waits for more bytes. Cancelling loses none.
    pub async fn fill(&mut self) -> io::Result<()> {
        let missing = Frame::missing(&self.input);
        self.input.reserve(missing.clamp(READ_SIZE / 4, RESERVE_AHEAD));
        match self.half.read_buf(&mut self.input).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Exactly `N` bytes before any frame: a greeting.
    pub async fn exactly<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.half.read_exact(&mut bytes).await?;
        Ok(bytes)
    }
}

/// Writes frames.
pub struct Writer {
    half: Box<dyn AsyncWrite + Send + Unpin>,
    output: BytesMut,
    progress: Arc<AtomicUsize>,
}

impl Writer {
    /// Writes to `half`.
    pub fn new(half: Box<dyn AsyncWrite + Send + Unpin>) -> Writer {
        Writer { half, output: BytesMut::with_capacity(WRITE_SIZE), progress: Arc::default() }
    }

    /// Counts the writes that stood still until the peer had taken something: a long frame on a slow network is no
    /// silence.
    pub fn progress(&self) -> Arc<AtomicUsize> {
        self.progress.clone()
    }

    /// Takes a frame; writes what has gathered once it is worth a write.
    pub async fn feed(&mut self, frame: &Frame) -> io::Result<()> {
        frame.put_head(&mut self.output);
        let body = frame.body();
        if body.len() < BIG_BODY {
            self.output.put_slice(body);
        } else {
            self.flush().await?;
            timeout(WRITE_TIMEOUT, write_all(&mut self.half, body, &self.progress)).await??;
        }
        if self.output.len() >= WRITE_SIZE { self.flush().await } else { Ok(()) }
    }

    /// Writes what has gathered.
    pub async fn flush(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            timeout(WRITE_TIMEOUT, write_all(&mut self.half, &self.output, &self.progress)).await??;
            self.output.clear();
        }
        Ok(())
    }

    /// Bytes outside any frame: a greeting.
    pub async fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.half.write_all(bytes).await?;
        self.half.flush().await
    }
}

async fn write_all(
    half: &mut (dyn AsyncWrite + Send + Unpin),
    mut bytes: &[u8],
    progress: &AtomicUsize,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = match half.write(bytes).now_or_never() {
            Some(written) => written?,
            None => {
                let written = half.write(bytes).await?;
                progress.fetch_add(1, Ordering::Relaxed);
                written
            }
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
    }
    Ok(())
}
