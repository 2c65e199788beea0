//! A fault campaign on real slotcast processes: clients work, nodes are killed, stopped and cut off; then every
//! acknowledged write must be there, every key's history linearizable, and no cache stale. `scripts/verify` starts it.

mod authors;
mod cached;
mod caches;
mod calm;
mod campaign;
mod client;
mod clock;
mod closing;
mod cluster;
mod connection;
mod deadlines;
mod disk;
mod faults;
mod freshness;
mod network;
mod node;
mod probe;
mod processors;
mod records;
mod report;
mod slots;
mod workload;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::timeout;

use crate::authors::AUTHORS;
use crate::caches::Caches;
use crate::calm::Calm;
use crate::campaign::Campaign;
use crate::client::Client;
use crate::cluster::Cluster;
use crate::deadlines::Tolerance;
use crate::faults::{KINDS, Kind};
use crate::freshness::Freshness;
use crate::node::Launch;
use crate::probe::Probes;
use crate::records::Records;
use crate::report::Findings;
use crate::workload::Stop;

/// Forming a cluster takes less.
const FORMATION: Duration = Duration::from_secs(60);
/// Clients that watch keys expire.
const TIMED: u16 = 4;
/// The last calls take less: a client's patience and its repetitions.
const FINISH: Duration = Duration::from_secs(40);

/// A fault campaign on slotcast processes. scripts/verify starts it.
#[derive(Debug, Parser)]
struct Flags {
    /// The server's binary.
    #[arg(long)]
    server: PathBuf,
    /// Where nodes keep their directories and logs; must be empty or absent.
    #[arg(long)]
    dir: PathBuf,
    /// How long faults go on.
    #[arg(long, default_value_t = 3.0)]
    minutes: f64,
    /// What faults and clients' choices come from.
    #[arg(long)]
    seed: Option<u64>,
    /// Kinds of faults, apart by commas; all that are possible if not given.
    #[arg(long, value_delimiter = ',', value_parser = kind)]
    faults: Vec<Kind>,
    /// The nodes' `durability`; their default if not given.
    #[arg(long)]
    durability: Option<String>,
    /// The caller made network and mount namespaces for this: give each node a network of its own.
    #[arg(long)]
    namespaces: bool,
    /// The caller may mount images: give each node a disk of its own. Needs --namespaces.
    #[arg(long, requires = "namespaces")]
    disks: bool,
    /// Nodes.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Clients.
    #[arg(long, default_value_t = 24)]
    clients: u16,
    /// Near caches whose reads are judged; 0: none. For a long run with emphasis on them, more, and fewer clients.
    #[arg(long, default_value_t = 8)]
    caches: usize,
    /// Port of the first node, or of all with --namespaces.
    #[arg(long, default_value_t = 7301)]
    port: u16,
}

fn kind(name: &str) -> Result<Kind, String> {
    let found = KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
    let names = KINDS.map(|(name, _)| name).join(", ");
    found.ok_or_else(|| format!("not a kind of fault; there are {names}"))
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let verified = match runtime {
        Ok(runtime) => LocalSet::new().block_on(&runtime, until_signal(flags)),
        Err(error) => Err(error.to_string()),
    };
    match verified {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("verify: {why}");
            ExitCode::FAILURE
        }
    }
}

/// A signal ends the campaign, and with it the nodes.
async fn until_signal(flags: Flags) -> Result<bool, String> {
    let listen = |kind| signal(kind).map_err(|error| error.to_string());
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    tokio::select! {
        verified = verify(flags) => verified,
        _ = interrupt.recv() => Err("interrupted".into()),
        _ = terminate.recv() => Err("terminated".into()),
    }
}

/// Whether nothing was found.
async fn verify(flags: Flags) -> Result<bool, String> {
    let seed = flags.seed.unwrap_or_else(|| SmallRng::from_os_rng().random::<u32>().into());
    let kinds = kinds(&flags);
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    println!("seed {seed}, {} minutes of {}", flags.minutes, names.join(", "));
    let cluster = cluster(&flags).await?;
    let leads = cluster.settled(FORMATION).await?;
    println!("{} nodes serve {} shards; logs in {}", cluster.nodes.len(), leads.len(), flags.dir.display());

    let nodes: Rc<[_]> = cluster.addresses().into();
    let (records, stop, calm) = (Records::default(), Stop::default(), Calm::default());
    let probes = Probes::start(&leads, &nodes, &stop);
    let caches = match flags.caches {
        0 => None,
        count => Some(Caches::start(count, &cluster, calm.clone())?),
    };
    let tasks = start_clients(&flags, &nodes, seed, &kinds, caches.as_ref(), &records, &stop);
    let lasts = Duration::from_secs_f64(flags.minutes * 60.0);
    let campaign = Campaign { cluster: &cluster, probes: &probes, kinds: &kinds, calm: &calm, lasts };
    let (past, broke_off) = campaign.run(seed).await;
    if let Some(network) = &cluster.network {
        network.heal().await?;
    }
    stop.set(true);
    for task in tasks {
        timeout(FINISH, task)
            .await
            .map_err(|_| "a client does not come to its end")?
            .map_err(|e| e.to_string())?;
    }
    let mut findings = look(&records, Client::new(u16::MAX, nodes, seed)).await;
    findings.other.extend(broke_off);
    let freshness = match caches {
        Some(caches) => Some(Freshness::of(caches).await),
        None => None,
    };
    findings.stale.extend(freshness.iter().flat_map(Freshness::violations));
    report::print_faults(&past);
    print_summary(&records, &findings);
    freshness.iter().for_each(Freshness::print);
    if !findings.is_empty() {
        records.look(|seen| findings.explain(seen, &flags.dir));
        println!(
            "\nthe nodes' logs and the histories are in {}; again with --seed {seed}",
            flags.dir.display()
        );
    }
    Ok(findings.is_empty())
}

/// All that work on the cluster until they are told to stop.
fn start_clients(
    flags: &Flags,
    nodes: &Rc<[SocketAddr]>,
    seed: u64,
    kinds: &[Kind],
    caches: Option<&Caches>,
    records: &Records,
    stop: &Stop,
) -> Vec<JoinHandle<()>> {
    let mut numbers = 0..;
    let mut client = || Client::new(numbers.next().unwrap_or_default(), nodes.clone(), seed);
    let mut tasks = Vec::new();
    for _ in 0..flags.clients {
        tasks.push(spawn_local(workload::work(client(), records.clone(), stop.clone())));
    }
    for node in 0..nodes.len() {
        tasks.push(spawn_local(workload::read_loyally(client(), node, records.clone(), stop.clone())));
    }
    let tolerance = Tolerance::under(kinds);
    for _ in 0..TIMED {
        tasks.push(spawn_local(deadlines::watch(client(), tolerance, records.clone(), stop.clone())));
    }
    for (author, caches) in (0..AUTHORS).zip(std::iter::repeat(caches).flatten()) {
        let write = authors::write(client(), author, caches.watch.clone(), records.clone(), stop.clone());
        tasks.push(spawn_local(write));
    }
    tasks
}

/// What all clients saw, and what is there at the end.
async fn look(records: &Records, mut reader: Client) -> Findings {
    let read = workload::read_all(&mut reader, records).await;
    let mut findings = records.look(|seen| Findings::of(seen, read.is_ok()));
    findings.other.extend(records.look(|seen| seen.untimely.clone()));
    match read {
        Ok(lost) => findings.lost.extend(lost),
        Err(why) => findings.other.push(why),
    }
    let unasked = connection::unasked();
    findings
        .other
        .extend((unasked > 0).then(|| format!("{unasked} times a node sent what nobody had asked for")));
    findings
}

/// The kinds asked for; those that are not possible here are named and left out.
fn kinds(flags: &Flags) -> Vec<Kind> {
    let all: Vec<Kind> = KINDS.iter().map(|(_, kind)| *kind).collect();
    let asked = if flags.faults.is_empty() { &all } else { &flags.faults };
    let keeps = flags.durability.as_deref() != Some("memory");
    let mut possible = asked.clone();
    let skip = |kinds: Vec<Kind>, why: &str| {
        if !kinds.is_empty() {
            let names: Vec<&str> = kinds.into_iter().map(Kind::name).collect();
            println!("skipped, as {why}: {}", names.join(", "));
        }
    };
    if flags.caches == 0 {
        let cuts = possible.extract_if(.., |kind| kind.hits_caches()).collect();
        skip(cuts, "there are no near caches");
    }
    if !flags.namespaces {
        let cuts = possible.extract_if(.., |kind| kind.needs_network()).collect();
        skip(cuts, "the nodes have no network of their own");
    }
    if !flags.disks {
        let broken = possible.extract_if(.., |kind| kind.needs_own_disks()).collect();
        skip(broken, "the nodes have no disks of their own");
    }
    if flags.durability.as_deref() != Some("quorum-fsync") {
        let outages = possible.extract_if(.., |kind| *kind == Kind::PowerAll).collect();
        skip(outages, "only with --durability quorum-fsync does anything outlast that");
    }
    if flags.faults.is_empty() || faketime().is_none() {
        let jumps = possible.extract_if(.., |kind| *kind == Kind::Clock).collect();
        skip(jumps, "it must be asked for, and libfaketime be there");
    }
    if !keeps {
        let losses = possible.extract_if(.., |kind| kind.needs_keeping()).collect();
        skip(losses, "the nodes keep their keys in memory only");
    }
    possible
}

async fn cluster(flags: &Flags) -> Result<Cluster, String> {
    if !is_empty(&flags.dir) {
        return Err(format!("{} is not empty: give an empty folder with --dir", flags.dir.display()));
    }
    std::fs::create_dir_all(&flags.dir).map_err(|error| format!("{}: {error}", flags.dir.display()))?;
    let words = ["--cluster-enabled", "yes", "--protected-mode", "no"];
    let mut common: Vec<String> = words.map(str::to_owned).to_vec();
    if let Some(durability) = &flags.durability {
        common.extend(["--durability".to_owned(), durability.clone()]);
    }
    let faketime = faketime().filter(|_| flags.faults.contains(&Kind::Clock));
    let launch = Launch { server: flags.server.clone(), flags: common, faketime };
    Cluster::start(flags.nodes, flags.port, &flags.dir, launch, flags.namespaces, flags.disks).await
}

/// The library that fakes a process's clock (Debian: libfaketime).
fn faketime() -> Option<PathBuf> {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
    let library = |folder: &str| Path::new(folder).join("faketime/libfaketime.so.1");
    folders.into_iter().map(library).find(|library| library.exists())
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}

fn print_summary(records: &Records, findings: &Findings) {
    records.look(|seen| {
        println!(
            "{} operations, {} refused, {} of unknown outcome; {} keys' histories checked, {} keys written once",
            seen.calls,
            seen.refused,
            seen.unknown,
            seen.histories.len(),
            seen.kept.len()
        );
        for (error, count) in &seen.errors {
            println!("  {count} x {error}");
        }
    });
    println!(
        "acknowledged writes lost: {}; linearizability violations: {} keys; undecided: {}",
        findings.lost.len(),
        findings.broken.len(),
        findings.undecided.len()
    );
}
