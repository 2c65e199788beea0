//! Golden scripts of the session commands: `tests/golden/session/*.txt`, requests in, replies out below each, as in
//! `tests/golden.rs`. They run against sessions in a made-up cluster of three nodes, ports 7001 to 7003, of which 7001
//! is looked from, or against a single node. `UPDATE_GOLDEN=1 cargo test --test session` writes the replies anew.
//!
//! ```text
//! > CLUSTER MYID               a request, its reply below; `~` lines say what it leaves to the dispatcher
//! @single                      a single node from here, with one new connection
//! @cluster [NAME]              a cluster; with a NAME its nodes are announced as NAME-7001 and so on
//! @connect                     a further connection, which sends the next requests
//! @as 2                        connection 2 sends the next requests
//! @from 7002                   node 7002 looks
//! @lead 7002 1                 node 7002 now leads shard 1, as all nodes know
//! @lost 1                      this node's copy of shard 1 knows no leader
//! @down 7002                   node 7002 doesn't answer
//! @outside                     the node belongs to no cluster yet
//! @put 1 key                   shard 1 has this key here
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use slotcast::config::Config;
use slotcast::id::{GroupId, NodeId};
use slotcast::keyspace::Keyspace;
use slotcast::keyspace::effect::Nobody;
use slotcast::keyspace::locked::{Deadline, Locked, Needs};
use slotcast::metrics::Metrics;
use slotcast::session::Session;
use slotcast::session::clients::Clients;
use slotcast::session::context::Context;
use slotcast::session::saves::Saves;
use slotcast::session::table::resolve;
use slotcast::session::verdict::{Copies, Verdict};
use slotcast::time::Clock;
use slotcast::topology::change::Change;
use slotcast::topology::view::{Observed, View};
use slotcast::topology::{Leadership, Node, Topology};
use slotcast_wire::args::OwnedArgs;
use slotcast_wire::frame::FrameDecoder;
use slotcast_wire::inline;
use slotcast_wire::reply::Reply;

/// When scripts begin: 2023-11-14T22:13:20Z.
const START: u64 = 1_700_000_000_000;
const A_DAY: std::time::Duration = std::time::Duration::from_secs(86_400);
const PORTS: [u16; 3] = [7001, 7002, 7003];

fn id(port: u16) -> NodeId {
    NodeId::from_bytes([(port - 7000) as u8 * 0x11; 20])
}

/// Three nodes with a shard each, all known to lead theirs.
fn cluster(name: Option<&str>) -> View {
    let host = |port| name.map_or("127.0.0.1".to_owned(), |name| format!("{name}-{port}"));
    let node =
        |port| Node { host: host(port), port, bus: ([127, 0, 0, 1], port + 10_000).into(), incarnation: 0 };
    let nodes = PORTS.map(|port| (id(port), node(port))).into();
    let meta = BTreeMap::from([(id(7001), 1), (id(7002), 2), (id(7003), 3)]);
    let mut topology = Topology::default();
    topology.apply(1, &Change::Form { nodes, meta, shards: 3, copies: 3 });
    let me = id(PORTS[0]);
    let mut view = View { me, topology: topology.into(), observed: BTreeMap::new(), unreachable: [].into() };
    PORTS.iter().zip(1..).for_each(|(port, shard)| lead(&mut view, *port, shard));
    view
}

/// A new leader is elected, and published.
fn lead(view: &mut View, port: u16, shard: u32) {
    let (shard, node) = (GroupId(shard), id(port));
    let term = view.observed.get(&shard).map_or(1, |seen| seen.term + 1);
    let mut topology = Topology::clone(&view.topology);
    let epoch = topology.epoch + 1;
    topology.apply(epoch, &Change::Lead { shard, leadership: Leadership { term, node } });
    view.topology = topology.into();
    view.observed.insert(shard, Observed { term, leader: Some(node), serving: node == view.me });
}

struct Runner {
    context: Context,
    sessions: Vec<Session>,
    asking: usize,
    _homes: tokio::sync::mpsc::Receiver<GroupId>,
}

impl Runner {
    fn new(view: Option<View>) -> Self {
        let shards = if view.is_some() { 1..=3 } else { 1..=1 };
        let keyspaces: BTreeMap<_, _> =
            shards.map(|shard| (GroupId(shard), Arc::new(Keyspace::new()))).collect();
        let (homes, asked_homes) = tokio::sync::mpsc::channel(64);
        let context = Context {
            me: id(PORTS[0]),
            // A clock that begins to run only after the test stands still.
            clock: Clock::Simulated { base: START, start: tokio::time::Instant::now() + A_DAY },
            started: START,
            run_id: NodeId::from_bytes([0xff; 20]),
            config: Arc::new(Config::default()),
            clients: Clients::default(),
            metrics: Arc::new(Metrics::default()),
            subscribers: Arc::default(),
            tracked: Arc::default(),
            saves: Saves::new(START),
            keyspaces: Arc::new(ArcSwap::from_pointee(keyspaces)),
            rings: Arc::default(),
            homes: view.as_ref().map(|_| homes),
            cluster: view.map(|view| Arc::new(ArcSwap::from_pointee(view))),
        };
        let mut runner = Runner { context, sessions: Vec::new(), asking: 0, _homes: asked_homes };
        runner.connect();
        runner
    }

    fn connect(&mut self) {
        let port = 50_001 + self.sessions.len() as u16;
        let addresses: [SocketAddr; 2] = [([127, 0, 0, 1], port).into(), ([127, 0, 0, 1], 7001).into()];
        let client = self.context.clients.register(addresses[0], addresses[1], START);
        self.asking = self.sessions.len();
        self.sessions.push(Session::new(client, self.context.config.live().requirepass.is_empty()));
    }

    fn change_view(&self, change: impl FnOnce(&mut View)) {
        let cluster = self.context.cluster.as_ref().expect("a cluster");
        let mut view = View::clone(&cluster.load());
        change(&mut view);
        cluster.store(view.into());
    }

    /// Takes a line that begins with `@`.
    fn direct(&mut self, directive: &str) {
        let number = |word: &str| word.parse::<u16>().expect("a number");
        match directive.split(' ').collect::<Vec<_>>()[..] {
            ["@single"] => *self = Runner::new(None),
            ["@cluster"] => *self = Runner::new(Some(cluster(None))),
            ["@cluster", name] => *self = Runner::new(Some(cluster(Some(name)))),
            ["@connect"] => self.connect(),
            ["@as", which] => self.asking = usize::from(number(which)) - 1,
            ["@from", port] => self.change_view(|view| look_from(view, id(number(port)))),
            ["@lead", port, shard] => self.change_view(|view| lead(view, number(port), number(shard).into())),
            ["@lost", shard] => self.change_view(|view| {
                let seen = view.observed.get_mut(&GroupId(number(shard).into())).expect("a shard");
                *seen = Observed { term: seen.term + 1, leader: None, serving: false };
            }),
            ["@down", port] => self.change_view(|view| {
                view.unreachable.insert(id(number(port)));
            }),
            ["@outside"] => self.change_view(|view| {
                (view.topology, view.observed) = (Topology::default().into(), BTreeMap::new());
            }),
            ["@put", shard, key] => self.put(GroupId(number(shard).into()), key),
            _ => panic!("unknown directive: {directive}"),
        }
    }

    fn put(&self, shard: GroupId, key: &str) {
        let keyspace = self.context.keyspaces.load()[&shard].clone();
        let mut locked = Locked::new(&keyspace, &Needs::Everything, START, 0, &Nobody);
        locked.put_bytes(key.as_bytes(), b"value", Deadline::Never);
    }

    /// Runs a request; the reply's text and the verdict's.
    fn request(&mut self, line: &str) -> String {
        let words = inline::split(line.as_bytes()).unwrap_or_else(|| panic!("unbalanced quotes: {line}"));
        let args: OwnedArgs = words.iter().collect();
        let session = &mut self.sessions[self.asking];
        let mut bytes = Vec::new();
        let verdict = resolve(args.as_args()).and_then(|entry| {
            session.last_command = entry.name;
            let run = entry.session.expect("a session command");
            run(session, &self.context, args.as_args(), &mut Reply::new(&mut bytes, session.proto))
        });
        let verdict = verdict.unwrap_or_else(|error| {
            assert!(bytes.is_empty(), "an error after a reply: {line}");
            Reply::new(&mut bytes, session.proto).error(&error.0);
            self.context.metrics.note_error(&error.0);
            Verdict::Replied
        });
        session.show();
        let mut text = String::new();
        let mut decoder = FrameDecoder::default();
        while !bytes.is_empty() {
            let (used, frame) = decoder.decode(&bytes).expect("a frame");
            bytes.drain(..used);
            // A text in RESP3 is shown as it is; an empty line at its end would end the reply.
            let shown = frame.expect("whole frames").to_string().replace("\r\n", "\n");
            writeln!(text, "{}", shown.trim_end_matches('\n')).expect("a string takes all");
        }
        text.push_str(&verdict_text(verdict));
        for client in self.context.clients.list().iter().filter(|client| client.is_killed()) {
            writeln!(text, "~ connection {} is to close", client.id).expect("a string takes all");
            self.context.clients.forget(client.id);
        }
        text
    }
}

/// Another node looks at the same cluster.
fn look_from(view: &mut View, me: NodeId) {
    view.me = me;
    for seen in view.observed.values_mut() {
        seen.serving = seen.leader == Some(me);
    }
}

fn verdict_text(verdict: Verdict) -> String {
    match verdict {
        Verdict::Replied => String::new(),
        Verdict::Close => "~ close\n".into(),
        Verdict::Tracking => "~ follow the tracking mode\n".into(),
        Verdict::Publish { sharded } => format!("~ publish{}\n", if sharded { " to the shard" } else { "" }),
        Verdict::Saved => "~ wait for the save\n".into(),
        Verdict::Read(_) => "~ wait for a change\n".into(),
        Verdict::Shutdown => "~ shut down\n".into(),
        Verdict::Execute(batch) => format!("~ execute {:?}\n", batch.requests),
        Verdict::Watch(args) => format!("~ watch {args:?}\n"),
        Verdict::Wait(Copies { on_disk, replicas, timeout }) => {
            let disks = match on_disk {
                Some(true) => " and this node, on disks",
                Some(false) => ", on disks",
                None => "",
            };
            format!("~ wait for {replicas} replicas{disks}, {timeout:?}\n")
        }
    }
}

/// The script with the replies it gives now in place of those it has.
fn replayed(script: &str) -> String {
    let mut runner = Runner::new(None);
    let mut replayed = String::new();
    let mut in_reply = false;
    for line in script.lines() {
        if let Some(request) = line.strip_prefix("> ") {
            writeln!(replayed, "{line}").expect("a string takes all");
            replayed.push_str(&runner.request(request));
            in_reply = true;
            continue;
        }
        in_reply &= !(line.is_empty() || line.starts_with(['@', '#']));
        if line.starts_with('@') {
            runner.direct(line);
        }
        if !in_reply {
            writeln!(replayed, "{line}").expect("a string takes all");
        }
    }
    replayed
}

fn check(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/session").join(name);
    let script = std::fs::read_to_string(&path).expect("a script");
    let replayed = replayed(&script);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &replayed).expect("a script written");
        return;
    }
    let differs = replayed.lines().zip(script.lines()).position(|(is, should)| is != should);
    if let Some(at) = differs {
        let line = |text: &str| text.lines().nth(at).unwrap_or_default().to_owned();
        panic!("{name}:{}: expected {:?}, got {:?}", at + 1, line(&script), line(&replayed));
    }
    assert_eq!(replayed.lines().count(), script.lines().count(), "{name} ends otherwise");
}

#[test]
fn connections() {
    check("connection.txt");
}

#[test]
fn clients() {
    check("client.txt");
}

#[test]
fn clusters() {
    check("cluster.txt");
}

#[test]
fn subscriptions() {
    check("pubsub.txt");
}

#[test]
fn transactions() {
    check("transaction.txt");
}

#[test]
fn introspection() {
    check("command.txt");
}

#[test]
fn servers() {
    check("server.txt");
}
