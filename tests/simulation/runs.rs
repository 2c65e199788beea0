//! Runs of seeds, each in a process of its own.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// Processes at a time.
const AT_ONCE: usize = 2;

/// A run that has ended.
pub struct Run {
    pub seed: u64,
    pub passed: bool,
    pub output: String,
}

impl Run {
    /// The trace's hash, as the run printed it.
    pub fn hash(&self) -> &str {
        let at = self.output.find("trace ").map_or(0, |at| at + 6);
        self.output[at..].split_whitespace().next().unwrap_or_default()
    }

    /// What was found, if something was.
    pub fn violation(&self) -> &str {
        let at = self.output.find("VIOLATION").unwrap_or(0);
        self.output[at..].lines().next().unwrap_or_default()
    }

    fn summary(&self) -> &str {
        self.output.lines().find(|line| line.contains("trace ")).unwrap_or("failed")
    }
}

/// A number in the environment.
pub fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// A rule broken on purpose.
#[derive(Clone, Copy, Debug)]
pub enum Broken {
    Nothing,
    /// See [`crate::server::Fault`].
    Here(&'static str),
    /// See `slotcast::broken`; in a build with that feature.
    #[cfg_attr(not(feature = "broken"), expect(dead_code, reason = "in a build with the feature only"))]
    Server(&'static str),
}

/// Runs one seed.
pub fn run(seed: u64, broken: Broken) -> Run {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "one_seed", "--nocapture", "--test-threads=1"]);
    command.env("SIMULATION_SEED", seed.to_string()).env("SIMULATION_QUIET", "1");
    match broken {
        Broken::Nothing => &mut command,
        Broken::Here(name) => command.env("SIMULATION_FAULT", name),
        Broken::Server(name) => command.env("SLOTCAST_BROKEN", name),
    };
    let ended = command.output().unwrap();
    let output =
        [ended.stdout, ended.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Run { seed, passed: ended.status.success(), output }
}

/// Runs all seeds; the results in order.
pub fn run_all(seeds: &[u64], broken: Broken) -> Vec<Run> {
    let (next, runs) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                    let run = run(*seed, broken);
                    match run.passed {
                        true => println!("{}", run.summary()),
                        false => println!("SIMULATION_SEED={seed} FAILS: {}", run.violation()),
                    }
                    runs.lock().push(run);
                }
            });
        }
    });
    let mut runs = runs.into_inner();
    runs.sort_by_key(|run| run.seed);
    runs
}
