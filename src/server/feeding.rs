//! The invalidation stream of a connection: pulled whenever its socket has taken all there was, and a heartbeat when it is
//! due.
//!
//! A heartbeat says until when a quorum stood behind what the subscriber has been told. On a leader that is when a quorum
//! last confirmed it; a follower has it from its leader. A copy that is cut off from both says nothing new, its
//! heartbeats grow old, and a cache with a bound on staleness asks elsewhere.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::Context as TaskContext;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::id::GroupId;
use crate::server::Server;
use crate::session::following::{Following, Lands};
use crate::shard::Shard;
use crate::tracking::feed::Territory;
use crate::tracking::slots::Slots;

/// When a connection's stream is to be looked at next.
pub struct Feeding {
    heartbeat: Instant,
    /// Changes are gathered until then.
    pull: Instant,
    /// There is something to gather.
    news: bool,
    /// The next of them that matters.
    due: Instant,
    timer: Pin<Box<Sleep>>,
    /// What the timer is set to.
    set: Option<Instant>,
}

impl Default for Feeding {
    /// Due at once.
    fn default() -> Self {
        let now = Instant::now();
        Self {
            heartbeat: now,
            pull: now,
            news: false,
            due: now,
            timer: Box::pin(sleep_until(now)),
            set: None,
        }
    }
}

impl Feeding {
    /// When there is something to be looked at, news or not.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Appends what is new, and a heartbeat if it is due; arranges for `task` to be woken for the next one.
    pub fn poll(
        &mut self,
        following: &mut Following,
        server: &Server,
        task: &mut TaskContext<'_>,
        out: &mut Vec<u8>,
    ) {
        loop {
            let now = Instant::now();
            self.news |= following.listening.reader().looks();
            // Either is a reason to look: a heartbeat that is due must not wait, and be asked for again and again, until
            // changes have been gathered for long enough.
            if now >= self.pull.min(self.heartbeat) {
                (self.pull, self.news) = (now + following.max_delay, false);
                self.feed(following, server, now, out);
            }
            self.due = match self.news {
                true => self.heartbeat.min(self.pull),
                false => self.heartbeat,
            };
            // Most pushes come between two heartbeats, for which the timer is set already.
            if self.set == Some(self.due) && !self.timer.is_elapsed() {
                return;
            }
            self.set = Some(self.due);
            self.timer.as_mut().reset(self.due);
            if self.timer.as_mut().poll(task).is_pending() {
                return;
            }
        }
    }

    fn feed(&mut self, following: &mut Following, server: &Server, now: Instant, out: &mut Vec<u8>) {
        let (rings, lands) = (server.context.rings.all(), Ashore(server));
        if now < self.heartbeat {
            return following.feed.pull(&rings, &lands, out);
        }
        self.heartbeat = now + following.heartbeat;
        let ages = ages(server, now);
        ages.keys().for_each(|shard| following.feed.expect(*shard, None));
        following.feed.pull(&rings, &lands, out);
        following.feed.heartbeat(&rings, &ages, out);
    }
}

/// The slots of shards, looked up when somebody asks: most pushes name keys.
struct Ashore<'a>(&'a Server);

impl Territory for Ashore<'_> {
    fn slots(&self, shard: GroupId) -> (Slots, u64) {
        Lands(self.0.context.view()).slots(shard)
    }
}

/// How many ms ago a quorum stood behind each copy here.
fn ages(server: &Server, now: Instant) -> BTreeMap<GroupId, u64> {
    let shards = server.shards.load();
    let age = |shard: &Shard| match shard.proposer() {
        Some(proposer) => {
            let since = proposer.group().as_of()?;
            Some(now.saturating_duration_since(since).as_millis() as u64)
        }
        None => server.context.cluster.is_none().then_some(0),
    };
    shards.iter().filter_map(|(id, shard)| Some((*id, age(shard)?))).collect()
}
