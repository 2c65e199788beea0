//! Reads under way: who wants a key that is being fetched waits for that, and doesn't fetch it again.
//!
//! One leads, the others join and get what it gets, value or error. A leader that gives up (its caller has) leaves the
//! others to choose a new one. Two things must not happen by waiting for another's read:
//!
//! - **An older value than one's own write.** A write that is acknowledged *parts* the key's flight from those who come
//!   later: who was there before gets what it brings, who comes after leads another. (Who came before the acknowledgement
//!   may see either value, as without flights.)
//! - **A value older than the bound.** A flight may be long under way, through a failover; one that began longer ago than
//!   `max_staleness` isn't joined any more.
//!
//! Only misses come here, so one lock over the table is not in anybody's way.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::error::Error;

/// Flights that may be joined; more reads than that are made by each on its own.
const MAX_FLIGHTS: usize = 16_384;

/// What a read brings.
pub type Outcome = Result<Option<Bytes>, Error>;

/// See the module's documentation.
#[derive(Debug)]
pub struct Flights {
    joinable_for: Duration,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    flights: HashMap<Bytes, Flight, foldhash::fast::RandomState>,
    last: u64,
}

#[derive(Debug)]
struct Flight {
    number: u64,
    begun: Duration,
    outcome: watch::Receiver<Option<Outcome>>,
}

/// What somebody who wants a key is to do.
#[derive(Debug)]
pub enum Place<'a> {
    /// Fetch it, for others too.
    Lead(Lead<'a>),
    /// Wait.
    Join(Join),
}

/// Whoever fetches a key. When it is dropped before it has landed, those who wait are told that it has given up.
#[derive(Debug)]
pub struct Lead<'a> {
    flights: &'a Flights,
    key: Bytes,
    /// 0: nobody can join.
    number: u64,
    outcome: watch::Sender<Option<Outcome>>,
}

/// Somebody who waits.
#[derive(Debug)]
pub struct Join(watch::Receiver<Option<Outcome>>);

impl Flights {
    /// None under way. They are joined for so long after they have begun.
    pub fn new(joinable_for: Duration) -> Self {
        Self { joinable_for, table: Mutex::default() }
    }

    /// Finds a place for somebody who wants a key at this time (since an origin of the caller's choice).
    pub fn place(&self, key: &[u8], now: Duration) -> Place<'_> {
        let mut table = self.table.lock();
        let known = table.flights.get(key);
        if let Some(flight) = known.filter(|known| now.saturating_sub(known.begun) <= self.joinable_for) {
            return Place::Join(Join(flight.outcome.clone()));
        }
        let (key, (sender, outcome)) = (Bytes::copy_from_slice(key), watch::channel(None));
        let mut number = 0;
        if known.is_some() || table.flights.len() < MAX_FLIGHTS {
            table.last += 1;
            number = table.last;
            table.flights.insert(key.clone(), Flight { number, begun: now, outcome });
        }
        Place::Lead(Lead { flights: self, key, number, outcome: sender })
    }

    /// Who comes from now on doesn't join what is under way for this key.
    pub fn part(&self, key: &[u8]) {
        self.table.lock().flights.remove(key);
    }
}

impl Lead<'_> {
    /// Which key.
    pub fn key(&self) -> &Bytes {
        &self.key
    }

    /// All who wait get this.
    pub fn land(self, outcome: Outcome) {
        // Not to be joined any more: what it brought may be overtaken by the time somebody comes.
        self.leave();
        self.outcome.send_replace(Some(outcome));
    }

    fn leave(&self) {
        let mut table = self.flights.table.lock();
        if table.flights.get(&self.key).is_some_and(|flight| flight.number == self.number) {
            table.flights.remove(&self.key);
        }
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Join {
    /// What the leader gets; none: it has given up.
    pub async fn outcome(mut self) -> Option<Outcome> {
        let landed = self.0.wait_for(Option::is_some).await.ok()?;
        landed.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const NOW: Duration = Duration::from_secs(10);

    fn flights() -> Flights {
        Flights::new(Duration::from_secs(2))
    }

    #[track_caller]
    fn lead<'a>(flights: &'a Flights, key: &str, now: Duration) -> Lead<'a> {
        match flights.place(key.as_bytes(), now) {
            Place::Lead(lead) => lead,
            Place::Join(_) => panic!("{key} is under way"),
        }
    }

    #[track_caller]
    fn join(flights: &Flights, key: &str) -> Join {
        match flights.place(key.as_bytes(), NOW) {
            Place::Join(join) => join,
            Place::Lead(_) => panic!("{key} isn't under way"),
        }
    }

    fn value(text: &'static str) -> Outcome {
        Ok(Some(Bytes::from_static(text.as_bytes())))
    }

    #[tokio::test]
    async fn one_fetches_and_all_get_it_value_or_error() {
        let flights = flights();
        for outcome in [value("v"), Ok(None), Err(Error::Unserved("no".into()))] {
            let (leader, other) = (lead(&flights, "a", NOW), lead(&flights, "b", NOW));
            let joined = [join(&flights, "a"), join(&flights, "a")];
            leader.land(outcome.clone());
            for join in joined {
                assert_eq!(join.outcome().await, Some(outcome.clone()));
            }
            drop(other);
            assert!(flights.table.lock().flights.is_empty());
        }
    }

    #[tokio::test]
    async fn who_waits_for_one_that_gives_up_is_told() {
        let flights = Arc::new(flights());
        let leader = lead(&flights, "a", NOW);
        let joined = join(&flights, "a");
        drop(leader);
        assert_eq!(joined.outcome().await, None);
        lead(&flights, "a", NOW).land(value("v"));
    }

    #[tokio::test]
    async fn who_comes_after_a_write_does_not_get_what_was_read_before() {
        let flights = flights();
        let before = lead(&flights, "a", NOW);
        let early = join(&flights, "a");
        flights.part(b"a");
        let after = lead(&flights, "a", NOW);
        let late = join(&flights, "a");
        before.land(value("old"));
        assert_eq!(early.outcome().await, Some(value("old")));
        let later = join(&flights, "a");
        after.land(value("new"));
        assert_eq!((late.outcome().await, later.outcome().await), (Some(value("new")), Some(value("new"))));
    }

    #[tokio::test]
    async fn what_is_long_under_way_is_not_joined_and_the_table_is_bounded() {
        let flights = flights();
        let _long = lead(&flights, "a", NOW - Duration::from_millis(2001));
        let fresh = lead(&flights, "a", NOW);
        join(&flights, "a");
        let many: Vec<Lead<'_>> = (1..MAX_FLIGHTS).map(|n| lead(&flights, &n.to_string(), NOW)).collect();
        assert_eq!(flights.table.lock().flights.len(), MAX_FLIGHTS);
        let alone = [lead(&flights, "b", NOW), lead(&flights, "b", NOW)];
        join(&flights, "7");
        drop((fresh, many, alone));
        assert!(flights.table.lock().flights.is_empty());
    }
}
