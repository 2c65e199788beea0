//! One fault after the other, each out of the seed, each followed by the cluster's recovery.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use crate::calm::Calm;
use crate::clock;
use crate::cluster::Cluster;
use crate::faults::{Fault, Kind};
use crate::probe::Probes;

/// After a fault is undone, all must be well within this.
pub const RECOVERY: Duration = Duration::from_secs(60);
/// A second fault begins while the first lasts, so often.
const TWICE: f64 = 0.2;
/// Between a recovery and the next fault.
const REST: std::ops::Range<Duration> = Duration::from_millis(300)..Duration::from_millis(1_500);

/// At the beginning, and then so often,
const CALM_EVERY: Duration = Duration::from_secs(60);
/// nothing is done for so long, to see how it is while all is well.
const CALM: Duration = Duration::from_secs(8);

/// A fault that has been.
#[derive(Clone, Debug)]
pub struct Past {
    /// Its kind, or both kinds.
    pub name: String,
    /// Longest time without a write to a shard that the victims led; `None`: they led none, or were no nodes.
    pub gap: Option<Duration>,
}

/// What is done to whom, for how long, and who is told.
pub struct Campaign<'a> {
    /// The victims.
    pub cluster: &'a Cluster,
    /// Who sees when writes work.
    pub probes: &'a Probes,
    /// Kinds of faults.
    pub kinds: &'a [Kind],
    /// Told when all is well.
    pub calm: &'a Calm,
    /// How long, all in all.
    pub lasts: Duration,
}

impl Campaign<'_> {
    /// Does faults until the time is over; gives them, and why it had to end before if it had.
    pub async fn run(&self, seed: u64) -> (Vec<Past>, Option<String>) {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (mut past, mut calm_at) = (Vec::new(), Duration::ZERO);
        self.calm.begins(self.cluster.pids());
        while self.time() < self.lasts {
            let rest = rng.random_range(REST);
            if self.time() >= calm_at || self.kinds.is_empty() {
                sleep(CALM).await;
                calm_at = self.time() + CALM_EVERY;
            }
            sleep(rest).await;
            if self.kinds.is_empty() {
                continue;
            }
            match one(self, &mut rng).await {
                Ok(fault) => past.push(fault),
                Err(why) => return (past, Some(why)),
            }
        }
        (past, None)
    }

    fn time(&self) -> Duration {
        Duration::from_nanos(clock::now())
    }
}

async fn one(campaign: &Campaign<'_>, rng: &mut SmallRng) -> Result<Past, String> {
    let Campaign { cluster, probes, kinds, calm, .. } = campaign;
    let faults = draw(kinds, cluster, rng);
    let delay = rng.random_range(Duration::ZERO..Duration::from_secs(1));
    let leads = cluster.leads().await.unwrap_or_default();
    let led = |index: usize| leads.iter().position(|(_, owner)| cluster.index(*owner) == Some(index));
    calm.ends();
    let begin = clock::now();
    let second = async {
        match faults.get(1) {
            Some(fault) => {
                sleep(delay).await;
                fault.inflict(cluster).await
            }
            None => Ok(()),
        }
    };
    let (first, second) = tokio::join!(faults[0].inflict(cluster), second);
    let told = faults.iter().map(Fault::to_string).collect::<Vec<_>>().join(" + ");
    let undone = clock::now();
    let settled = match first.and(second) {
        Ok(()) => cluster.settled(RECOVERY).await,
        Err(why) => Err(why),
    };
    let end = clock::now();
    let gap = faults
        .iter()
        .filter(|fault| !fault.kind.hits_caches())
        .flat_map(|fault| match fault.kind.hits_all() {
            true => (0..leads.len()).collect(),
            false => Vec::from_iter(led(fault.victim)),
        })
        .map(|shard| probes.gap(shard, begin, end))
        .max();
    let ms = |ns: u64| ns as f64 / 1e6;
    println!(
        "{:7.1} s  {told}: over at {:.1} s, in good health {:.0} ms later; {} ms without a write",
        ms(begin) / 1e3,
        ms(undone) / 1e3,
        ms(end - undone),
        gap.map_or("-".into(), |gap| gap.as_millis().to_string())
    );
    settled.map_err(|why| format!("{told}: {why}"))?;
    calm.begins(cluster.pids());
    let name = faults.iter().map(|fault| fault.kind.name()).collect::<Vec<_>>().join("+");
    Ok(Past { name, gap })
}

/// One fault, or two at different nodes. Where keys live in memory, at most one of them ends a process: two nodes lost
/// at once are too many.
fn draw(kinds: &[Kind], cluster: &Cluster, rng: &mut SmallRng) -> Vec<Fault> {
    let Some(kind) = kinds.choose(rng).copied() else { return Vec::new() };
    let nodes = cluster.nodes.len();
    let victim = rng.random_range(0..nodes);
    let mut faults = vec![Fault::draw(kind, victim, rng)];
    // The same holds for one that lost power, until it votes again.
    let loses = cluster.forgets || kind == Kind::Power && cluster.mistrusts;
    let fits = |other: &Kind| match other {
        other if other.hits_all() => false,
        Kind::Power => !kind.ends_a_life() || !cluster.mistrusts,
        other => !(loses && other.ends_a_life()),
    };
    let second: Vec<Kind> = kinds.iter().copied().filter(fits).collect();
    let twice = rng.random_bool(TWICE) && !kind.hits_all();
    if let Some(second) = second.choose(rng).copied().filter(|_| twice) {
        let other = (victim + rng.random_range(1..nodes)) % nodes;
        faults.push(Fault::draw(second, other, rng));
    }
    faults
}
