//! The nodes: processes of the real server, each with a directory and a log file of its own.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::sleep;

use crate::disk::Disk;
use crate::network::{cache_address, enter};

/// A node that has not ended so long after SIGTERM hangs.
pub const STOP: Duration = Duration::from_secs(20);
/// Where the kernel tells the id of the machine's boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Between two looks at a process.
const POLL: Duration = Duration::from_millis(5);

/// How nodes are started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The server's binary.
    pub server: PathBuf,
    /// Flags that all nodes have in common.
    pub flags: Vec<String>,
    /// libfaketime, if the nodes' clocks are to jump.
    pub faketime: Option<PathBuf>,
}

impl Launch {
    /// Whether a node's keys are gone when its process ends.
    pub fn forgets(&self) -> bool {
        self.durability() == Some("memory")
    }

    /// Whether all that was acknowledged is on disks.
    pub fn waits_for_disks(&self) -> bool {
        self.durability() == Some("quorum-fsync")
    }

    fn durability(&self) -> Option<&str> {
        let pair = self.flags.windows(2).find(|pair| pair[0] == "--durability")?;
        Some(&pair[1])
    }
}

/// One node.
pub struct Node {
    /// Counted from 1.
    pub number: usize,
    /// Where clients reach it.
    pub address: SocketAddr,
    /// Where near caches reach it.
    pub cache_address: SocketAddr,
    /// Its directory.
    pub dir: PathBuf,
    /// What it logs.
    pub log: PathBuf,
    /// The network namespace it lives in, if any.
    namespace: Option<String>,
    /// The disk that its directory is on, if it has one of its own.
    pub disk: Option<Disk>,
    launch: Launch,
    child: RefCell<Option<Child>>,
}

impl Node {
    /// A node that does not run yet.
    pub fn new(
        number: usize,
        address: SocketAddr,
        folder: &Path,
        namespace: Option<String>,
        launch: Launch,
    ) -> Node {
        let dir = folder.join(format!("node{number}"));
        let log = folder.join(format!("node{number}.log"));
        let cache_address = match &namespace {
            Some(_) => SocketAddr::new(cache_address(number - 1), address.port()),
            None => address,
        };
        Node {
            number,
            address,
            cache_address,
            dir,
            log,
            namespace,
            disk: None,
            launch,
            child: RefCell::new(None),
        }
    }

    /// Starts it.
    pub fn start(&self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = match &self.namespace {
            Some(namespace) => {
                // Each of these becomes the next, so that in the end the server's process is the one to signal.
                let mut command = Command::new("nsenter");
                command.arg(enter(namespace));
                if let Some(disk) = &self.disk {
                    let boot = disk.boot.display();
                    let line = format!("mount --bind {boot} {BOOT_ID} && exec \"$@\"");
                    command.args(["unshare", "--mount", "--propagation", "slave", "sh", "-c", &line, "sh"]);
                }
                command.arg(&self.launch.server);
                command
            }
            None => Command::new(&self.launch.server),
        };
        if let Some(faketime) = &self.launch.faketime {
            self.set_clock(0).map_err(io::Error::other)?;
            command.env("LD_PRELOAD", faketime).env("FAKETIME_TIMESTAMP_FILE", self.clock());
            command.env("FAKETIME_CACHE_DURATION", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        command.args(&self.launch.flags);
        command.args(["--port", &self.address.port().to_string(), "--bind", &self.address.ip().to_string()]);
        command.args((self.cache_address != self.address).then(|| self.cache_address.ip().to_string()));
        command.arg("--dir").arg(&self.dir);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        *self.child.borrow_mut() = Some(command.spawn()?);
        Ok(())
    }

    fn clock(&self) -> PathBuf {
        self.dir.with_extension("clock")
    }

    /// Puts the process's wall clock ahead by so many seconds of the machine's; it notices within a second.
    pub fn set_clock(&self, ahead: i64) -> Result<(), String> {
        fs::write(self.clock(), format!("{ahead:+}\n")).map_err(|error| error.to_string())
    }

    /// Whether its process lives; one that has ended is reaped.
    pub fn is_running(&self) -> bool {
        let mut child = self.child.borrow_mut();
        let ended = child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
        if ended {
            *child = None;
        }
        !ended
    }

    /// Sends a signal, if it runs.
    pub fn signal(&self, signal: Signal) {
        if let Some(child) = self.child.borrow().as_ref() {
            let _ = kill(Pid::from_raw(child.id() as i32), signal);
        }
    }

    /// The process, if it has one.
    pub fn pid(&self) -> Option<u32> {
        self.child.borrow().as_ref().map(Child::id)
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill(&self) {
        self.signal(Signal::SIGKILL);
        self.ended(STOP).await;
    }

    /// Whether it ended within so long.
    pub async fn ended(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while self.is_running() {
            if Instant::now() > until {
                return false;
            }
            sleep(POLL).await;
        }
        true
    }

    /// How long its log is: a mark to read on from.
    pub fn log_mark(&self) -> u64 {
        fs::metadata(&self.log).map_or(0, |log| log.len())
    }

    /// What it logged since a mark.
    pub fn logged_since(&self, mark: u64) -> String {
        use io::{Read, Seek, SeekFrom};
        let mut text = Vec::new();
        let read = File::open(&self.log).and_then(|mut log| {
            log.seek(SeekFrom::Start(mark))?;
            log.read_to_end(&mut text)
        });
        read.map_or(String::new(), |_| String::from_utf8_lossy(&text).into_owned())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.borrow_mut().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
