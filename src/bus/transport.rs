//! How the bus listens and connects: TCP, or a simulated network in tests.

use std::io;
use std::net::SocketAddr;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// The two halves of a connection.
pub type Halves = (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>);

/// A network.
pub trait Transport: Send + Sync + 'static {
    /// Listens on `addr`.
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>>;
    /// Connects to `addr`. The bus bounds the time.
    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Halves>>;
}

/// A listening socket.
pub trait Listener: Send {
    /// Where it listens.
    fn local_addr(&self) -> io::Result<SocketAddr>;
    /// The next connection.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Halves, SocketAddr)>>;
}

/// The real network.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Transport for Tcp {
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move { Ok(Box::new(TcpListener::bind(addr).await?) as Box<dyn Listener>) })
    }

    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Halves>> {
        Box::pin(async move { halves(TcpStream::connect(addr).await?) })
    }
}

impl Listener for TcpListener {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::local_addr(self)
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Halves, SocketAddr)>> {
        Box::pin(async move {
            let (stream, from) = TcpListener::accept(self).await?;
            Ok((halves(stream)?, from))
        })
    }
}

fn halves(stream: TcpStream) -> io::Result<Halves> {
    stream.set_nodelay(true)?;
    let (read, write) = stream.into_split();
    Ok((Box::new(read), Box::new(write)))
}
