//! Real nodes, three unless more are wanted, below a directory of their own, and requests to them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

pub const LIMIT: Duration = Duration::from_secs(60);
pub const NODES: usize = 3;

/// Nodes below a directory of their own, killed when dropped.
pub struct Cluster {
    pub dir: PathBuf,
    pub ports: Vec<u16>,
    flags: Vec<String>,
    nodes: Vec<Option<Child>>,
}

impl Cluster {
    pub fn start(name: &str, flags: &[&str]) -> Cluster {
        Cluster::of(NODES, name, flags)
    }

    pub fn of(nodes: usize, name: &str, flags: &[&str]) -> Cluster {
        let dir =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("restart-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let ports = ports(nodes);
        let mut cluster = Cluster { dir, ports, flags, nodes: (0..nodes).map(|_| None).collect() };
        (0..nodes).for_each(|n| cluster.run(n));
        cluster.serves();
        cluster
    }

    pub fn run(&mut self, n: usize) {
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
    pub fn kill(&mut self, n: usize) {
        let mut child = self.nodes[n].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn stop(&mut self, n: usize) {
        let mut child = self.nodes[n].take().unwrap();
        Command::new("kill").arg(child.id().to_string()).status().unwrap();
        assert!(child.wait().unwrap().success(), "a node that is told to stop ends well");
    }

    /// STOP or CONT.
    pub fn signal(&self, n: usize, signal: &str) {
        let pid = self.nodes[n].as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }

    pub fn log(&self, n: usize) -> String {
        std::fs::read_to_string(self.dir.join(n.to_string()).join("log")).unwrap()
    }

    /// A request to whoever serves it, in time.
    pub fn ask(&self, words: &[&str]) -> String {
        let (begun, mut port) = (Instant::now(), self.ports[0]);
        loop {
            let answer = ask(port, words);
            match answer.as_deref() {
                Ok(moved) if moved.starts_with("-MOVED") => {
                    port = moved.rsplit(':').next().unwrap().parse().unwrap()
                }
                Ok(answer) if !answer.starts_with('-') => return answer.to_owned(),
                _ => port = self.ports[(begun.elapsed().as_millis() / 50) as usize % self.ports.len()],
            }
            assert!(begun.elapsed() < LIMIT, "{words:?}: {answer:?}\n{}", self.log(0));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn serves(&self) {
        let begun = Instant::now();
        for port in &self.ports {
            while !ask(*port, &["CLUSTER", "INFO"]).is_ok_and(|text| text.contains("cluster_state:ok")) {
                assert!(begun.elapsed() < LIMIT, "the cluster does not serve\n{}", self.log(0));
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        self.ask(&["SET", "probe", "1"]);
    }

    pub fn write(&self, keys: std::ops::Range<usize>) {
        for n in keys {
            assert_eq!(self.ask(&["SET", &format!("key:{n}"), &format!("value {n}")]), "+OK");
        }
    }

    #[track_caller]
    pub fn has(&self, keys: std::ops::Range<usize>) {
        for n in keys {
            assert_eq!(self.ask(&["GET", &format!("key:{n}")]), format!("value {n}"));
        }
    }

    pub fn kept(&self, n: usize, suffix: &str) -> usize {
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
            (0..self.ports.len()).for_each(|n| eprintln!("node {n}:\n{}", self.log(n)));
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Free ports whose bus ports are free too, below those the system gives to outgoing connections. No two clusters of a
/// process look at the same ones.
pub fn ports(nodes: usize) -> Vec<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let turn = NEXT.fetch_add(nodes as u16 + 2, Ordering::Relaxed);
    let start = 11_000 + (std::process::id() as u16 % 40 * 100 + turn) % 9_000;
    let free = |port: &u16| {
        [*port, port + 10_000].iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
    };
    (start..).filter(free).take(nodes).collect()
}

/// One request on a connection of its own; a bulk string's text, or the first line of another reply.
pub fn ask(port: u16, words: &[&str]) -> std::io::Result<String> {
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

/// A connection that stays.
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    pub fn open(port: u16) -> Connection {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Connection(BufReader::new(stream))
    }

    /// The first line of the reply to an inline request.
    pub fn ask(&mut self, request: &str) -> String {
        self.send(&format!("{request}\r\n"));
        self.line()
    }

    pub fn send(&mut self, bytes: &str) {
        self.0.get_mut().write_all(bytes.as_bytes()).unwrap();
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}
