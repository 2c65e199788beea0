//! What a node tells a cache that follows its invalidation logs: the server's own session, commands and feed. Only the
//! socket is left out. A [`Fault`] lets it say what is not so, to prove that the checks would notice.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use slotcast::server::Server;
use slotcast::server::feeding::Feeding;
use slotcast::session::Session;
use slotcast::session::table;
use slotcast::wal::simulated::SimulatedDisk;
use slotcast_wire::args::OwnedArgs;
use slotcast_wire::frame::Frame;
use slotcast_wire::position::Position;
use slotcast_wire::reply::{Proto, Reply};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use crate::server::{Fault, frames};

/// A cache's end of its stream.
pub struct Stream {
    pub requests: UnboundedSender<OwnedArgs>,
    pub frames: UnboundedReceiver<Frame>,
}

/// A node's end of it.
pub struct Followed {
    pub server: Arc<Server>,
    /// What it runs on: a process that has died there sends nothing more.
    pub machine: SimulatedDisk,
    pub fault: Option<Fault>,
    pub requests: UnboundedReceiver<OwnedArgs>,
    pub frames: UnboundedSender<Frame>,
}

impl Followed {
    /// Serves the connection until its client is gone.
    pub async fn serve(mut self) {
        let (server, nowhere) = (self.server.clone(), ([127, 0, 0, 1], 0).into());
        let context = &server.context;
        let client = context.clients.register(nowhere, nowhere, 0);
        let mut session = Session::new(client.clone(), true);
        session.speak(Proto::Resp3);
        let mut feeding = Feeding::default();
        loop {
            let mut out = Vec::new();
            let request = poll_fn(|task| {
                client.register(task.waker());
                if let Some(following) = &mut session.following {
                    feeding.poll(following, &server, task, &mut out);
                    if !out.is_empty() {
                        return Poll::Ready(Ok(None));
                    }
                }
                self.requests.poll_recv(task).map(|request| request.ok_or(()).map(Some))
            });
            let Ok(request) = request.await else { break };
            if let Some(request) = &request {
                let args = request.as_args();
                let Some(command) = table::resolve(args).ok().and_then(|entry| entry.session) else { break };
                let mut reply = Reply::new(&mut out, Proto::Resp3);
                if let Err(error) = command(&mut session, context, args, &mut reply) {
                    reply.error(&error.0);
                }
            }
            if self.machine.has_crashed() {
                break;
            }
            for frame in frames(&out) {
                let told = match self.fault {
                    Some(Fault::HeartbeatsWithoutQuorum) => vec![rejuvenated(frame)],
                    Some(Fault::ResumedOverGap) => bridged(request.as_ref(), frame),
                    _ => vec![frame],
                };
                told.into_iter().for_each(|frame| drop(self.frames.send(frame)));
            }
        }
        context.clients.forget(client.id);
    }
}

/// A heartbeat that says that a quorum stands behind it now, whatever it knows.
fn rejuvenated(frame: Frame) -> Frame {
    match frame {
        Frame::Push(mut parts) if parts.first().and_then(Frame::as_bytes) == Some(b"inv-hb") => {
            if let Some(Frame::Array(positions)) = parts.get_mut(1) {
                positions.iter_mut().skip(3).step_by(4).for_each(|age| *age = Frame::Integer(0));
            }
            Frame::Push(parts)
        }
        frame => frame,
    }
}

/// An answer to SUBSCRIBE that claims to know everything that has changed, where it does not, and its first push.
fn bridged(request: Option<&OwnedArgs>, frame: Frame) -> Vec<Frame> {
    let (Some(request), Frame::Map(mut shards)) = (request, frame.clone()) else { return vec![frame] };
    let from: BTreeMap<i64, Position> = request
        .as_args()
        .from(2)
        .iter()
        .filter_map(|word| std::str::from_utf8(word).ok()?.parse::<Position>().ok())
        .map(|position| (i64::from(position.shard), position))
        .collect();
    let mut covered = Vec::new();
    for (shard, begun) in &mut shards {
        let (Frame::Integer(shard), Frame::Array(parts)) = (shard, begun) else { continue };
        let (Some(status), Some(lineage), Some(Frame::Integer(head))) =
            (parts[0].as_bytes(), parts.get(1).cloned(), parts.get(2).cloned())
        else {
            continue;
        };
        let Some(asked) = from.get(shard).filter(|_| status == b"flush") else { continue };
        if lineage != Frame::Integer(asked.lineage as i64) {
            continue;
        }
        parts[0] = Frame::Bulk(b"resumed".to_vec());
        parts[2] = Frame::Integer(asked.index as i64);
        covered.push(Frame::Push(vec![
            Frame::Bulk(b"inv".to_vec()),
            Frame::Integer(*shard),
            lineage,
            Frame::Integer(asked.index as i64),
            Frame::Integer(head),
            Frame::Array(Vec::new()),
        ]));
    }
    [Frame::Map(shards)].into_iter().chain(covered).collect()
}
