//! The directory of all groups with a member on this node: starts members and delivers what the bus brings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use openraft::{Config, Raft, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep_until};

use crate::bus::Bus;
use crate::id::{GroupId, MemberId};
use crate::raft::client::Outside;
use crate::raft::doubt::{Doubt, NOBODY};
use crate::raft::driver;
use crate::raft::group::Group;
use crate::raft::inbox::Inbox;
use crate::raft::inside::{Inside, Members};
use crate::raft::kept::Kept;
use crate::raft::lease::Lease;
use crate::raft::log_store::LogStore;
use crate::raft::machine::Machine;
use crate::raft::network::{Factory, SNAPSHOTS_AT_ONCE};
use crate::raft::queue::Queue;
use crate::raft::restore::{RestoreError, restore};
use crate::raft::runtime;
use crate::raft::snapshot_file::SnapshotDir;
use crate::raft::state::{GroupError, GroupOptions, GroupState, Timing};
use crate::raft::state_machine::Adapter;
use crate::raft::wire::{self, Answer, RAFT_SERVICE};
use crate::wal::Key;
use crate::wal::log::Wal;
use crate::wal::scan::Found;

/// Entries of one append request, at most (their bytes are bounded by the log store).
const MAX_ENTRIES: u64 = 512;
/// Why a member that was in doubt does not come back.
const OVER: &str = "the others have gone on without what this member had";

/// All groups with a member on this node. A cheap handle.
#[derive(Clone)]
pub struct Groups {
    bus: Bus,
    members: Arc<Members>,
    sending: Arc<Semaphore>,
    saving: Arc<Semaphore>,
    durable: Option<Arc<Durable>>,
    begun: Instant,
}

/// What outlasts the process, and did.
struct Durable {
    wal: Wal,
    past: Mutex<BTreeMap<Key, Found>>,
    /// Whether the log may lack its end; where the logs of members started meanwhile ended.
    doubted: AtomicBool,
    ends: Mutex<BTreeMap<Key, (u64, u64)>>,
}

impl Groups {
    /// An empty directory that serves Raft's calls on `bus`; its members' logs are in memory.
    pub fn new(bus: Bus) -> Groups {
        Groups::with(bus, None)
    }

    /// The same with members whose logs are kept in `wal`; one that is started under the id it had in `past` goes on
    /// where it stopped. `doubted`: the log may lack its end, so members are started in doubt (`raft/doubt`).
    pub fn durable(bus: Bus, wal: Wal, past: BTreeMap<Key, Found>, doubted: bool) -> Groups {
        let (past, doubted, ends) = (Mutex::new(past), AtomicBool::new(doubted), Mutex::default());
        Groups::with(bus, Some(Arc::new(Durable { wal, past, doubted, ends })))
    }

    fn with(bus: Bus, durable: Option<Arc<Durable>>) -> Groups {
        let members = Arc::<Members>::default();
        let directory = members.clone();
        bus.serve(RAFT_SERVICE, Arc::new(move |_from, body| Box::pin(answer(directory.clone(), body))));
        let sending = Arc::new(Semaphore::new(SNAPSHOTS_AT_ONCE));
        let saving = Arc::new(Semaphore::new(1));
        Groups { bus, members, sending, saving, durable, begun: Instant::now() }
    }

    /// Starts a member. Its tasks run on the calling runtime; a member that is new to its group does nothing
    /// until it is named in [`Group::initialize`] or added by the leader. `Stopped`: it has been here before, but
    /// cannot go on; it must be replaced by a new one.
    pub async fn start(&self, options: GroupOptions, machine: Box<dyn Machine>) -> Result<Group, GroupError> {
        let refused = |why: String| GroupError::Refused(why);
        if self.group(options.group).is_some() {
            return Err(refused(format!("a member of {} runs here already", options.group)));
        }
        let doubted = self.durable.as_ref().is_some_and(|durable| durable.doubted.load(Ordering::Acquire));
        let config = Config { enable_elect: !doubted, ..config(&options) }
            .validate()
            .map_err(|error| refused(format!("these timings do not go together: {error}")))?;
        let reached = Arc::new(AtomicU64::new(0));
        let outside = Arc::new(Outside {
            bus: self.bus.clone(),
            group: options.group,
            member: options.member,
            floor: AtomicU64::new(0),
            cuts: Mutex::default(),
            transfers: AtomicU64::new(0),
            lease: Lease::new(Instant::now()),
            reached: reached.clone(),
            marks: Mutex::default(),
        });
        let network = Factory(outside.clone());
        let dir = options.snapshots.clone().map(|disk| SnapshotDir::new(disk, options.group, options.member));
        let kept = Arc::new(Kept::new(dir, self.sending.clone()));
        let inbox = Inbox::new(machine.stager(), kept.clone());
        let stopped = |error: &dyn std::fmt::Display| GroupError::Stopped(error.to_string());
        let mut adapter = Adapter::open(machine, kept.clone(), reached).map_err(|error| stopped(&error))?;
        if let Some(later) = self.later_member(&options) {
            let why =
                format!("member {later} of {} was here since: this topology is an old one", options.group);
            return Err(refused(why));
        }
        let log = self.log(&options, &mut adapter).await.map_err(|error| stopped(&error))?;
        let doubt = match doubted {
            true => Some(self.note_end(&options, &log).ok_or_else(|| stopped(&OVER))?),
            false => None,
        };
        let raft = Raft::new(options.member, Arc::new(config), network, log.clone(), adapter)
            .await
            .map_err(|error| GroupError::Stopped(error.to_string()))?;
        kept.run();
        let inside = Arc::new(Inside {
            raft,
            log,
            lease: outside.lease.clone(),
            outside,
            state: watch::Sender::new(GroupState::default()),
            lease_ends: Mutex::default(),
            queue: Mutex::new(Queue::default()),
            wake: Notify::new(),
            stopped: AtomicBool::new(false),
            doubt: Mutex::new(doubt),
            lost: AtomicBool::new(false),
            inbox,
            kept,
            saving: self.saving.clone(),
            runtime: Handle::current(),
            members: self.members.clone(),
            options,
        });
        self.members.write().insert(inside.options.group, inside.clone());
        tokio::spawn(driver::drive(inside.clone()));
        Ok(Group(inside))
    }

    /// A member's log: the one it had, with the state brought up to it, or an empty one.
    async fn log(&self, options: &GroupOptions, adapter: &mut Adapter) -> Result<LogStore, RestoreError> {
        let Some(durable) = &self.durable else { return Ok(LogStore::default()) };
        let key = (options.group, options.member);
        durable.wal.succeed(key);
        let found = durable.past.lock().remove(&key);
        if found.is_some() {
            // It may have promised a leader not to vote for another within the lease, and has forgotten when.
            sleep_until(self.begun + options.timing.election_max).await;
        }
        restore(adapter, (durable.wal.clone(), key), &found.unwrap_or_default(), options.log_bytes).await
    }

    /// `None`: the doubt has ended meanwhile, and this member with it.
    fn note_end(&self, options: &GroupOptions, log: &LogStore) -> Option<Doubt> {
        let durable = self.durable.as_ref()?;
        let mut ends = durable.ends.lock();
        if !durable.doubted.load(Ordering::Acquire) {
            return None;
        }
        let end = log.last().map_or((0, 0), |id| (id.committed_leader_id().term, id.index));
        ends.insert((options.group, options.member), end);
        Some(Doubt { term: log.term(), source: None })
    }

    /// Where the logs of members that were started in doubt ended: (term, index). Empty: there was no doubt.
    pub fn ends(&self) -> BTreeMap<Key, (u64, u64)> {
        self.durable.as_ref().map(|durable| durable.ends.lock().clone()).unwrap_or_default()
    }

    /// Whether members are started in doubt, or were, and others may want to compare with them. From the start on: what is
    /// not open yet is no less in doubt.
    pub fn is_doubted(&self) -> bool {
        let doubted = |durable: &Arc<Durable>| {
            durable.doubted.load(Ordering::Acquire) || !durable.ends.lock().is_empty()
        };
        self.durable.as_ref().is_some_and(doubted)
    }

    /// Where the members' logs end now.
    pub fn ends_now(&self) -> BTreeMap<Key, (u64, u64)> {
        let end = |group: &Group| {
            let last = group.0.log.last().map_or((0, 0), |id| (id.committed_leader_id().term, id.index));
            ((group.id(), group.member()), last)
        };
        self.all().iter().map(end).collect()
    }

    /// Names the member of each group whose log goes farthest. Members started from now on are in no doubt.
    pub fn name_sources(&self, sources: &BTreeMap<GroupId, MemberId>) {
        let Some(durable) = &self.durable else { return };
        durable.doubted.store(false, Ordering::Release);
        for Group(inside) in self.all() {
            let source = sources.get(&inside.options.group).copied().unwrap_or(NOBODY);
            if let Some(doubt) = &mut *inside.doubt.lock() {
                doubt.source = Some((source, Instant::now()));
                inside.raft.runtime_config().elect(source == inside.options.member);
            }
        }
    }

    /// What was in doubt is given up: members started from now on are in none, and those that are on their way back
    /// do not come.
    pub fn end_doubt(&self) {
        if let Some(durable) = &self.durable {
            let mut ends = durable.ends.lock();
            durable.doubted.store(false, Ordering::Release);
            ends.clear();
        }
    }

    /// There is nothing left to compare: to a node in doubt that asks from now on, this one is one that was not.
    pub fn forget_ends(&self) {
        if let Some(durable) = &self.durable {
            durable.ends.lock().clear();
        }
    }

    /// Whether some member is in doubt.
    pub fn any_doubt(&self) -> bool {
        self.all().iter().any(|group| group.0.doubt.lock().is_some())
    }

    /// Member ids are handed out in ascending order: one that is lower than one that was here is over and forgotten.
    fn later_member(&self, options: &GroupOptions) -> Option<MemberId> {
        let durable = self.durable.as_ref()?;
        let others = durable.wal.others_of((options.group, options.member));
        others.into_iter().map(|(_, member)| member).find(|other| *other > options.member)
    }

    /// The write-ahead log, if there is one.
    pub fn wal(&self) -> Option<Wal> {
        self.durable.as_ref().map(|durable| durable.wal.clone())
    }

    /// This node's member of a group.
    pub fn group(&self, group: GroupId) -> Option<Group> {
        self.members.read().get(&group).cloned().map(Group)
    }

    /// All members on this node.
    pub fn all(&self) -> Vec<Group> {
        self.members.read().values().cloned().map(Group).collect()
    }
}

/// Makes the election jitter of groups on this thread a function of `seed`, so that a simulation replays.
pub fn seed_elections(seed: u64) {
    runtime::seed(seed);
}

async fn answer(members: Arc<Members>, body: Bytes) -> Bytes {
    let refused = |why: String| wire::encode_answer(&Answer::Refused(why));
    let (to, message) = match wire::decode(body) {
        Ok(decoded) => decoded,
        Err(error) => return refused(error.to_string()),
    };
    let member = members.read().get(&to.group).cloned();
    match member.filter(|there| there.options.member == to.member) {
        Some(there) => there.answer(message).await,
        None => refused(format!("no member {} of {} lives here", to.member, to.group)),
    }
}

fn config(options: &GroupOptions) -> Config {
    let Timing { heartbeat, election_min, election_max } = options.timing;
    let (heartbeat, election_min) = (heartbeat.as_millis() as u64, election_min.as_millis() as u64);
    // A busy leader needs no heartbeats of their own, as long as three of them fit an election timeout.
    let quiet = heartbeat / 2;
    let suppress = election_min > quiet + heartbeat + heartbeat / 4;
    Config {
        cluster_name: options.group.to_string(),
        heartbeat_interval: heartbeat,
        heartbeat_min_interval: Some(if suppress { quiet } else { 0 }),
        election_timeout_min: election_min,
        election_timeout_max: election_max.as_millis() as u64,
        enable_pre_vote: Some(true),
        // A member that comes back is never a leader without an election: it may lack what it wrote last.
        enable_leader_restore: Some(false),
        // Snapshots are cut when a follower needs one, and the log is purged by bytes (the driver).
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        max_payload_entries: MAX_ENTRIES,
        install_snapshot_timeout: 60_000,
        ..Config::default()
    }
}
