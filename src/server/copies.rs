//! WAIT and WAITAOF: how many copies hold a connection's last write, in memory or on their disks.
//!
//! The leader knows what its followers have, not what their disks have. So WAITAOF asks: each node it waits for brings its
//! log to the disk, which is done for many who ask at once, and says when that is so. An acknowledged write is committed,
//! so whoever has its index has the write.

use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use slotcast_wire::reply::Reply;
use tokio::time::{Instant, sleep, timeout_at};

use crate::raft::group::Group;
use crate::server::connection::Connection;
use crate::session::verdict::Copies;

/// How often a wait that may last for ever looks whether its client is still there.
pub(super) const ABANDONED_CHECK: Duration = Duration::from_secs(1);
/// A node that could not say that its disk has the write is asked again after this.
const ASK_AGAIN: Duration = Duration::from_millis(200);

impl Connection {
    /// Waits for copies, and replies how many there are: true at the time of the answer.
    pub(super) async fn wait_for_copies(&mut self, copies: Copies) {
        let until = self.wait_until(copies.timeout);
        match copies.on_disk {
            None => {
                let count = self.holding(copies.replicas, until).await;
                Reply::new(&mut self.output, self.session.proto).integer(count as i64);
            }
            Some(local) => {
                let (mine, theirs) = self.on_disks(local, copies.replicas, until).await;
                let mut reply = Reply::new(&mut self.output, self.session.proto);
                reply.array(2);
                reply.integer(i64::from(mine));
                reply.integer(theirs as i64);
            }
        }
    }

    /// The group of this connection's last write and its index there; `None` in place of the group: it is not here.
    fn last_written(&self) -> Option<(Option<Group>, u64)> {
        let (shard, index) = self.last_write?;
        let proposer = self.server.shards.load().get(&shard).and_then(|shard| shard.proposer());
        Some((proposer.map(|proposer| proposer.group().clone()), index))
    }

    /// How many replicas hold the last write.
    async fn holding(&mut self, wanted: usize, until: Option<Instant>) -> usize {
        let Some((group, index)) = self.last_written() else { return self.replicas() };
        let Some(group) = group else { return 0 };
        let mut state = group.state();
        loop {
            let holding = {
                let state = state.borrow_and_update();
                let holds = |at: Option<u64>| at.is_some_and(|at| at >= index);
                state.followers.values().filter(|follower| holds(follower.matched)).count()
            };
            if holding >= wanted {
                return holding;
            }
            let look = Instant::now() + ABANDONED_CHECK;
            let next = until.map_or(look, |until| until.min(look));
            let goes_on = match timeout_at(next, state.changed()).await {
                Ok(changed) => changed.is_ok(),
                Err(_) => until != Some(next) && !self.is_abandoned(),
            };
            if !goes_on {
                return holding;
            }
        }
    }

    /// Whether this node's disk has the last write, and how many of the others'.
    async fn on_disks(&mut self, local: bool, wanted: usize, until: Option<Instant>) -> (bool, usize) {
        let Some((group, index)) = self.last_written() else { return (true, self.replicas()) };
        let Some(group) = group else { return (false, 0) };
        let others: Vec<u64> = group.state().borrow().followers.keys().copied().collect();
        let members = others.into_iter().chain([group.member()]);
        let mut asked: FuturesUnordered<_> =
            members.map(|member| until_on_disk(group.clone(), member, index)).collect();
        let (mut mine, mut theirs) = (false, 0);
        while (local && !mine) || theirs < wanted {
            let look = Instant::now() + ABANDONED_CHECK;
            let next = until.map_or(look, |until| until.min(look));
            match timeout_at(next, asked.next()).await {
                Ok(Some(member)) if member == group.member() => mine = true,
                Ok(Some(_)) => theirs += 1,
                over => {
                    if over.is_ok() {
                        // More are wanted than there are.
                        tokio::time::sleep_until(next).await;
                    }
                    if until == Some(next) || self.is_abandoned() {
                        break;
                    }
                }
            }
        }
        (mine, theirs)
    }

    /// Followers of the shards this node leads: what counts for a connection that has written nothing.
    fn replicas(&self) -> usize {
        let shards = self.server.shards.load();
        let followers = shards.values().filter_map(|shard| shard.proposer());
        followers.map(|proposer| proposer.group().state().borrow().followers.len()).max().unwrap_or(0)
    }
}

/// Asks a member until its disk has an index.
async fn until_on_disk(group: Group, member: u64, index: u64) -> u64 {
    while !group.is_on_disk(member, index).await {
        sleep(ASK_AGAIN).await;
    }
    member
}
