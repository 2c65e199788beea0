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
use crate::fetching::{Fetching, Missed, Read};
use crate::flights::Flights;
use crate::follower::{Follower, MAX_UNHEARD, Starts};
use crate::l1::L1;
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
    /// Of misses and reads that went to the cluster all the same: how many waited for another's fetch of the key.
    pub coalesced: u64,
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
    fetching: Fetching,
    starts: Arc<Starts>,
    follower: JoinHandle<()>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl NearCache {
    /// Finds the cluster and begins to follow its streams. Must be called within a tokio runtime, on which it then lives.
    pub async fn connect(options: Options) -> Result<NearCache, Error> {
        let l1 = Arc::new(L1::new(options.limits()));
        let cluster = Arc::new(Cluster::new(options.clone()));
        let starts = Arc::new(Starts::default());
        let (origin, timeout) = (Instant::now(), options.timeout);
        cluster.refresh(origin + timeout).await.map_err(Error::Unserved)?;
        let flights = Flights::new(options.max_staleness);
        let (unheard, told) = mpsc::channel(MAX_UNHEARD);
        let (l1_too, cluster_too, starts_too) = (l1.clone(), cluster.clone(), starts.clone());
        let follower =
            Follower { l1: l1_too, cluster: cluster_too, options, origin, starts: starts_too, unheard: told };
        let follower = tokio::spawn(follower.run());
        let (hits, misses, bypassed, coalesced) = Default::default();
        let fetching =
            Fetching { l1, cluster, flights, origin, timeout, unheard, hits, misses, bypassed, coalesced };
        Ok(NearCache { shared: Arc::new(Shared { fetching, starts, follower }) })
    }

    /// A key's value; none: it doesn't exist. Of several who ask at once for what isn't here, one fetches it for all.
    ///
    /// ```no_run
    /// # async fn example(cache: slotcast_near_cache::cache::NearCache) -> Result<(), slotcast_near_cache::error::Error> {
    /// match cache.get("product:42").await? {
    ///     Some(product) => println!("{}", String::from_utf8_lossy(&product)),
    ///     None => println!("there is none"), // this too is remembered, until somebody makes one
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, Error> {
        Ok(self.read(key).await?.0)
    }

    /// A key's value, and where it came from.
    ///
    /// ```no_run
    /// # async fn example(cache: slotcast_near_cache::cache::NearCache) -> Result<(), slotcast_near_cache::error::Error> {
    /// use slotcast_near_cache::cache::Source;
    ///
    /// let (product, source) = cache.read("product:42").await?;
    /// if source == Source::Bypass {
    ///     eprintln!("no node has vouched for what is here: {product:?} is from the cluster");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn read(&self, key: impl AsRef<[u8]>) -> Result<(Option<Bytes>, Source), Error> {
        Ok(from(self.shared.fetching.read(key.as_ref()).await?))
    }

    /// Many keys' values, in their order, of any shards: what isn't here is fetched from all nodes at once. Each value is
    /// true at some time of its own: this is no snapshot. An error is the first there was; what else was fetched is kept.
    ///
    /// ```no_run
    /// # async fn example(cache: slotcast_near_cache::cache::NearCache) -> Result<(), slotcast_near_cache::error::Error> {
    /// let ids = [7, 8, 9];
    /// let products = cache.mget(ids.map(|id| format!("product:{id}"))).await?;
    /// for (id, product) in ids.iter().zip(products) {
    ///     println!("{id}: {product:?}"); // none: there is no such product
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn mget<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Bytes>>, Error> {
        Ok(self.read_many(keys).await?.into_iter().map(|(value, _)| value).collect())
    }

    /// Many keys' values, and where each came from. See [`NearCache::mget`].
    pub async fn read_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<(Option<Bytes>, Source)>, Error> {
        let keys: Vec<K> = keys.into_iter().collect();
        Ok(self.shared.fetching.read_many(&keys).await?.into_iter().map(from).collect())
    }

    /// Sets a key, with a time to live if one is given (whole ms; at least one). Once this returns, this cache reads the
    /// new value, or a newer one.
    ///
    /// ```no_run
    /// # async fn example(cache: slotcast_near_cache::cache::NearCache) -> Result<(), slotcast_near_cache::error::Error> {
    /// use std::time::Duration;
    ///
    /// cache.set("session:7", "alice", Some(Duration::from_secs(1800))).await?;
    /// if let Err(error) = cache.set("product:42", "a chair", None).await {
    ///     println!("{}: {error}", if error.is_certain() { "nothing was done" } else { "perhaps it was" });
    /// }
    /// # Ok(())
    /// # }
    /// ```
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
        self.shared.fetching.wrote(key, Some(value.clone()), &answer, asked);
        Ok(())
    }

    /// Removes a key. Whether it was there. Once this returns, this cache knows that it is gone.
    ///
    /// ```no_run
    /// # async fn example(cache: slotcast_near_cache::cache::NearCache) -> Result<(), slotcast_near_cache::error::Error> {
    /// assert!(cache.del("session:7").await?, "it was there");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn del(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        let key = key.as_ref();
        let (answer, asked) = self.write(key, &[b"DEL", key]).await?;
        self.shared.fetching.wrote(key, None, &answer, asked);
        Ok(matches!(answer.frame, Frame::Integer(1..)))
    }

    async fn write(&self, key: &[u8], words: &[&[u8]]) -> Result<(Answer, Instant), Error> {
        let unknown = Unknown { fetching: &self.shared.fetching, key };
        let outcome = self.shared.fetching.cluster.request(slot_of(key), Kind::Write, words).await;
        if !matches!(outcome, Err(Error::Uncertain(_))) {
            std::mem::forget(unknown);
        }
        outcome
    }

    /// What has happened so far, and what is here.
    ///
    /// ```no_run
    /// # fn example(cache: slotcast_near_cache::cache::NearCache) {
    /// let stats = cache.stats();
    /// let reads = stats.hits + stats.misses + stats.bypassed;
    /// println!("{} of {reads} reads without a round trip, {} keys changed", stats.hits, stats.invalidated_keys);
    /// # }
    /// ```
    pub fn stats(&self) -> Stats {
        let Shared { fetching, starts, .. } = &*self.shared;
        let Fetching { l1, hits, misses, bypassed, coalesced, .. } = fetching;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            hits: count(hits),
            misses: count(misses),
            bypassed: count(bypassed),
            coalesced: count(coalesced),
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
        let Fetching { l1, origin, .. } = &self.shared.fetching;
        let now = origin.elapsed();
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

fn from((value, missed): Read) -> (Option<Bytes>, Source) {
    let source = match missed {
        None => Source::Near,
        Some(Missed::Absent) => Source::Cluster,
        Some(Missed::Unverified) => Source::Bypass,
    };
    (value, source)
}

/// A write whose outcome is unknown, also because the caller has stopped to wait: what is here may be overtaken.
struct Unknown<'a> {
    fetching: &'a Fetching,
    key: &'a [u8],
}

impl Drop for Unknown<'_> {
    fn drop(&mut self) {
        self.fetching.doubt(self.key);
    }
}
