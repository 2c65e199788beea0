//! What replication costs: three members over loopback sockets, each on a thread of its own as in the server, an
//! in-memory machine that only counts bytes, entries as large as batches of SET commands.
//!
//! `cargo bench --bench raft` prints one line per (commands an entry, entries in flight). CPU is that of all three
//! members together, from /proc; the machine's cost and the requests' parsing are not in it.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use slotcast::bus::Bus;
use slotcast::bus::transport::Tcp;
use slotcast::id::{GroupId, NodeId};
use slotcast::raft::group::Group;
use slotcast::raft::groups::Groups;
use slotcast::raft::machine::{Cut, InstallError, Machine, Stager, gathering};
use slotcast::raft::proposal::{Outcome, Proposal};
use slotcast::raft::state::{GroupOptions, Member, Timing};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// A SET of a 16-byte key and an 84-byte value, as bytes in an entry.
const COMMAND: usize = 106;
const LOG_BYTES: usize = 64 << 20;
const RUN: Duration = Duration::from_secs(3);

#[derive(Clone, Default)]
struct Count(Arc<AtomicU64>);

impl Machine for Count {
    fn apply(&mut self, _: u64, _: u64, bytes: &Bytes, _: Option<Arc<dyn Any + Send + Sync>>) {
        self.0.fetch_add(bytes.len() as u64, Relaxed);
    }

    fn snapshot(&mut self) -> Option<Cut> {
        let count = Bytes::copy_from_slice(&self.0.load(Relaxed).to_be_bytes());
        Some(Box::new(std::iter::once(Ok(count))))
    }

    fn stager(&self) -> Stager {
        let count = self.0.clone();
        gathering(move |chunks| {
            let bytes =
                chunks.concat().try_into().map_err(|_| InstallError("eight bytes expected".into()))?;
            count.store(u64::from_be_bytes(bytes), Relaxed);
            Ok(())
        })
    }
}

/// Starts a node on a thread of its own.
fn node(n: u8) -> (Group, Member) {
    let (tell, started) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let id = NodeId::from_bytes([n; 20]);
            let bus = Bus::start(id, ([127, 0, 0, 1], 0).into(), Arc::new(Tcp)).await.expect("a free port");
            let me = Member { node: id, addr: bus.local_addr() };
            let (group, member, timing) = (GroupId(1), n as u64, Timing::default());
            let options =
                GroupOptions { group, member, me: me.clone(), timing, log_bytes: LOG_BYTES, snapshots: None };
            let group = Groups::new(bus).start(options, Box::new(Count::default())).await.expect("a member");
            tell.send((group, me)).expect("somebody waits");
            std::future::pending::<()>().await;
        });
    });
    started.recv().expect("a node")
}

/// Seconds of CPU this process has used.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

/// Proposes for a while with `in_flight` entries of `commands` each; prints what it cost.
async fn measure(group: &Group, commands: usize, in_flight: usize) {
    let body = Bytes::from(vec![b'x'; commands * COMMAND]);
    let places = Arc::new(Semaphore::new(in_flight));
    let latencies = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let (begun, cpu_before) = (Instant::now(), cpu());
    while begun.elapsed() < RUN {
        let place = places.clone().acquire_owned().await.expect("never closed");
        let (at, latencies) = (Instant::now(), latencies.clone());
        let done = move |outcome| {
            assert!(matches!(outcome, Outcome::Applied { .. }), "{outcome:?}");
            latencies.lock().push(at.elapsed());
            drop(place);
        };
        group.propose(Proposal { bytes: body.clone(), local: None }, Box::new(done));
    }
    let _all = places.acquire_many(in_flight as u32).await.expect("never closed");
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), cpu() - cpu_before);
    let mut latencies = std::mem::take(&mut *latencies.lock());
    latencies.sort_unstable();
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
    let total = (latencies.len() * commands) as f64;
    println!(
        "{commands:>8} {in_flight:>9} {:>11.0} {:>11.0} {:>9.2} {:>9.0?} {:>9.0?}",
        latencies.len() as f64 / seconds,
        total / seconds,
        cpu * 1e6 / total,
        at(0.5),
        at(0.99),
    );
}

fn main() {
    let nodes: Vec<(Group, Member)> = (1..=3).map(node).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let members: BTreeMap<u64, Member> =
            (1..).zip(nodes.iter().map(|(_, member)| member.clone())).collect();
        let leader = &nodes[0].0;
        leader.initialize(members).await.expect("a new group");
        leader.state().wait_for(|state| state.ready).await.expect("a leader");
        while !leader.lease().is_valid(Instant::now()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        println!("commands  in flight   entries/s  commands/s  µs CPU/c       p50       p99");
        for (commands, in_flight) in
            [(1, 1), (1, 16), (1, 256), (16, 4), (16, 16), (64, 1), (64, 4), (64, 16)]
        {
            measure(leader, commands, in_flight).await;
        }
    });
}
