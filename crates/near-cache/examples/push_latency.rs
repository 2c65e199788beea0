//! How long after a write is acknowledged does a cache hear of it? What scripts/bench's section `push` runs.
//!
//! `push_latency --server 127.0.0.1:7001 --mode stream --seconds 3 [--subscribers 1000]`: writes one key after the other
//! and waits for each one's push, on two connections read by two threads. Modes: `stream` (INVALIDATIONS SUBSCRIBE),
//! `tracking` (CLIENT TRACKING; the key is read before each write) and `bcast` (CLIENT TRACKING ON BCAST). With further
//! subscribers the next write comes when all have heard of the last one, and times since the request are those of all of
//! them: servers tell them in different orders. Prints JSON; times in µs, negative when the push came before the
//! acknowledgement, which only the first subscriber tells.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use slotcast_wire::args::encode;
use slotcast_wire::frame::{Frame, FrameDecoder};
use slotcast_wire::invalidation::{Push, read_push};

const KEYS: usize = 1000;
const LIMIT: Duration = Duration::from_secs(5);
const WARM_UP: Duration = Duration::from_millis(300);

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    taken: usize,
    decoder: FrameDecoder,
}

impl Connection {
    fn open(server: &str) -> Result<Connection> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(Connection { stream, input: Vec::new(), taken: 0, decoder: FrameDecoder::default() })
    }

    fn send(&mut self, words: &[&str]) -> Result<()> {
        let mut request = Vec::new();
        encode(words.iter(), &mut request);
        self.stream.write_all(&request)
    }

    fn frame(&mut self) -> Result<Frame> {
        loop {
            let (taken, frame) = self.decoder.decode(&self.input[self.taken..]).map_err(Error::other)?;
            self.taken += taken;
            if let Some(frame) = frame {
                return Ok(frame);
            }
            self.input.drain(..std::mem::take(&mut self.taken));
            let mut piece = [0; 16 << 10];
            match self.stream.read(&mut piece)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                read => self.input.extend_from_slice(&piece[..read]),
            }
        }
    }

    /// The reply to a request; pushes before it are passed over.
    fn ask(&mut self, words: &[&str]) -> Result<Frame> {
        self.send(words)?;
        loop {
            match self.frame()? {
                Frame::Push(_) => {}
                frame if frame.as_error().is_some() => return Err(Error::other(frame.to_string())),
                frame => return Ok(frame),
            }
        }
    }

    fn subscribe(&mut self, mode: &str) -> Result<()> {
        self.ask(&["HELLO", "3"])?;
        self.ask(match mode {
            "stream" => &["INVALIDATIONS", "SUBSCRIBE"],
            "bcast" => &["CLIENT", "TRACKING", "ON", "BCAST"],
            _ => &["CLIENT", "TRACKING", "ON"],
        })?;
        Ok(())
    }

    /// Reads on until a push names the key.
    fn hear_of(&mut self, key: &str) -> Result<Instant> {
        loop {
            let frame = self.frame()?;
            let now = Instant::now();
            let named = match (read_push(&frame), &frame) {
                (Some(Push::Keys { keys, .. }), _) => keys.iter().any(|(named, _)| named == key.as_bytes()),
                (None, Frame::Push(parts)) => match parts.get(1) {
                    Some(Frame::Array(keys)) => {
                        keys.iter().any(|named| named.as_bytes() == Some(key.as_bytes()))
                    }
                    _ => false,
                },
                _ => false,
            };
            if named {
                return Ok(now);
            }
        }
    }
}

/// The subscriber's thread: for each key that comes it says when it is ready, and then when it heard of it.
fn listen(
    mut connection: Connection,
    mode: &str,
    keys: Receiver<String>,
    times: Sender<Instant>,
) -> Result<()> {
    for key in keys {
        if mode == "tracking" {
            connection.ask(&["GET", &key])?;
        }
        let _ = times.send(Instant::now());
        let _ = times.send(connection.hear_of(&key)?);
    }
    Ok(())
}

/// What further subscribers wait for.
#[derive(Default)]
struct Awaited {
    key: String,
    sent: Option<Instant>,
    /// Of those who have heard of it, how long that took (µs).
    late: Vec<i64>,
}

/// Further subscribers.
struct Crowd {
    number: usize,
    awaited: Mutex<Awaited>,
    all_told: Mutex<Sender<Vec<i64>>>,
}

impl Crowd {
    fn expect(&self, key: &str, sent: Instant) {
        let mut awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        *awaited = Awaited { key: key.to_owned(), sent: Some(sent), late: Vec::with_capacity(self.number) };
    }

    fn hears(&self, bytes: &[u8]) {
        let now = Instant::now();
        let mut awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        let named = bytes.windows(awaited.key.len().max(1)).any(|some| some == awaited.key.as_bytes());
        let Some(sent) = awaited.sent.filter(|_| named) else { return };
        awaited.late.push(now.saturating_duration_since(sent).as_micros() as i64);
        if awaited.late.len() == self.number {
            let all = std::mem::take(&mut awaited.late);
            let _ = self.all_told.lock().unwrap_or_else(PoisonError::into_inner).send(all);
        }
    }
}

/// Subscribers that only read, on one thread.
fn crowd(server: &str, mode: &str, crowd: &Arc<Crowd>) -> Result<()> {
    let mut others = Vec::new();
    for _ in 0..crowd.number {
        let mut other = Connection::open(server)?;
        other.subscribe(mode)?;
        other.stream.set_nonblocking(true)?;
        others.push(other.stream);
    }
    let crowd = crowd.clone();
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            let reading = others.into_iter().map(|other| tokio::spawn(drain(other, crowd.clone())));
            for reader in reading.collect::<Vec<_>>() {
                let _ = reader.await;
            }
        });
    });
    Ok(())
}

async fn drain(stream: TcpStream, crowd: Arc<Crowd>) {
    use tokio::io::AsyncReadExt;
    let Ok(mut stream) = tokio::net::TcpStream::from_std(stream) else { return };
    let mut piece = vec![0; 4 << 10];
    while let Ok(read @ 1..) = stream.read(&mut piece).await {
        crowd.hears(&piece[..read]);
    }
}

fn flag(name: &str, default: &str) -> String {
    let words: Vec<String> = std::env::args().collect();
    let at = words.iter().position(|word| word == name);
    at.and_then(|at| words.get(at + 1)).map_or(default, String::as_str).to_owned()
}

fn percentile(sorted: &[i64], share: f64) -> i64 {
    sorted.get((sorted.len() as f64 * share) as usize).copied().unwrap_or_default()
}

fn main() -> Result<()> {
    let (server, mode) = (flag("--server", "127.0.0.1:6379"), flag("--mode", "stream"));
    let number = |name, default| flag(name, default).parse::<usize>().map_err(Error::other);
    let (seconds, subscribers) = (number("--seconds", "3")?, number("--subscribers", "1")?);
    let (all_told, told) = channel();
    let number = subscribers.saturating_sub(1);
    let others = Arc::new(Crowd { number, awaited: Mutex::default(), all_told: Mutex::new(all_told) });
    crowd(&server, &mode, &others)?;
    let mut subscriber = Connection::open(&server)?;
    subscriber.subscribe(&mode)?;
    let mut writer = Connection::open(&server)?;
    let ((keys, wanted), (said, times)) = (channel(), channel());
    let listening = std::thread::spawn(move || listen(subscriber, &mode, wanted, said));
    let (mut behind_ack, mut behind_send) = (Vec::new(), Vec::new());
    let begun = Instant::now();
    for n in 0.. {
        let key = format!("pushed:{}", n % KEYS);
        let heard = |_| Error::other("no push came");
        keys.send(key.clone()).map_err(|_| Error::other("the subscriber has ended"))?;
        times.recv_timeout(LIMIT).map_err(heard)?;
        let sent = Instant::now();
        others.expect(&key, sent);
        writer.ask(&["SET", &key, "value"])?;
        let acknowledged = Instant::now();
        let pushed = times.recv_timeout(LIMIT).map_err(heard)?;
        let late = if number > 0 { told.recv_timeout(LIMIT).map_err(heard)? } else { Vec::new() };
        if begun.elapsed() > WARM_UP {
            let early = -(acknowledged.saturating_duration_since(pushed).as_micros() as i64);
            let behind = pushed.saturating_duration_since(acknowledged).as_micros() as i64;
            behind_ack.push(behind + early);
            behind_send.extend(late);
            behind_send.push(pushed.saturating_duration_since(sent).as_micros() as i64);
        }
        if begun.elapsed() > WARM_UP + Duration::from_secs(seconds as u64) {
            break;
        }
    }
    drop(keys);
    let _ = listening.join();
    behind_ack.sort_unstable();
    behind_send.sort_unstable();
    let figures = |sorted: &[i64]| [0.5, 0.99, 0.999].map(|share| percentile(sorted, share));
    let (ack, send) = (figures(&behind_ack), figures(&behind_send));
    println!(r#"{{"writes": {}, "behind_ack_us": {ack:?}, "behind_send_us": {send:?}}}"#, behind_ack.len());
    Ok(())
}
