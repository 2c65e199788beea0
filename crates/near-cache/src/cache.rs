//! The near cache itself: reads from this process when it may, from the cluster when it must; writes to the cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use slotcast_wire::frame::Frame;
use slotcast_wire::slot::slot_of;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::cluster::{Cluster, Kind};
use crate::connection::Answer;
use crate::error::Error;
use crate::follower::{Follower, MAX_UNHEARD, Starts};
use crate::l1::{L1, Lookup, Value};
use crate::options::Options;

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// This process.
    Near,
    /// The cluster, because it wasn't here.
    Cluster,
    /// The cluster, because the stream hasn't been vouched for lately; what was here is kept.
    Bypass,
}

/// Counts since the cache was made, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Reads served from this process.
    pub hits: u64,
    /// Reads of what wasn't here.
    pub misses: u64,
    /// Reads of what was here and went to the cluster, because the stream hadn't been vouched for lately.
    pub bypassed: u64,
    /// Values not kept because a change of their slot was known that they might lack.
    pub refused: u64,
    /// Entries dropped because their key changed.
    pub invalidated_keys: u64,
    /// Slots dropped as a whole.
    pub invalidated_slots: u64,
    /// Entries that went for lack of room.
    pub evicted: u64,
    /// Nodes that are listened to.
    pub streams: u64,
    /// Shards of the cluster, as far as is known.
    pub shards: u64,
    /// Subscriptions made.
    pub subscriptions: u64,
    /// Of them, by shard: how many went on from where the cache stood.
    pub resumed: u64,
    /// And how many could not, so that the shard's slots were dropped.
    pub flushed: u64,
    /// Entries here.
    pub entries: usize,
    /// Bytes they take.
    pub bytes: usize,
}

/// See the [crate's documentation](crate). Clones share everything.
#[derive(Clone, Debug)]
pub struct NearCache {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    l1: Arc<L1>,
    cluster: Arc<Cluster>,
    starts: Arc<Starts>,
    origin: Instant,
    follower: JoinHandle<()>,
    /// Shards that a reply came from and nobody follows.
    unheard: mpsc::Sender<u32>,
    hits: AtomicU64,
    misses: AtomicU64,
    bypassed: AtomicU64,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl NearCache {
    /// Finds the cluster and begins to follow its stream. Must be called within a tokio runtime, on which it then lives.
    pub async fn connect(options: Options) -> Result<NearCache, Error> {
        let l1 = Arc::new(L1::new(options.limits()));
        let cluster = Arc::new(Cluster::new(options.clone()));
        let starts = Arc::new(Starts::default());
        let origin = Instant::now();
        cluster.refresh(origin + options.timeout).await.map_err(Error::Unserved)?;
        let (unheard, told) = mpsc::channel(MAX_UNHEARD);
        let (l1_too, cluster_too, starts_too) = (l1.clone(), cluster.clone(), starts.clone());
        let follower =
            Follower { l1: l1_too, cluster: cluster_too, options, origin, starts: starts_too, unheard: told };
        let follower = tokio::spawn(follower.run());
        let (hits, misses, bypassed) = Default::default();
        let shared = Shared { l1, cluster, starts, origin, follower, unheard, hits, misses, bypassed };
        Ok(NearCache { shared: Arc::new(shared) })
    }

    /// A key's value; none: it doesn't exist.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, Error> {
        Ok(self.read(key).await?.0)
    }

    /// A key's value, and where it came from.
    pub async fn read(&self, key: impl AsRef<[u8]>) -> Result<(Option<Bytes>, Source), Error> {
        let (shared, key) = (&*self.shared, key.as_ref());
        let (source, count) = match shared.l1.lookup(key, shared.origin.elapsed()) {
            Lookup::Hit(value) => {
                shared.hits.fetch_add(1, Ordering::Relaxed);
                return Ok((value, Source::Near));
            }
            Lookup::Miss => (Source::Cluster, &shared.misses),
            Lookup::Unverified => (Source::Bypass, &shared.bypassed),
        };
        count.fetch_add(1, Ordering::Relaxed);
        let words = [b"GET".as_slice(), key];
        let (answer, asked) = shared.cluster.request(slot_of(key), Kind::Read, &words).await?;
        let stamp = answer.stamp;
        let bytes = match answer.frame {
            Frame::Bulk(bytes) => Some(Bytes::from(bytes)),
            Frame::Null => None,
            other => return Err(Error::Refused(format!("GET was answered with {other}"))),
        };
        if let Some(value) = shared.value(bytes.clone(), stamp, asked) {
            shared.l1.fill(Bytes::copy_from_slice(key), value);
        }
        Ok((bytes, source))
    }

    /// Sets a key, with a time to live if one is given. Once this returns, this cache reads the new value.
    pub async fn set(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        ttl: Option<Duration>,
    ) -> Result<(), Error> {
        let (key, value) = (key.as_ref(), value.into());
        let ttl = ttl.map(|ttl| ttl.as_millis().max(1).to_string());
        let mut words = vec![b"SET".as_slice(), key, &value];
        if let Some(ttl) = &ttl {
            words.extend([b"PX".as_slice(), ttl.as_bytes()]);
        }
        let (answer, asked) = self.write(key, &words).await?;
        self.shared.wrote(key, Some(value.clone()), &answer, asked);
        Ok(())
    }

    /// Removes a key. Whether it was there.
    pub async fn del(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        let key = key.as_ref();
        let (answer, asked) = self.write(key, &[b"DEL", key]).await?;
        self.shared.wrote(key, None, &answer, asked);
        Ok(matches!(answer.frame, Frame::Integer(1..)))
    }

    async fn write(&self, key: &[u8], words: &[&[u8]]) -> Result<(Answer, Instant), Error> {
        let unknown = Unknown { l1: &self.shared.l1, key };
        let outcome = self.shared.cluster.request(slot_of(key), Kind::Write, words).await;
        if !matches!(outcome, Err(Error::Uncertain(_))) {
            std::mem::forget(unknown);
        }
        outcome
    }

    /// What has happened so far, and what is here.
    pub fn stats(&self) -> Stats {
        let Shared { l1, starts, hits, misses, bypassed, .. } = &*self.shared;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            hits: count(hits),
            misses: count(misses),
            bypassed: count(bypassed),
            refused: count(&l1.counters.refused),
            invalidated_keys: count(&l1.counters.keys),
            invalidated_slots: count(&l1.counters.slots),
            evicted: count(&l1.counters.evicted),
            streams: count(&starts.streams),
            shards: count(&starts.shards),
            subscriptions: count(&starts.connected),
            resumed: count(&starts.resumed),
            flushed: count(&starts.flushed),
            entries: l1.entries(),
            bytes: l1.bytes(),
        }
    }

    /// Since when something may have been missed, of the shard for which that is longest ago; none: of some shard, ever.
    pub fn verified(&self) -> Option<Duration> {
        let (l1, now) = (&self.shared.l1, self.shared.origin.elapsed());
        let cursors = l1.cursors();
        if (cursors.len() as u64) < self.shared.starts.shards.load(Ordering::Relaxed) {
            return None;
        }
        let ages = cursors.iter().map(|cursor| Some(now.saturating_sub(l1.verified_at(cursor.shard)?)));
        ages.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// Ends the stream and the connections. Reads go to the cluster from then on, once `max_staleness` has passed.
    pub async fn close(self) {
        self.shared.follower.abort();
    }
}

/// A write whose outcome is unknown, also because the caller has stopped to wait: what is here may be overtaken.
struct Unknown<'a> {
    l1: &'a L1,
    key: &'a [u8],
}

impl Drop for Unknown<'_> {
    fn drop(&mut self) {
        self.l1.forget(self.key);
    }
}

impl Shared {
    /// A value as the L1 takes it; none if the reply says nothing of when it was true.
    fn value(
        &self,
        bytes: Option<Bytes>,
        stamp: Option<(slotcast_wire::position::Position, i64)>,
        asked: Instant,
    ) -> Option<Value> {
        let (stamp, pttl) = stamp?;
        if self.l1.cursor(stamp.shard).is_none() {
            let _ = self.unheard.try_send(stamp.shard); // when it is full, they are busy with others
        }
        // Counted from before the request was sent: rather too early than too late.
        let left = u64::try_from(pttl).ok().map(Duration::from_millis);
        let expires_at = left.map(|left| asked.saturating_duration_since(self.origin) + left);
        Some(Value { bytes, stamp, expires_at })
    }

    fn wrote(&self, key: &[u8], bytes: Option<Bytes>, answer: &Answer, asked: Instant) {
        match self.value(bytes, answer.stamp, asked) {
            Some(value) => self.l1.written(Bytes::copy_from_slice(key), value),
            None => self.l1.forget(key),
        }
    }
}
