//! Reads of what isn't here: from the cluster, each key once at a time, and into the cache if the rules allow it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use slotcast_wire::frame::Frame;
use slotcast_wire::position::Position;
use slotcast_wire::slot::slot_of;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::cluster::{Cluster, Kind};
use crate::connection::{Answer, request};
use crate::error::Error;
use crate::flights::{Flights, Outcome, Place};
use crate::l1::{L1, Lookup, Value};

/// What reads need, and their counts.
#[derive(Debug)]
pub struct Fetching {
    /// What is here.
    pub l1: Arc<L1>,
    /// Where the rest is.
    pub cluster: Arc<Cluster>,
    /// What is on its way.
    pub flights: Flights,
    /// What durations are counted from.
    pub origin: Instant,
    /// How long anybody waits.
    pub timeout: Duration,
    /// Shards that a reply came from and nobody follows.
    pub unheard: mpsc::Sender<u32>,
    /// Reads served from here.
    pub hits: AtomicU64,
    /// Reads of what wasn't here.
    pub misses: AtomicU64,
    /// Reads of what was here and couldn't be vouched for.
    pub bypassed: AtomicU64,
    /// Of both: reads that waited for another's.
    pub coalesced: AtomicU64,
}

/// Why a value isn't served from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// It isn't here.
    Absent,
    /// Nobody vouches for it.
    Unverified,
}

/// A value, and why it isn't from here; none: it is.
pub type Read = (Option<Bytes>, Option<Missed>);

/// What is to come of a key.
enum Coming<'a> {
    Here(Option<Bytes>),
    Away(Place<'a>, Missed),
}

impl Fetching {
    /// One key.
    pub async fn read(&self, key: &[u8]) -> Result<Read, Error> {
        match self.look(key) {
            Coming::Here(value) => Ok((value, None)),
            Coming::Away(place, missed) => Ok((self.obtain(key, place).await?, Some(missed))),
        }
    }

    /// Many keys: what isn't here is fetched from all nodes at once. In their order.
    pub async fn read_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Read>, Error> {
        let (mut reads, mut leads, mut requests) = (Vec::with_capacity(keys.len()), Vec::new(), Vec::new());
        for (at, key) in keys.iter().enumerate() {
            reads.push(match self.look(key.as_ref()) {
                Coming::Here(value) => Ok((value, None)),
                Coming::Away(Place::Join(join), missed) => Err((join, missed)),
                Coming::Away(Place::Lead(lead), missed) => {
                    requests.push((slot_of(lead.key()), request(&[b"GET", &lead.key()[..]])));
                    leads.push(Some((at, lead)));
                    Ok((None, Some(missed)))
                }
            });
        }
        let mut failed = None;
        let land = |place: usize, answer| {
            let Some((at, lead)) = leads.get_mut(place).and_then(Option::take) else { return };
            let outcome = self.take_in(lead.key(), answer);
            lead.land(outcome.clone());
            match (outcome, reads.get_mut(at)) {
                (Ok(bytes), Some(Ok((value, _)))) => *value = bytes,
                (outcome, _) => failed = failed.take().or(outcome.err()),
            }
        };
        self.cluster.read_all(&requests, land).await;
        if let Some(error) = failed {
            return Err(error);
        }
        // Only now: of a key that is named twice, one waits for the other.
        let mut all = Vec::with_capacity(reads.len());
        for (key, read) in keys.iter().zip(reads) {
            all.push(match read {
                Ok(read) => read,
                Err((join, missed)) => (self.obtain(key.as_ref(), Place::Join(join)).await?, Some(missed)),
            });
        }
        Ok(all)
    }

    /// What is here, or how it is to be had; counted.
    fn look(&self, key: &[u8]) -> Coming<'_> {
        let now = self.origin.elapsed();
        let missed = match self.l1.lookup(key, now) {
            Lookup::Hit(value) => {
                self.hits.fetch_add(1, Ordering::Relaxed);
                return Coming::Here(value);
            }
            Lookup::Miss => Missed::Absent,
            Lookup::Unverified => Missed::Unverified,
        };
        match missed {
            Missed::Absent => self.misses.fetch_add(1, Ordering::Relaxed),
            Missed::Unverified => self.bypassed.fetch_add(1, Ordering::Relaxed),
        };
        let place = self.flights.place(key, now);
        if matches!(place, Place::Join(_)) {
            self.coalesced.fetch_add(1, Ordering::Relaxed);
        }
        Coming::Away(place, missed)
    }

    /// Fetches a key, or waits for who does; who gives up is followed by another.
    async fn obtain(&self, key: &[u8], mut place: Place<'_>) -> Outcome {
        let deadline = Instant::now() + self.timeout;
        loop {
            match place {
                Place::Lead(lead) => {
                    let words = [b"GET".as_slice(), key];
                    let answer = self.cluster.request(slot_of(key), Kind::Read, &words).await;
                    let outcome = self.take_in(lead.key(), answer);
                    lead.land(outcome.clone());
                    return outcome;
                }
                Place::Join(join) => match timeout_at(deadline, join.outcome()).await {
                    Ok(Some(outcome)) => return outcome,
                    Ok(None) => place = self.flights.place(key, self.origin.elapsed()),
                    Err(_) => return Err(Error::Unserved("no reply in time".into())),
                },
            }
        }
    }

    /// What a GET was answered, kept if it may be.
    fn take_in(&self, key: &Bytes, answer: Result<(Answer, Instant), Error>) -> Outcome {
        let (answer, asked) = answer?;
        let bytes = match answer.frame {
            Frame::Bulk(bytes) => Some(Bytes::from(bytes)),
            Frame::Null => None,
            other => return Err(Error::Refused(format!("GET was answered with {other}"))),
        };
        if let Some(value) = self.value(bytes.clone(), answer.stamp, asked) {
            self.l1.fill(key.clone(), value);
        }
        Ok(bytes)
    }

    /// A write is acknowledged: it is what this cache reads from now on.
    pub fn wrote(&self, key: &[u8], bytes: Option<Bytes>, answer: &Answer, asked: Instant) {
        match self.value(bytes, answer.stamp, asked) {
            Some(value) => self.l1.written(Bytes::copy_from_slice(key), value),
            None => self.l1.forget(key),
        }
        self.flights.part(key);
    }

    /// What is here of a key may be overtaken: a write of it has an unknown outcome.
    pub fn doubt(&self, key: &[u8]) {
        self.l1.forget(key);
        self.flights.part(key);
    }

    /// A value as the cache takes it; none if the reply says nothing of when it was true.
    fn value(&self, bytes: Option<Bytes>, stamp: Option<(Position, i64)>, asked: Instant) -> Option<Value> {
        let (stamp, pttl) = stamp?;
        if self.l1.cursor(stamp.shard).is_none() {
            let _ = self.unheard.try_send(stamp.shard); // when it is full, they are busy with others
        }
        // Counted from before the request was sent: rather too early than too late.
        let left = u64::try_from(pttl).ok().map(Duration::from_millis);
        let expires_at = left.map(|left| asked.saturating_duration_since(self.origin) + left);
        Some(Value { bytes, stamp, expires_at })
    }
}
