//! Incoming connections: greet, then answer calls.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use parking_lot::RwLock;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::bus::call::Service;
use crate::bus::frame::{Frame, Greeting};
use crate::bus::stream::{Reader, Writer};
use crate::bus::transport::{Halves, Listener};
use crate::id::NodeId;

/// Connections other nodes may hold here; more are closed at once.
const MAX_CONNECTIONS: usize = 1024;
/// Calls of one connection being answered; beyond that nothing more is read from it.
const MAX_ANSWERING: usize = 4096;
/// Time for the other node to greet.
const GREETING_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection whose node sends nothing (not even its ten pings a second) for so long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// After a failed accept (out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who answers which service.
pub type Services = Arc<RwLock<HashMap<u8, Service>>>;

/// Accepts connections for ever.
pub async fn accept(mut listener: Box<dyn Listener>, me: NodeId, services: Services) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let (halves, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the node bus cannot accept a connection; trying again");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(%from, limit = MAX_CONNECTIONS, "too many node bus connections; closing one");
            continue;
        };
        let services = services.clone();
        tokio::spawn(async move {
            if let Err(error) = answer(halves, me, services, from).await {
                tracing::debug!(%from, %error, "an incoming bus connection ended");
            }
            drop(place);
        });
    }
}

async fn answer(halves: Halves, me: NodeId, services: Services, from: SocketAddr) -> io::Result<()> {
    let (mut reader, mut writer) = (Reader::new(halves.0), Writer::new(halves.1));
    let greeting = timeout(GREETING_TIMEOUT, reader.exactly()).await??;
    let greeting = Greeting::decode(&greeting).map_err(|error| {
        tracing::warn!(%from, %error, "refusing a bus connection");
        io::Error::new(io::ErrorKind::InvalidData, error)
    })?;
    writer.raw(&Greeting { node: me, lane: greeting.lane }.encode()).await?;

    let mut answering: FuturesUnordered<Answering> = FuturesUnordered::new();
    loop {
        while answering.len() < MAX_ANSWERING
            && let Some(frame) = reader.buffered()?
        {
            match frame {
                Frame::Request { id, service, body } => {
                    let service = services.read().get(&service).cloned();
                    match begin(service, id, greeting.node, body) {
                        Ok(frame) => writer.feed(&frame).await?,
                        Err(later) => answering.push(later),
                    }
                }
                Frame::Ping => writer.feed(&Frame::Pong).await?,
                Frame::Answer { .. } | Frame::Pong => {}
            }
        }
        writer.flush().await?;
        tokio::select! {
            biased;
            Some(frame) = answering.next() => {
                writer.feed(&frame).await?;
                while let Some(Some(frame)) = futures::FutureExt::now_or_never(answering.next()) {
                    writer.feed(&frame).await?;
                }
            }
            filled = timeout(IDLE_TIMEOUT, reader.fill()), if answering.len() < MAX_ANSWERING => filled??,
        }
    }
}

/// A call whose answer isn't there yet.
struct Answering {
    id: u64,
    answer: BoxFuture<'static, Bytes>,
}

impl Future for Answering {
    type Output = Frame;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Frame> {
        let id = self.id;
        self.answer.as_mut().poll(context).map(|body| Frame::Answer { id, served: true, body })
    }
}

/// Starts answering: the first poll happens here, so that a service sees the calls in the order they came.
fn begin(service: Option<Service>, id: u64, from: NodeId, body: Bytes) -> Result<Frame, Answering> {
    let Some(service) = service else {
        return Ok(Frame::Answer { id, served: false, body: Bytes::new() });
    };
    let mut answer = service(from, body);
    // Polled again by whoever keeps it, with a real waker; until then a wake-up cannot be missed.
    match answer.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())) {
        Poll::Ready(body) => Ok(Frame::Answer { id, served: true, body }),
        Poll::Pending => Err(Answering { id, answer }),
    }
}
