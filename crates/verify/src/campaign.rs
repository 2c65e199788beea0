//! One fault after the other, each out of the seed, each followed by the cluster's recovery.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

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

/// A fault that has been.
#[derive(Clone, Debug)]
pub struct Past {
    /// Its kind, or both kinds.
    pub name: String,
    /// Longest time without a write to a shard that the victims led; `None`: they led none.
    pub gap: Option<Duration>,
}

/// Does faults until the time is over; gives them, and why it had to end before if it had.
pub async fn run(
    cluster: &Cluster,
    probes: &Probes,
    kinds: &[Kind],
    seed: u64,
    lasts: Duration,
) -> (Vec<Past>, Option<String>) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut past = Vec::new();
    while clock::now() < lasts.as_nanos() as u64 && !kinds.is_empty() {
        sleep(rng.random_range(REST)).await;
        match one(cluster, probes, kinds, &mut rng).await {
            Ok(fault) => past.push(fault),
            Err(why) => return (past, Some(why)),
        }
    }
    (past, None)
}

async fn one(cluster: &Cluster, probes: &Probes, kinds: &[Kind], rng: &mut SmallRng) -> Result<Past, String> {
    let faults = draw(kinds, cluster, rng);
    let delay = rng.random_range(Duration::ZERO..Duration::from_secs(1));
    let leads = cluster.leads().await.unwrap_or_default();
    let led = |index: usize| leads.iter().position(|(_, owner)| cluster.index(*owner) == Some(index));
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
    let gap =
        faults.iter().filter_map(|fault| led(fault.victim)).map(|shard| probes.gap(shard, begin, end)).max();
    let ms = |ns: u64| ns as f64 / 1e6;
    println!(
        "{:7.1} s  {told}: over at {:.1} s, in good health {:.0} ms later; {} ms without a write",
        ms(begin) / 1e3,
        ms(undone) / 1e3,
        ms(end - undone),
        gap.map_or("-".into(), |gap| gap.as_millis().to_string())
    );
    settled.map_err(|why| format!("{told}: {why}"))?;
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
        Kind::KillAll | Kind::PowerAll => false,
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
