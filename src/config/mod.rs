//! The configuration: redis.conf's syntax and names, one table of directives, typed settings.
//!
//! ```text
//! file ─ syntax ─┐                          ┌ Startup   fixed while the node runs
//!                ├ table (a row a directive) ┤
//! flags ─────────┘                          └ Live      CONFIG SET replaces it whole
//! ```
//!
//! A later setting of the same directive wins, and flags win over the file. [`Live`] is one immutable value behind an
//! `ArcSwap`: CONFIG SET with several pairs is atomic because a reader sees the old one or the new one, and readers
//! take no lock. Nothing here knows what a setting is for; rooms that must act at the moment of a change subscribe
//! with [`Config::on_change`]. CONFIG REWRITE is deliberately absent: the file is the operator's, the same on every node.

pub mod field;
pub mod flags;
pub mod notify;
pub mod setting;
pub mod syntax;
pub mod table;

use crate::config::setting::{Live, Startup};
use crate::config::syntax::Origin;
use crate::config::table::{DIRECTIVES, Directive, Value};
use crate::glob;
use arc_swap::{ArcSwap, Cache, Guard};
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;

/// A node's configuration. Shared as `Arc<Config>`.
pub struct Config {
    /// What stays as it was at the start.
    pub startup: Startup,
    live: Arc<ArcSwap<Live>>,
    /// Called after each CONFIG SET; the lock also keeps two CONFIG SETs apart.
    watchers: Mutex<Vec<Watcher>>,
}

type Watcher = Box<dyn Fn(&Live) + Send>;

/// A reader's own handle to [`Live`], for the hot path: a load is one relaxed read while nothing changes.
pub type LiveCache = Cache<Arc<ArcSwap<Live>>, Arc<Live>>;

/// Why the configuration is refused: where, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// `None`: no single line is to blame.
    pub origin: Option<Origin>,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{origin}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Why CONFIG SET is refused; prints as the error reply without its `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetError {
    /// No such directive.
    Unknown(String),
    /// The directive and the reason.
    Refused(String, String),
}

impl fmt::Display for SetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetError::Unknown(name) => {
                write!(f, "ERR Unknown option or number of arguments for CONFIG SET - '{name}'")
            }
            SetError::Refused(name, reason) => {
                write!(f, "ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}")
            }
        }
    }
}

/// One setting as written: the first word names the directive.
pub struct Line {
    origin: Origin,
    words: Vec<String>,
}

impl Config {
    /// Defaults, then `lines` in order, then the checks that look at several settings together.
    pub fn from_lines(lines: &[Line]) -> Result<Config, ConfigError> {
        let (mut startup, mut live) = (Startup::default(), Live::default());
        for row in DIRECTIVES {
            let default = syntax::words(row.default).unwrap_or_default();
            let default: Vec<&str> = default.iter().map(String::as_str).collect();
            if let Err(reason) = row.read(&mut startup, &mut live, &default) {
                debug_assert!(false, "the default of {} is refused: {reason}", row.name);
            }
        }
        for line in lines {
            read_line(line, &mut startup, &mut live)?;
        }
        check(&startup, &live).map_err(|message| ConfigError { origin: None, message })?;
        Ok(Config::new(startup, live))
    }

    /// Reads the text of a configuration file; `file` is its name in error messages.
    pub fn from_text(file: &str, text: &str) -> Result<Config, ConfigError> {
        Config::from_lines(&lines(file, text)?)
    }

    fn new(startup: Startup, live: Live) -> Config {
        Config { startup, live: Arc::new(ArcSwap::from_pointee(live)), watchers: Mutex::default() }
    }

    /// The settings that CONFIG SET may change, as they are now. Don't keep the guard: take it anew for each use.
    pub fn live(&self) -> Guard<Arc<Live>> {
        self.live.load()
    }

    /// A cached handle to the same, for a thread that asks often.
    pub fn live_cache(&self) -> LiveCache {
        Cache::new(Arc::clone(&self.live))
    }

    /// Calls `watcher` after every CONFIG SET that changed something. It must be quick and must not call CONFIG SET.
    pub fn on_change(&self, watcher: impl Fn(&Live) + Send + 'static) {
        self.watchers.lock().push(Box::new(watcher));
    }

    /// CONFIG GET: names and values of the directives that match any pattern, each once, in the table's order.
    pub fn matching(&self, patterns: &[impl AsRef<[u8]>]) -> Vec<(&'static str, String)> {
        let (mut startup, mut live) = (self.startup.clone(), Live::clone(&self.live()));
        let asked = |row: &&Directive| {
            patterns.iter().any(|pattern| glob::matches_ignore_case(pattern.as_ref(), row.name.as_bytes()))
        };
        DIRECTIVES.iter().filter(asked).map(|row| (row.name, row.print(&mut startup, &mut live))).collect()
    }

    /// CONFIG SET: all pairs or none.
    pub fn set(&self, pairs: &[(impl AsRef<[u8]>, impl AsRef<[u8]>)]) -> Result<(), SetError> {
        let watchers = self.watchers.lock();
        let before = self.live.load_full();
        let mut live = Live::clone(&before);
        let mut seen: Vec<&str> = Vec::new();
        for (name, value) in pairs {
            let name = String::from_utf8_lossy(name.as_ref()).into_owned();
            let row = table::find(&name).ok_or_else(|| SetError::Unknown(name.clone()))?;
            let refused = |reason: String| SetError::Refused(name.clone(), reason);
            if seen.contains(&row.name) {
                return Err(refused("duplicate parameter".to_owned()));
            }
            seen.push(row.name);
            self.set_one(row, value.as_ref(), &mut live).map_err(refused)?;
        }
        if live != *before {
            self.live.store(Arc::new(live));
            let live = self.live.load();
            watchers.iter().for_each(|watcher| watcher(&live));
        }
        Ok(())
    }

    fn set_one(&self, row: &Directive, value: &[u8], live: &mut Live) -> Result<(), String> {
        let value = std::str::from_utf8(value).map_err(|_| "argument must be UTF-8 text".to_owned())?;
        let words: Vec<&str> = if row.many() { value.split(' ').collect() } else { vec![value] };
        match row.value {
            Value::Startup(_) => Err("can't set immutable config".to_owned()),
            Value::Live(_) | Value::Fixed => row.read(&mut self.startup.clone(), live, &words),
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config::from_lines(&[]).unwrap_or_else(|_| Config::new(Startup::default(), Live::default()))
    }
}

/// Splits the text of a file into settings, without looking at what they mean.
pub fn lines(file: &str, text: &str) -> Result<Vec<Line>, ConfigError> {
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let origin = Origin::Line(file.to_owned(), index + 1);
        match syntax::words(line) {
            Ok(words) if words.is_empty() => {}
            Ok(words) => lines.push(Line { origin, words }),
            Err(reason) => {
                return Err(ConfigError {
                    origin: Some(origin),
                    message: format!("'{}': {reason}", line.trim()),
                });
            }
        }
    }
    Ok(lines)
}

fn read_line(line: &Line, startup: &mut Startup, live: &mut Live) -> Result<(), ConfigError> {
    let error = |message| ConfigError { origin: Some(line.origin.clone()), message };
    let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
    let Some((name, values)) = words.split_first() else { return Ok(()) };
    let Some(row) = table::find(name) else {
        let hint = table::nearest(name).map_or_else(
            || "cluster.conf and --help list the directives".to_owned(),
            |near| format!("did you mean '{near}'?"),
        );
        return Err(error(format!("unknown directive '{name}'; {hint}")));
    };
    row.read(startup, live, values).map_err(|reason| {
        let written =
            if row.name == "requirepass" { String::new() } else { format!(" {}", values.join(" ")) };
        error(format!("'{}{written}': {reason}; expected {}", row.name, row.expects()))
    })
}

/// What no single line can get wrong.
fn check(startup: &Startup, live: &Live) -> Result<(), String> {
    if startup.bind.is_empty() {
        return Err("bind: no address to listen on".to_owned());
    }
    let open = startup.bind.iter().find(|bind| !bind.address.is_loopback());
    if let Some(open) = open
        && startup.protected_mode
        && live.requirepass.is_empty()
    {
        return Err(format!(
            "bind {open} opens this node to other machines without a password: set requirepass, or \
             protected-mode no if the network is closed"
        ));
    }
    if startup.cluster_enabled { check_cluster(startup) } else { Ok(()) }
}

fn check_cluster(startup: &Startup) -> Result<(), String> {
    let seeds = &startup.cluster_seeds;
    if seeds.is_empty() {
        return Err(
            "cluster-enabled yes needs cluster-seeds: the host:port of every node of the cluster".to_owned()
        );
    }
    if let Some(twice) = seeds.iter().enumerate().find(|(at, seed)| seeds[..*at].contains(seed)) {
        return Err(format!("cluster-seeds: {} is there twice", twice.1));
    }
    if startup.port == 0 {
        return Err("port 0 is for single-node mode: the other nodes must know the port".to_owned());
    }
    if startup.cluster_port == 0 && startup.port.checked_add(setting::BUS_PORT_OFFSET).is_none() {
        return Err("port: too high for cluster mode, where port + 10000 is the node bus; set cluster-port"
            .to_owned());
    }
    if startup.cluster_election_timeout < startup.cluster_heartbeat_interval * 2 {
        return Err("cluster-election-timeout must be at least twice cluster-heartbeat-interval".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::setting::{Address, EvictionPolicy};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    fn refused(text: &str) -> String {
        Config::from_text("x.conf", text).err().expect("should be refused").to_string()
    }

    #[test]
    fn every_default_is_accepted_and_set() {
        let config = Config::default();
        assert_eq!(config.startup.port, 6379);
        assert_eq!(config.startup.bus_port(), 16379);
        assert_eq!(config.live().cluster_park_timeout, Duration::from_millis(2000));
        assert_eq!(config.live().upkeep_interval(), Duration::from_millis(100));
        for row in DIRECTIVES {
            let default = syntax::words(row.default).expect("quotes");
            let default: Vec<&str> = default.iter().map(String::as_str).collect();
            let read = row.read(&mut Startup::default(), &mut Live::default(), &default);
            assert_eq!(read, Ok(()), "{}", row.name);
        }
    }

    #[test]
    fn printed_values_read_back() {
        let config = Config::default();
        let (mut startup, mut live) = (Startup::default(), Live::default());
        for (name, value) in config.matching(&["*"]) {
            let row = table::find(name).expect("a row");
            let words: Vec<&str> = if row.many() { value.split(' ').collect() } else { vec![&value] };
            assert_eq!(row.read(&mut startup, &mut live, &words), Ok(()), "{name} {value}");
        }
        assert_eq!((startup, &live), (config.startup.clone(), &**config.live()));
    }

    #[test]
    fn reads_a_file() {
        let text =
            "# three nodes\nCluster-Enabled yes\ncluster-seeds a:1 b:2\n\nmaxmemory 1gb\nmaxmemory 2gb\n";
        let config = Config::from_text("x.conf", text).expect("good");
        let seeds = [Address { host: "a".into(), port: 1 }, Address { host: "b".into(), port: 2 }];
        assert_eq!(config.startup.cluster_seeds, seeds);
        assert_eq!((config.startup.shards(), config.startup.copies()), (2, 2));
        assert_eq!(config.live().maxmemory, 2 << 30);
    }

    #[test]
    fn errors_say_where_and_what_was_expected() {
        assert_eq!(
            refused("\nmaxmemory 12x"),
            "x.conf:2: 'maxmemory 12x': argument must be a memory value; expected a size such as 1gb, 64mb or 100k"
        );
        assert_eq!(
            refused("maxmemroy 1gb"),
            "x.conf:1: unknown directive 'maxmemroy'; did you mean 'maxmemory'?"
        );
        assert_eq!(refused("port \"70"), "x.conf:1: 'port \"70': unbalanced quotes");
        assert_eq!(
            refused("port"),
            "x.conf:1: 'port ': wrong number of arguments; expected a port, 0 to 65535"
        );
        assert!(!refused("requirepass secret words").contains("secret"));
        assert!(refused("databases 16").starts_with("x.conf:1: 'databases 16': can't set immutable config"));
    }

    #[test]
    fn settings_are_checked_together() {
        assert!(refused("bind *").contains("requirepass"));
        assert!(Config::from_text("x", "bind *\nrequirepass s").is_ok());
        assert!(refused("cluster-enabled yes").contains("cluster-seeds"));
        assert!(refused("cluster-enabled yes\ncluster-seeds a:1 a:1").contains("twice"));
        assert!(refused("cluster-enabled yes\ncluster-seeds a:1\nport 60000").contains("cluster-port"));
    }

    #[test]
    fn get_takes_patterns_and_answers_each_directive_once() {
        let config = Config::default();
        let names =
            |patterns: &[&str]| -> Vec<_> { config.matching(patterns).into_iter().map(|x| x.0).collect() };
        assert_eq!(
            names(&["maxmemory*", "MAXMEMORY"]),
            ["maxmemory", "maxmemory-policy", "maxmemory-samples"]
        );
        assert_eq!(names(&["nosuch"]), Vec::<&str>::new());
        assert_eq!(
            config.matching(&["save", "appendonly"]),
            [("save", "".into()), ("appendonly", "no".into())]
        );
    }

    #[test]
    fn set_changes_all_or_nothing() {
        let config = Config::default();
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        config.on_change(move |live| {
            assert_eq!(live.maxmemory, 1 << 20);
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let error = config.set(&[("maxmemory", "5mb"), ("timeout", "-1")]).expect_err("bad");
        assert_eq!(
            error.to_string(),
            "ERR CONFIG SET failed (possibly related to argument 'timeout') - argument must be between 0 and \
             2147483647 inclusive"
        );
        assert_eq!((config.live().maxmemory, calls.load(Ordering::Relaxed)), (0, 0));

        config.set(&[("MAXMEMORY", "1mb"), ("maxmemory-policy", "allkeys-lru")]).expect("good");
        assert_eq!(config.live().maxmemory_policy, EvictionPolicy::AllKeysLru);
        assert_eq!((config.live_cache().load().maxmemory, calls.load(Ordering::Relaxed)), (1 << 20, 1));
    }

    #[test]
    fn set_refuses_as_redis_does() {
        let config = Config::default();
        let refusal = |pairs: &[(&str, &str)]| config.set(pairs).expect_err("bad").to_string();
        assert_eq!(
            refusal(&[("nosuch", "1")]),
            "ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'"
        );
        assert!(refusal(&[("port", "1")]).ends_with("'port') - can't set immutable config"));
        assert!(refusal(&[("hz", "1"), ("hz", "2")]).ends_with("'hz') - duplicate parameter"));
        assert!(refusal(&[("save", "900 1")]).ends_with("can't set immutable config"));
        assert_eq!(config.set(&[("save", ""), ("appendonly", "no")]), Ok(()));
        assert!(config.set(&[(&b"requirepass"[..], &b"\xff"[..])]).is_err());
        let limits = [("client-output-buffer-limit", "normal 0 0 0")];
        assert_eq!(config.set(&limits), Ok(()));
        assert_eq!(config.live().client_output_buffer_limit.normal.hard, 0);
    }

    #[test]
    fn cluster_conf_explains_every_directive() {
        let text = include_str!("../../cluster.conf");
        let config = Config::from_text("cluster.conf", text).expect("cluster.conf is good");
        assert_eq!(config.startup.cluster_seeds.len(), 3);
        for row in DIRECTIVES {
            let shown = text.lines().enumerate().find(|(_, line)| {
                let line = line.strip_prefix('#').unwrap_or(line);
                line.strip_prefix(row.name).is_some_and(|rest| rest.starts_with(' '))
            });
            let (at, _) = shown.unwrap_or_else(|| panic!("cluster.conf does not show {}", row.name));
            let explained = text.lines().take(at).last().is_some_and(|line| line.starts_with("# "));
            assert!(
                explained,
                "cluster.conf line {}: {} stands without a comment above it",
                at + 1,
                row.name
            );
        }
    }
}
