//! What caches may serve: judges each read of a near cache by what writers had been told before it began.
//!
//! Keys are numbers, and so are their values: the how-manieth write of the key it was, 0 for none. One writer at a time
//! writes a key, so its acknowledged writes have an order. An entry is *shown* once it has been served from memory, and
//! *overtaken* when a newer write of its key is acknowledged; from then on it is served stale. How long, is counted from
//! when the writer had its reply to when the read was begun, both by one clock: never longer than it was.
//!
//! A write of unknown outcome may take effect at any later time, or never: who serves its value is not judged, and an
//! entry of its key may go for a while without a reason that anybody could see.
//!
//! No clock, no cache, no socket here: times are arguments.

use std::time::Duration;

use crate::stalls::Stalls;

/// While all is well, an entry must not be served for longer after it was overtaken.
pub const PROMPT: Duration = Duration::from_millis(100);
/// After a fault all is well for so long before reads are held to [`PROMPT`]: caches may have to find another node.
pub const SETTLING: Duration = Duration::from_secs(3);
/// A write of unknown outcome may take effect so long after its writer has given up, at least for what is counted as
/// thrown away needlessly.
const LINGERS: u64 = 10_000_000_000;
/// Reads that were late while all was well: those beyond are violations whatever the machine did.
const SUSPECTS: usize = 100_000;
/// A wait may be noticed so long after its end.
const LOOK: Duration = Duration::from_millis(40);
/// Violations described; all are counted.
const DESCRIBED: usize = 12;
/// Upper ends of the classes of ages that are counted; the last has none.
pub const AGES: [Duration; 6] = [
    Duration::from_millis(1),
    Duration::from_millis(10),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_millis(1_000),
    Duration::from_millis(2_000),
];

/// Where a cache had a value from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// Its memory.
    Near,
    /// The cluster, as it held none.
    Cluster,
    /// The cluster, as it could not vouch for the one that it holds.
    Bypass,
}

/// A read that was answered.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// Whose.
    pub cache: usize,
    /// Of what.
    pub key: usize,
    /// The write whose value it was; 0: the key was absent.
    pub found: u32,
    /// From where.
    pub from: From,
    /// Before it began.
    pub began: u64,
    /// Since when there has been no fault, if there is none.
    pub calm_since: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    UnderWay,
    Acknowledged(u64),
    Unknown,
    Never,
}

#[derive(Clone, Debug, Default)]
struct Key {
    /// By number, from 1 on.
    writes: Vec<Fate>,
    /// A write of unknown outcome may take effect until then.
    unsettled: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Nothing is known to be held.
    #[default]
    Empty,
    /// Read from the cluster.
    Filled,
    /// And served from memory.
    Shown,
    /// And a newer write was acknowledged then.
    Overtaken,
}

/// What a cache holds of a key, as far as its reads tell.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    stage: Stage,
    number: u32,
    since: u64,
}

/// What came of all reads.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Reads served from memory,
    pub near: u64,
    /// from the cluster, as nothing was held,
    pub fetched: u64,
    /// or although something was: it is kept, and could not be vouched for.
    pub bypassed: u64,
    /// Entries that were served from memory at least once.
    pub shown: u64,
    /// Of these: a newer write was acknowledged while they were there.
    pub overtaken: u64,
    /// Of those shown: gone although nobody had written the key.
    pub needless: u64,
    /// Reads served from memory after a newer write was acknowledged, by age ([`AGES`]), while all was well
    pub stale_in_calm: [u64; AGES.len() + 1],
    /// and while not.
    pub stale_in_faults: [u64; AGES.len() + 1],
    /// The longest, while all was well,
    pub oldest_in_calm: Duration,
    /// and while not.
    pub oldest_in_faults: Duration,
    /// Violations: stale for more than [`PROMPT`] while all was well,
    pub late: u64,
    /// (these were, but not without the time for which the machine kept somebody waiting; no violations)
    pub excused: u64,
    /// stale for more than the cache's own bound at any time,
    pub beyond_bound: u64,
    /// read from the cluster, and older than what had been acknowledged,
    pub outdated: u64,
    /// or written by nobody.
    pub invented: u64,
    /// Some of them, for people.
    pub described: Vec<String>,
}

/// See the module's documentation.
pub struct Judge {
    keys: Vec<Key>,
    /// How long each cache may serve what it has no news of.
    bounds: Vec<Duration>,
    /// By cache, by key.
    entries: Vec<Vec<Entry>>,
    /// Late while all was well, and of what was overtaken when.
    suspects: Vec<(Read, u64)>,
    tally: Tally,
}

impl Judge {
    /// Nothing is written and nothing read; `bounds` says how stale each cache may be.
    pub fn new(keys: usize, bounds: Vec<Duration>) -> Judge {
        let entries = vec![vec![Entry::default(); keys]; bounds.len()];
        Judge {
            keys: vec![Key::default(); keys],
            bounds,
            entries,
            suspects: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// What came of all reads so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// A write of a key is about to be sent; its number.
    pub fn begin(&mut self, key: usize) -> u32 {
        let writes = &mut self.keys[key].writes;
        writes.push(Fate::UnderWay);
        writes.len() as u32
    }

    /// The latest write of a key was acknowledged: whoever has shown an older value is overtaken.
    pub fn acknowledged(&mut self, key: usize, at: u64) {
        let Some(last) = self.keys[key].writes.last_mut() else { return };
        *last = Fate::Acknowledged(at);
        let number = self.keys[key].writes.len() as u32;
        for entries in &mut self.entries {
            let entry = &mut entries[key];
            if entry.stage == Stage::Shown && entry.number < number && self.keys[key].is_settled(entry.number)
            {
                entry.stage = Stage::Overtaken;
                self.tally.overtaken += 1;
            }
        }
    }

    /// Nobody knows what became of the latest write of a key.
    pub fn lost(&mut self, key: usize, at: u64) {
        self.keys[key].unsettled = at + LINGERS;
        self.keys[key].writes.last_mut().into_iter().for_each(|last| *last = Fate::Unknown);
    }

    /// The latest write of a key certainly did nothing.
    pub fn refused(&mut self, key: usize) {
        self.keys[key].writes.last_mut().into_iter().for_each(|last| *last = Fate::Never);
    }

    /// Judges a read.
    pub fn read(&mut self, read: &Read) {
        let key = &self.keys[read.key];
        if read.found > 0 && !matches!(key.fate(read.found), Some(fate) if fate != Fate::Never) {
            self.tally.invented += 1;
            self.describe(read, "nobody has written that");
            return;
        }
        let overtaken = key.overtaken(read.found).filter(|at| *at < read.began);
        match read.from {
            From::Near => {
                self.tally.near += 1;
                if let Some(at) = overtaken {
                    self.judge_age(read, at);
                }
                self.show(read);
            }
            From::Cluster => {
                self.tally.fetched += 1;
                self.judge_answer(read, overtaken);
                self.judge_drop(read);
                self.fill(read);
            }
            From::Bypass => {
                self.tally.bypassed += 1;
                self.judge_answer(read, overtaken);
                if self.entries[read.cache][read.key].number != read.found {
                    self.fill(read);
                }
            }
        }
    }

    /// Of a value that was overtaken at `at`, and served from memory.
    fn judge_age(&mut self, read: &Read, at: u64) {
        let age = Duration::from_nanos(read.began - at);
        let bound = self.bounds[read.cache];
        if age > bound {
            self.tally.beyond_bound += 1;
            self.describe(read, &format!("overtaken {age:?} ago, more than the bound of {bound:?}"));
        }
        let is_calm = read.calm_since.is_some_and(|since| since + nanos(SETTLING) <= at);
        let (counts, oldest) = match is_calm {
            true => (&mut self.tally.stale_in_calm, &mut self.tally.oldest_in_calm),
            false => (&mut self.tally.stale_in_faults, &mut self.tally.oldest_in_faults),
        };
        counts[AGES.iter().position(|end| age < *end).unwrap_or(AGES.len())] += 1;
        *oldest = age.max(*oldest);
        if is_calm && age > PROMPT {
            match self.suspects.len() < SUSPECTS {
                true => self.suspects.push((*read, at)),
                false => self.tally.late += 1,
            }
        }
    }

    /// Judges what was late while all was well: so much of it as the machine kept somebody waiting doesn't count.
    pub fn settle(&mut self, stalls: &Stalls) {
        for (read, at) in std::mem::take(&mut self.suspects) {
            let age = Duration::from_nanos(read.began - at);
            let waited = Duration::from_nanos(stalls.within(at, read.began + nanos(LOOK)));
            if age.saturating_sub(waited) > PROMPT {
                self.tally.late += 1;
                self.describe(&read, &format!("overtaken {age:?} ago, while all was well"));
            } else {
                self.tally.excused += 1;
            }
        }
    }

    fn show(&mut self, read: &Read) {
        let entry = &mut self.entries[read.cache][read.key];
        let is_known = matches!(entry.stage, Stage::Shown | Stage::Overtaken) && entry.number == read.found;
        if is_known {
            return;
        }
        let since = if entry.number == read.found { entry.since } else { read.began };
        // Newer writes may have been acknowledged by now; those that come count.
        let stage = match self.keys[read.key].overtaken(read.found) {
            Some(_) => Stage::Overtaken,
            None => Stage::Shown,
        };
        *entry = Entry { stage, number: read.found, since };
        self.tally.shown += 1;
        self.tally.overtaken += u64::from(stage == Stage::Overtaken);
    }

    /// An entry that was shown is gone.
    fn judge_drop(&mut self, read: &Read) {
        let (entry, key) = (self.entries[read.cache][read.key], &self.keys[read.key]);
        let unwritten = key.writes.len() == entry.number as usize && key.unsettled < entry.since;
        self.tally.needless += u64::from(entry.stage == Stage::Shown && unwritten);
    }

    /// The cluster's answer is newer than all that was acknowledged before it was asked.
    fn judge_answer(&mut self, read: &Read, overtaken: Option<u64>) {
        let Some(at) = overtaken else { return };
        self.tally.outdated += 1;
        let age = Duration::from_nanos(read.began - at);
        self.describe(read, &format!("overtaken {age:?} before the cluster was asked"));
    }

    fn fill(&mut self, read: &Read) {
        self.entries[read.cache][read.key] =
            Entry { stage: Stage::Filled, number: read.found, since: read.began };
    }

    fn describe(&mut self, read: &Read, what: &str) {
        if self.tally.described.len() < DESCRIBED {
            let (at, written) = (read.began as f64 / 1e6, self.keys[read.key].writes.len());
            self.tally.described.push(format!(
                "{at:.3} ms  cache {} read write {} of key {} ({:?}; {written} were begun by now): {what}",
                read.cache, read.found, read.key, read.from
            ));
        }
    }
}

impl Key {
    fn fate(&self, number: u32) -> Option<Fate> {
        self.writes.get((number as usize).checked_sub(1)?).copied()
    }

    /// Whether it is known when a value was there: 0 is, before all writes.
    fn is_settled(&self, number: u32) -> bool {
        number == 0 || matches!(self.fate(number), Some(Fate::Acknowledged(_)))
    }

    /// When a newer write than this was first acknowledged; none: never, or nobody knows.
    fn overtaken(&self, number: u32) -> Option<u64> {
        let newer = self.writes.get(number as usize..)?.iter();
        let mut acknowledged = newer.filter_map(|fate| match fate {
            Fate::Acknowledged(at) => Some(*at),
            _ => None,
        });
        acknowledged.next().filter(|_| self.is_settled(number))
    }
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_millis(500);

    fn ms(at: u64) -> u64 {
        at * 1_000_000
    }

    /// One cache, one key; times in milliseconds.
    struct Scene(Judge);

    impl Scene {
        fn new() -> Scene {
            Scene(Judge::new(1, vec![BOUND]))
        }

        fn write(&mut self, at: u64) -> u32 {
            let number = self.0.begin(0);
            self.0.acknowledged(0, ms(at));
            number
        }

        fn read_at(&mut self, from: From, found: u32, began: u64, calm_since: Option<u64>) -> &Tally {
            self.0.read(&Read { cache: 0, key: 0, found, from, began, calm_since });
            self.0.tally()
        }

        /// Under faults.
        fn read(&mut self, from: From, found: u32, at: u64) -> &Tally {
            self.read_at(from, found, ms(at), None)
        }

        /// Filled and shown.
        fn hold(&mut self, found: u32, at: u64) {
            self.read(From::Cluster, found, at);
            self.read(From::Near, found, at + 1);
        }
    }

    fn violations(tally: &Tally) -> [u64; 4] {
        [tally.late, tally.beyond_bound, tally.outdated, tally.invented]
    }

    #[test]
    fn an_entry_counts_as_overtaken_once_and_only_if_it_had_been_served() {
        let mut scene = Scene::new();
        scene.write(1);
        scene.read(From::Cluster, 1, 2);
        scene.write(3);
        assert_eq!((scene.0.tally().shown, scene.0.tally().overtaken), (0, 0));
        scene.hold(2, 5);
        scene.write(7);
        scene.write(8);
        let tally = scene.read(From::Near, 2, 9);
        assert_eq!((tally.shown, tally.overtaken, tally.needless), (1, 1, 0));
        // First served after it had been overtaken.
        scene.read(From::Cluster, 4, 10);
        scene.write(11);
        let tally = scene.read(From::Near, 4, 12);
        assert_eq!((tally.shown, tally.overtaken), (2, 2));
        assert_eq!(violations(tally), [0; 4]);
    }

    #[test]
    fn age_is_counted_from_the_first_newer_acknowledgement_to_the_beginning_of_the_read() {
        let mut scene = Scene::new();
        scene.write(1);
        scene.hold(1, 2);
        scene.write(100);
        scene.write(400);
        assert_eq!(violations(scene.read(From::Near, 1, 600)), [0; 4]);
        assert_eq!(scene.0.tally().oldest_in_faults, BOUND);
        assert_eq!(violations(scene.read(From::Near, 1, 601)), [0, 1, 0, 0]);
        assert_eq!(scene.0.tally().stale_in_faults, [0, 0, 0, 0, 2, 0, 0]);
    }

    #[test]
    fn in_calm_an_entry_must_go_promptly_unless_the_machine_stood_still() {
        let mut scene = Scene::new();
        let calm = Some(0);
        let settled = SETTLING.as_millis() as u64;
        scene.write(1);
        scene.hold(1, 2);
        scene.write(settled);
        scene.read_at(From::Near, 1, ms(settled + 100), calm);
        scene.read_at(From::Near, 1, ms(settled + 101), calm);
        scene.read_at(From::Near, 1, ms(settled + 160), calm);
        // Calm began too late for what had been overtaken before.
        scene.read_at(From::Near, 1, ms(settled + 101), Some(1));
        let mut stalls = Stalls::default();
        stalls.note(ms(settled + 80), ms(settled + 100), ms(10));
        scene.0.settle(&stalls);
        assert_eq!(violations(scene.0.tally()), [1, 0, 0, 0], "the one at 160");
        assert_eq!(scene.0.tally().excused, 1);
        assert_eq!(scene.0.tally().stale_in_calm.iter().sum::<u64>(), 3);
        assert_eq!(scene.0.tally().stale_in_faults.iter().sum::<u64>(), 1);
    }

    #[test]
    fn values_of_unknown_outcome_are_not_judged_but_those_before_them_are() {
        let mut scene = Scene::new();
        scene.write(1);
        scene.0.begin(0);
        scene.0.lost(0, 10);
        assert_eq!(violations(scene.read(From::Near, 1, 5_000)), [0; 4]);
        scene.write(6_000);
        assert_eq!(violations(scene.read(From::Near, 2, 9_000)), [0; 4], "it may have come behind the third");
        assert_eq!(violations(scene.read(From::Near, 1, 9_000)), [0, 1, 0, 0]);
    }

    #[test]
    fn what_nobody_wrote_and_what_the_cluster_answers_too_late_are_noticed() {
        let mut scene = Scene::new();
        assert_eq!(violations(scene.read(From::Near, 1, 1)), [0, 0, 0, 1]);
        scene.0.begin(0);
        scene.0.refused(0);
        assert_eq!(violations(scene.read(From::Near, 1, 1)), [0, 0, 0, 2]);
        scene.write(5);
        assert_eq!(violations(scene.read(From::Cluster, 0, 5)), [0, 0, 0, 2], "it may have been before");
        assert_eq!(violations(scene.read(From::Cluster, 0, 6)), [0, 0, 1, 2]);
    }

    #[test]
    fn an_entry_is_thrown_away_needlessly_if_nobody_wrote_its_key() {
        let mut scene = Scene::new();
        scene.write(1);
        scene.hold(1, 2);
        assert_eq!(scene.read(From::Bypass, 1, 4).needless, 0, "it is kept");
        assert_eq!(scene.read(From::Cluster, 1, 5).needless, 1);
        scene.read(From::Near, 1, 6);
        scene.0.begin(0);
        assert_eq!(scene.read(From::Cluster, 1, 7).needless, 1, "a write is under way");
        scene.0.lost(0, 8);
        scene.hold(2, 9);
        assert_eq!(scene.read(From::Cluster, 2, 20).needless, 1, "it may have been done twice over");
        scene.hold(2, 10_100);
        assert_eq!(scene.read(From::Cluster, 2, 10_200).needless, 2, "not any more");
    }
}
