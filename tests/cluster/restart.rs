//! Three real processes that keep their data on a real disk: killed and started again, one and all.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);
const NODES: usize = 3;

/// Nodes below a directory of their own, killed when dropped.
struct Cluster {
    dir: PathBuf,
    ports: Vec<u16>,
    flags: Vec<String>,
    nodes: Vec<Option<Child>>,
}

impl Cluster {
    fn start(name: &str, flags: &[&str]) -> Cluster {
        let dir =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("restart-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut cluster =
            Cluster { dir, ports: ports(name), flags, nodes: (0..NODES).map(|_| None).collect() };
        (0..NODES).for_each(|n| cluster.run(n));
        cluster.serves();
        cluster
    }

    fn run(&mut self, n: usize) {
        let dir = self.dir.join(n.to_string());
        std::fs::create_dir_all(&dir).unwrap();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
        let seeds = self.ports.iter().map(|port| format!("127.0.0.1:{port}"));
        let child = Command::new(env!("CARGO_BIN_EXE_slotcast"))
            .args(["--port", &self.ports[n].to_string(), "--dir", &dir.to_string_lossy()])
            .args(["--cluster-enabled", "yes", "--cluster-seeds"])
            .args(seeds)
            .args(&self.flags)
            .stdout(Stdio::from(log))
            .spawn();
        self.nodes[n] = Some(child.unwrap());
    }

    /// SIGKILL.
    fn kill(&mut self, n: usize) {
        let mut child = self.nodes[n].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn stop(&mut self, n: usize) {
        let mut child = self.nodes[n].take().unwrap();
        Command::new("kill").arg(child.id().to_string()).status().unwrap();
        assert!(child.wait().unwrap().success(), "a node that is told to stop ends well");
    }

    fn log(&self, n: usize) -> String {
        std::fs::read_to_string(self.dir.join(n.to_string()).join("log")).unwrap()
    }

    /// A request to whoever serves it, in time.
    fn ask(&self, words: &[&str]) -> String {
        let (begun, mut port) = (Instant::now(), self.ports[0]);
        loop {
            let answer = ask(port, words);
            match answer.as_deref() {
                Ok(moved) if moved.starts_with("-MOVED") => {
                    port = moved.rsplit(':').next().unwrap().parse().unwrap()
                }
                Ok(answer) if !answer.starts_with('-') => return answer.to_owned(),
                _ => port = self.ports[(begun.elapsed().as_millis() / 50) as usize % NODES],
            }
            assert!(begun.elapsed() < LIMIT, "{words:?}: {answer:?}\n{}", self.log(0));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn serves(&self) {
        let begun = Instant::now();
        for port in &self.ports {
            while !ask(*port, &["CLUSTER", "INFO"]).is_ok_and(|text| text.contains("cluster_state:ok")) {
                assert!(begun.elapsed() < LIMIT, "the cluster does not serve\n{}", self.log(0));
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        self.ask(&["SET", "probe", "1"]);
    }

    fn write(&self, keys: std::ops::Range<usize>) {
        for n in keys {
            assert_eq!(self.ask(&["SET", &format!("key:{n}"), &format!("value {n}")]), "+OK");
        }
    }

    #[track_caller]
    fn has(&self, keys: std::ops::Range<usize>) {
        for n in keys {
            assert_eq!(self.ask(&["GET", &format!("key:{n}")]), format!("value {n}"));
        }
    }

    fn kept(&self, n: usize, suffix: &str) -> usize {
        let files =
            |folder: &str| std::fs::read_dir(self.dir.join(n.to_string()).join(folder)).into_iter().flatten();
        let all = files("wal").chain(files("snapshots"));
        all.filter(|file| {
            file.as_ref().is_ok_and(|file| file.file_name().to_string_lossy().ends_with(suffix))
        })
        .count()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            (0..NODES).for_each(|n| eprintln!("node {n}:\n{}", self.log(n)));
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Free ports whose bus ports are free too, below those the system gives to outgoing connections.
fn ports(name: &str) -> Vec<u16> {
    let start = 11_000 + (std::process::id() as u16 % 40) * 100 + name.len() as u16 % 10 * 10;
    let free = |port: &u16| {
        [*port, port + 10_000].iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
    };
    (start..).filter(free).take(NODES).collect()
}

/// One request on a connection of its own; a bulk string's text, or the first line of another reply.
fn ask(port: u16, words: &[&str]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = format!("*{}\r\n", words.len());
    words.iter().for_each(|word| request += &format!("${}\r\n{word}\r\n", word.len()));
    stream.write_all(request.as_bytes())?;
    let (mut reader, mut line) = (BufReader::new(stream), String::new());
    reader.read_line(&mut line)?;
    let line = line.trim_end().to_owned();
    let Some(length) = line.strip_prefix('$').and_then(|length| length.parse::<usize>().ok()) else {
        return Ok(line);
    };
    let mut text = vec![0; length];
    reader.read_exact(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn all_killed_at_once_and_one_after_another_come_back_as_the_members_they_were() {
    let mut cluster = Cluster::start("kill", &[]);
    cluster.write(0..100);
    (0..NODES).for_each(|n| cluster.kill(n));
    (0..NODES).for_each(|n| cluster.run(n));
    cluster.serves();
    cluster.has(0..100);
    for n in 0..NODES {
        cluster.kill(n);
        cluster.write(100 + n * 50..150 + n * 50);
        cluster.run(n);
        cluster.serves();
        cluster.has(0..150 + n * 50);
    }
    for n in 0..NODES {
        let log = cluster.log(n);
        assert_eq!(log.matches("goes on where it stopped").count(), 2, "{log}");
        assert!(!log.contains("joins the cluster") && !log.contains("new life"), "{log}");
    }
}

#[test]
fn all_stopped_in_order_come_back() {
    let mut cluster = Cluster::start("stop", &["--durability", "quorum-fsync"]);
    cluster.write(0..50);
    for _ in 0..2 {
        (0..NODES).for_each(|n| cluster.stop(n));
        (0..NODES).for_each(|n| cluster.run(n));
        cluster.serves();
        cluster.has(0..50);
    }
}

#[test]
fn a_save_leaves_a_file_of_every_copy_and_a_restart_begins_with_it() {
    let mut cluster = Cluster::start("save", &[]);
    cluster.write(0..50);
    let last_save = |cluster: &Cluster| ask(cluster.ports[0], &["LASTSAVE"]).unwrap();
    let before = last_save(&cluster);
    std::thread::sleep(Duration::from_millis(1100)); // LASTSAVE counts seconds.
    assert_eq!(ask(cluster.ports[0], &["SAVE"]).unwrap(), "+OK");
    assert_eq!(cluster.kept(0, ".snap"), 3);
    let saved = last_save(&cluster);
    assert_ne!(saved, before);
    assert!(ask(cluster.ports[0], &["BGSAVE"]).unwrap().starts_with("+Background saving started"));
    let begun = Instant::now();
    let persistence = || ask(cluster.ports[0], &["INFO", "persistence"]).unwrap();
    while persistence().contains("rdb_bgsave_in_progress:1") {
        assert!(begun.elapsed() < LIMIT, "it does not end");
    }
    assert!(persistence().contains("rdb_last_bgsave_status:ok"));
    cluster.write(50..60);
    (0..NODES).for_each(|n| cluster.kill(n));
    (0..NODES).for_each(|n| cluster.run(n));
    cluster.serves();
    cluster.has(0..60);
}

#[test]
fn with_memory_nothing_is_on_the_disk_and_a_node_comes_back_anew() {
    let mut cluster = Cluster::start("memory", &["--durability", "memory"]);
    cluster.write(0..50);
    cluster.kill(1);
    cluster.run(1);
    cluster.serves();
    cluster.has(0..50);
    let refused = ask(cluster.ports[0], &["BGSAVE"]).unwrap();
    assert!(refused.starts_with("-ERR Nothing to save: durability is memory"), "{refused}");
    assert!((0..NODES).all(|n| cluster.kept(n, ".wal") + cluster.kept(n, ".snap") == 0));
    assert!(cluster.log(1).contains("durability memory") && cluster.log(1).contains("is let into cluster"));
}

#[test]
fn a_node_whose_log_is_damaged_or_gone_is_brought_up_by_the_others() {
    let mut cluster = Cluster::start("damage", &[]);
    cluster.write(0..50);
    for damage in [true, false] {
        cluster.kill(2);
        let folder = cluster.dir.join("2/wal");
        for file in std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()) {
            let mut bytes = std::fs::read(&file).unwrap();
            bytes[60] ^= 1;
            if damage { std::fs::write(&file, bytes).unwrap() } else { std::fs::remove_file(&file).unwrap() }
        }
        cluster.run(2);
        cluster.serves();
    }
    assert!(cluster.log(2).contains("begins a new life, empty"), "{}", cluster.log(2));
    // What it was brought up with is all it can show.
    let begun = Instant::now();
    while cluster.log(2).matches("shard-3: this node leads now").count() < 2 {
        assert!(begun.elapsed() < LIMIT, "leadership does not come home");
        std::thread::sleep(Duration::from_millis(50));
    }
    cluster.has(0..50);
}

#[test]
fn a_failover_that_is_asked_for_makes_a_node_the_master_of_all_it_replicates() {
    let cluster = Cluster::start("failover", &["--durability", "memory"]);
    cluster.write(0..50);
    let port = cluster.ports[1];
    assert_eq!(ask(port, &["CLUSTER", "FAILOVER"]).unwrap(), "+OK");
    let begun = Instant::now();
    let masters = || ask(cluster.ports[0], &["CLUSTER", "NODES"]).unwrap();
    let all = |line: &str| line.contains(&format!(":{port}@")) && line.ends_with("0-16383");
    while !masters().lines().any(all) {
        assert!(begun.elapsed() < LIMIT, "{}", masters());
        std::thread::sleep(Duration::from_millis(20));
    }
    cluster.has(0..50);
    let again = ask(port, &["CLUSTER", "FAILOVER"]).unwrap();
    assert_eq!(again, "-ERR You should send CLUSTER FAILOVER to a replica");
}

#[test]
fn a_copy_is_read_while_it_is_new_enough_and_redirects_when_it_is_not() {
    let cluster = Cluster::start("replica", &["--durability", "memory", "--replica-max-staleness", "1000"]);
    cluster.write(0..1);
    let leader =
        cluster.ports.iter().find(|port| ask(**port, &["GET", "key:0"]).unwrap() == "value 0").unwrap();
    let follower = cluster.ports.iter().find(|port| *port != leader).unwrap();
    let mut reader = Connection::open(*follower);
    assert!(reader.ask("GET key:0").starts_with("-MOVED"));
    assert_eq!(reader.ask("READONLY"), "+OK");
    let begun = Instant::now();
    // Its leader's next heartbeat tells it how new it is.
    while reader.ask("GET key:0") != "$7" {
        assert!(begun.elapsed() < LIMIT, "a copy that is up to date is not read");
        std::thread::sleep(Duration::from_millis(20));
    }
    reader.line();
    assert_eq!(reader.ask("CLIENT READS LINEARIZABLE"), "+OK");
    assert!(reader.ask("GET key:0").starts_with("-MOVED"), "a copy is not linearizable");
    assert_eq!(reader.ask("CLIENT READS LEASE"), "+OK");
    // Any state is older than the past.
    assert_eq!(ask(*follower, &["CONFIG", "SET", "replica-max-staleness", "1"]).unwrap(), "+OK");
    while !reader.ask("GET key:0").starts_with("-MOVED") {
        reader.line();
        assert!(begun.elapsed() < LIMIT, "a copy that is behind is read");
    }
}

/// A connection that stays.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(port: u16) -> Connection {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Connection(BufReader::new(stream))
    }

    /// The first line of the reply to an inline request.
    fn ask(&mut self, request: &str) -> String {
        self.0.get_mut().write_all(format!("{request}\r\n").as_bytes()).unwrap();
        self.line()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}
