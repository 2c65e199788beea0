//! Writes and reads back one key after another for as long as standard input is open, whatever happens to the cluster. Prints
//! `running`, and at the end one line of JSON (see `../failover.py` for its fields).

use std::error::Error;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::AsyncCommands;
use redis::RedisResult;
use redis::cluster_async::ClusterConnection;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

const TASKS: usize = 4;
const KEYS_PER_TASK: usize = 75;
const EVERY: Duration = Duration::from_millis(50);
const NOTABLE_MS: f64 = 100.0;

/// What is known of one key: its last acknowledged value and the values whose writes failed since (their fate is unknown).
#[derive(Default, Clone)]
struct Known {
    acked: Option<String>,
    maybe: Vec<String>,
}

impl Known {
    fn allows(&self, found: &Option<String>) -> bool {
        *found == self.acked || found.as_ref().is_some_and(|value| self.maybe.contains(value))
    }
}

/// One task's keys and what it saw.
struct Loop {
    connection: ClusterConnection,
    number: usize,
    keys: Vec<Known>,
    calls: u64,
    longest_ms: f64,
    events: Vec<Value>,
    stale: Vec<String>,
    lost: Vec<String>,
}

fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1000.0
}

impl Loop {
    fn new(connection: ClusterConnection, number: usize) -> Self {
        let keys = vec![Known::default(); KEYS_PER_TASK];
        Self {
            connection,
            number,
            keys,
            calls: 0,
            longest_ms: 0.0,
            events: vec![],
            stale: vec![],
            lost: vec![],
        }
    }

    fn key(&self, i: usize) -> String {
        format!("loop:redis-rs:{}:{i}", self.number)
    }

    /// Notes a finished call; failures and slow calls become events.
    fn note(&mut self, at: f64, took: Duration, error: Option<String>) {
        let took_ms = took.as_secs_f64() * 1000.0;
        self.calls += 1;
        self.longest_ms = self.longest_ms.max(took_ms);
        if error.is_some() || took_ms > NOTABLE_MS {
            self.events.push(json!({"at": at, "took_ms": took_ms, "error": error}));
        }
    }

    async fn step(&mut self, turn: usize) {
        let (i, value) = (turn % KEYS_PER_TASK, turn.to_string());
        let key = self.key(i);
        let (at, start) = (now_ms(), Instant::now());
        let written: RedisResult<()> = self.connection.set(&key, &value).await;
        match &written {
            Ok(()) => self.keys[i] = Known { acked: Some(value), maybe: vec![] },
            Err(_) => self.keys[i].maybe.push(value),
        }
        self.note(at, start.elapsed(), written.err().map(|error| error.to_string()));

        let (at, start) = (now_ms(), Instant::now());
        let read: RedisResult<Option<String>> = self.connection.get(&key).await;
        self.note(at, start.elapsed(), read.as_ref().err().map(|error| error.to_string()));
        if let Ok(found) = read
            && !self.keys[i].allows(&found)
        {
            self.stale
                .push(format!("{key}: read {found:?}, acknowledged {:?} ({at:.0})", self.keys[i].acked));
        }
    }

    async fn check(&mut self) -> RedisResult<()> {
        for i in 0..KEYS_PER_TASK {
            let key = self.key(i);
            let found: Option<String> = self.connection.get(&key).await?;
            if !self.keys[i].allows(&found) {
                self.lost.push(format!("{key}: found {found:?}, acknowledged {:?}", self.keys[i].acked));
            }
        }
        Ok(())
    }
}

/// Runs all tasks over one shared connection until standard input ends, then checks every key.
pub async fn run() -> Result<(), Box<dyn Error>> {
    let connection = crate::connect(crate::builder()).await?;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut tasks = JoinSet::new();
    for number in 0..TASKS {
        let mut one = Loop::new(connection.clone(), number);
        one.step(0).await;
        let stopped = stopped.clone();
        tasks.spawn(async move {
            for turn in 1.. {
                if *stopped.borrow() {
                    break;
                }
                one.step(turn).await;
                tokio::time::sleep(EVERY).await;
            }
            one
        });
    }
    println!("running");
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    stop.send(true)?;
    let mut loops = tasks.join_all().await;
    for one in &mut loops {
        one.check().await?;
    }
    println!("{}", report(&loops));
    Ok(())
}

fn report(loops: &[Loop]) -> Value {
    json!({
        "calls": loops.iter().map(|l| l.calls).sum::<u64>(),
        "longest_ms": loops.iter().map(|l| l.longest_ms).fold(0.0, f64::max),
        "events": loops.iter().flat_map(|l| &l.events).collect::<Vec<_>>(),
        "stale": loops.iter().flat_map(|l| &l.stale).collect::<Vec<_>>(),
        "lost": loops.iter().flat_map(|l| &l.lost).collect::<Vec<_>>(),
    })
}
