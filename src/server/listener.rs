//! Accepting connections and giving each to a thread, in turn.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use slotcast_wire::reply::{Proto, Reply};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::Sender;
use tracing::warn;

use crate::server::Server;
use crate::server::connection::Connection;
use crate::session::Session;

/// Connections accepted but not yet taken by their thread; beyond it accepting waits.
pub const HANDOVER: usize = 1024;
/// Pause after accepting failed (no file descriptors left, most likely).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Opens a listening socket.
pub fn listen(addr: SocketAddr, backlog: u32) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    socket.listen(backlog.min(i32::MAX as u32) as i32)?;
    Ok(socket.into())
}

/// Accepts for ever, giving connections to `threads` in turn.
pub async fn accept(listener: TcpListener, server: Arc<Server>, threads: Vec<Sender<std::net::TcpStream>>) {
    let mut next = 0;
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        server.context.metrics.connections_received.add(1);
        if server.context.clients.len() >= server.context.config.live().maxclients {
            server.context.metrics.connections_rejected.add(1);
            tokio::spawn(refuse(stream));
            continue;
        }
        next = (next + 1) % threads.len();
        if let Ok(stream) = stream.into_std()
            && threads[next].send(stream).await.is_err()
        {
            return;
        }
    }
}

async fn refuse(mut stream: TcpStream) {
    let mut bytes = Vec::new();
    Reply::new(&mut bytes, Proto::Resp2).error("ERR max number of clients reached");
    let _ = stream.write_all(&bytes).await;
}

/// Starts serving an accepted connection on the calling thread's runtime.
pub fn serve(stream: std::net::TcpStream, server: &Arc<Server>) -> io::Result<()> {
    let stream = TcpStream::from_std(stream)?;
    stream.set_nodelay(true)?;
    let live = server.context.config.live();
    if !live.tcp_keepalive.is_zero() {
        let keepalive = TcpKeepalive::new().with_time(live.tcp_keepalive);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    }
    let (addr, local_addr) = (stream.peer_addr()?, stream.local_addr()?);
    let client = server.context.clients.register(addr, local_addr, server.context.clock.now());
    let session = Session::new(client, live.requirepass.is_empty());
    tokio::spawn(Connection::new(server.clone(), stream, session).run());
    Ok(())
}
