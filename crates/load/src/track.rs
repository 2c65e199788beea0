//! Clients that track: what SET is measured beside. They say `ready` on standard output and stay until they are killed.
//!
//! Each has read its own share of the tracked keys, which lie evenly among all, and reads again what it is told has
//! changed (`--again`) or nothing ever again. Other modes: all keys of a prefix (BCAST), or slotcast's stream of
//! invalidations.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use clap::ValueEnum;
use slotcast_wire::args::encode;
use slotcast_wire::frame::{Frame, FrameDecoder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::batch::key;

/// Numbers below this one share [`PREFIX`].
const PREFIX: &str = "key:00000000";
/// Room for one read; a client that waits has none.
const READ_BYTES: usize = 16 << 10;

/// In which way they track.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// The keys they have read.
    Reads,
    /// All keys whose numbers have at most four digits.
    Bcast,
    /// INVALIDATIONS SUBSCRIBE.
    Stream,
}

/// What all of them do.
pub struct Trackers {
    /// The server.
    pub server: SocketAddr,
    /// See there.
    pub mode: Mode,
    /// How many.
    pub connections: usize,
    /// Number of distinct keys.
    pub keys: u32,
    /// Of these, how many are read by somebody.
    pub tracked: u32,
    /// Number of the first of them.
    pub first: u32,
    /// Whether keys are read again that have changed.
    pub again: bool,
}

impl Trackers {
    /// Runs them for ever.
    pub async fn run(self) -> io::Result<()> {
        let this = Rc::new(self);
        let mut tasks = Vec::new();
        for number in 0..this.connections {
            let stream = this.open(number).await?;
            tasks.push(tokio::task::spawn_local(this.clone().follow(stream)));
        }
        println!("ready");
        for task in tasks {
            task.await??;
        }
        Ok(())
    }

    async fn open(&self, number: usize) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.server).await?;
        stream.set_nodelay(true)?;
        let mut requests = Vec::new();
        encode(["HELLO", "3"].iter(), &mut requests);
        match self.mode {
            Mode::Reads => encode(["CLIENT", "TRACKING", "ON"].iter(), &mut requests),
            Mode::Bcast => {
                encode(["CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", PREFIX].iter(), &mut requests);
            }
            Mode::Stream => encode(["INVALIDATIONS", "SUBSCRIBE"].iter(), &mut requests),
        }
        let mut replies = 2;
        if self.mode == Mode::Reads {
            let apart = (self.keys / self.tracked.max(1)).max(1);
            for place in (number as u32..self.tracked).step_by(self.connections) {
                encode([&b"GET"[..], &key(self.first + place * apart)].iter(), &mut requests);
                replies += 1;
            }
        }
        stream.write_all(&requests).await?;
        let (mut received, mut decoder, mut start) = (Vec::new(), FrameDecoder::default(), 0);
        while replies > 0 {
            match take(&mut decoder, &received, &mut start)? {
                Some(frame) if frame.as_error().is_some() => return Err(io::Error::other(frame.to_string())),
                Some(Frame::Push(_)) => {}
                Some(_) => replies -= 1,
                None if stream.read_buf(&mut received).await? == 0 => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                None => {}
            }
        }
        Ok(stream)
    }

    async fn follow(self: Rc<Self>, mut stream: TcpStream) -> io::Result<()> {
        let (mut received, mut decoder) = (Vec::new(), FrameDecoder::default());
        loop {
            stream.readable().await?;
            received.reserve(READ_BYTES);
            match stream.try_read_buf(&mut received) {
                Ok(0) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                read => read?,
            };
            if !self.again {
                received = Vec::new();
                continue;
            }
            let (mut start, mut requests) = (0, Vec::new());
            while let Some(frame) = take(&mut decoder, &received, &mut start)? {
                for key in told(&frame) {
                    encode([&b"GET"[..], key].iter(), &mut requests);
                }
            }
            received.drain(..start);
            if received.is_empty() {
                received = Vec::new();
            }
            stream.write_all(&requests).await?;
        }
    }
}

fn take(decoder: &mut FrameDecoder, received: &[u8], start: &mut usize) -> io::Result<Option<Frame>> {
    let (used, frame) =
        decoder.decode(&received[*start..]).map_err(|error| io::Error::other(format!("{error:?}")))?;
    *start += used;
    Ok(frame)
}

/// The keys that a push of CLIENT TRACKING names.
fn told(frame: &Frame) -> Vec<&[u8]> {
    let Frame::Push(parts) = frame else { return Vec::new() };
    match parts.get(1) {
        Some(Frame::Array(keys)) => keys.iter().filter_map(Frame::as_bytes).collect(),
        _ => Vec::new(),
    }
}
