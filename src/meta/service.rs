//! Answers what other nodes ask about the cluster.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::id::NodeId;
use crate::meta::bootstrap::{Applicant, admit};
use crate::meta::message::{Answer, Hello, META_SERVICE, Phase, Request, encode, hello};
use crate::meta::proposer::propose_here;
use crate::meta::standing::Standing;
use crate::topology::Node;

/// Joins and proposals answered at once; one more is told to come back.
const AT_ONCE: usize = 64;
/// Calls to a node that asks to be let in, before the leader says that it cannot reach it ...
const HELLO_ATTEMPTS: usize = 4;
/// ... and the time between them.
const HELLO_PAUSE: Duration = Duration::from_millis(100);

/// Answers on the standing's bus from now on.
pub fn serve(standing: &Arc<Standing>) {
    let desk = Arc::new(Desk { standing: standing.clone(), free: Semaphore::new(AT_ONCE) });
    let answer = move |from: NodeId, body: Bytes| {
        let desk = desk.clone();
        let answered = async move { encode(&desk.answer(from, &body).await) };
        Box::pin(answered) as futures::future::BoxFuture<'static, Bytes>
    };
    standing.bus.serve(META_SERVICE, Arc::new(answer));
}

struct Desk {
    standing: Arc<Standing>,
    free: Semaphore,
}

impl Desk {
    async fn answer(&self, from: NodeId, body: &[u8]) -> Answer {
        let request = match serde_json::from_slice(body) {
            Ok(Request::Hello) => return Answer::Hello(self.standing.hello()),
            Ok(request) => request,
            Err(error) => return Answer::Refused(format!("a request that cannot be read: {error}")),
        };
        let Ok(_turn) = self.free.try_acquire() else {
            return Answer::Unavailable(format!("{AT_ONCE} requests are being answered"));
        };
        match request {
            Request::Hello => Answer::Hello(self.standing.hello()),
            Request::Prepare(plan) => match self.standing.prepare(plan).await {
                Ok(()) => Answer::Prepared,
                Err(why) => Answer::Refused(why),
            },
            Request::Remains { begun, epoch } => Answer::Remains(self.standing.remains(from, begun, epoch)),
            Request::Lost { begun, groups } => match self.standing.note_loss(from, begun, &groups) {
                true => Answer::Noted,
                false => Answer::Unavailable("not all of these groups have opened here yet".into()),
            },
            Request::Join { id, node } => self.join(id, node).await,
            Request::Propose(change) => match self.standing.leading_group() {
                None => Answer::NotLeader(self.standing.leader()),
                Some(group) => match propose_here(&group, &change).await {
                    Ok(()) => Answer::Applied,
                    Err(why) => Answer::Unavailable(why),
                },
            },
        }
    }

    /// Asks who is at an address. A node that has just started is known to the bus as dead a moment longer.
    async fn hello_back(&self, addr: SocketAddr) -> Result<Hello, String> {
        let mut answer = hello(&self.standing.bus, addr).await;
        for _ in 1..HELLO_ATTEMPTS {
            if answer.is_err() {
                tokio::time::sleep(HELLO_PAUSE).await;
                answer = hello(&self.standing.bus, addr).await;
            }
        }
        answer
    }

    async fn join(&self, id: NodeId, node: Node) -> Answer {
        let standing = &self.standing;
        let (Some(group), Phase::Member(cluster)) = (standing.leading_group(), standing.hello().phase) else {
            return Answer::NotLeader(standing.leader());
        };
        let topology = standing.topology().borrow().clone();
        let known = topology.nodes.get(&id).map(|known| known.bus).filter(|known| *known != node.bus);
        let at_known_address = async {
            match known {
                Some(known) => hello(&standing.bus, known).await.ok(),
                None => None,
            }
        };
        let (at_its_address, at_known_address) =
            futures::future::join(self.hello_back(node.bus), at_known_address).await;
        let applicant = Applicant { id, node: &node, at_its_address, at_known_address };
        let change = match admit(&topology, &applicant, |other| standing.bus.is_reachable(other)) {
            Ok(change) => change,
            Err(why) => return Answer::Refused(why),
        };
        if let Err(why) = propose_here(&group, &change).await {
            return Answer::Unavailable(why);
        }
        let topology = standing.topology().borrow().clone();
        match (topology.nodes.get(&id), topology.meta.get(&id)) {
            (Some(known), Some(member)) if *known == node => {
                tracing::info!("node {} at {}:{} joins the cluster", id.short(), node.host, node.port);
                Answer::Joined { cluster, member: *member }
            }
            _ => Answer::Unavailable("another change came first".into()),
        }
    }
}
