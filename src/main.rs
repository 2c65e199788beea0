//! The `slotcast` binary: command line, log, and a node that runs until a signal.
//!
//! Exit codes: 0 after SIGTERM or SIGINT, or when only asked for help; 1 when the configuration is refused or the
//! node cannot start. Errors of the start go to standard error, the log to standard output.

use slotcast::config::Config;
use slotcast::config::flags::{self, Invocation};
use slotcast::config::setting::LogLevel;
use std::process::ExitCode;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match flags::parse(std::env::args_os(), &mut std::io::stdin()) {
        Ok(Invocation::Run(config)) => run(config),
        Ok(Invocation::Checked) => print("the configuration is good\n"),
        Ok(Invocation::Print(text)) => print(&text),
        Err(error) => {
            eprintln!("slotcast: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Unlike `print!`, survives a closed pipe (`slotcast --help | head`).
fn print(text: &str) -> ExitCode {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn run(config: Config) -> ExitCode {
    start_log(&config);
    // Half a node is worse than none: the other nodes take over from a dead one within a second.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    let mode = if config.startup.cluster_enabled { "cluster" } else { "single node" };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        port = config.startup.port,
        mode,
        "slotcast starts"
    );
    match slotcast::node::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("slotcast: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Logs to standard output; CONFIG SET loglevel takes effect at once.
fn start_log(config: &Config) {
    use std::io::IsTerminal;
    let (allowed, level) = reload::Layer::new(filter(config.live().loglevel));
    let lines =
        tracing_subscriber::fmt::layer().with_target(false).with_ansi(std::io::stdout().is_terminal());
    tracing_subscriber::registry().with(allowed).with(lines).init();
    config.on_change(move |live| {
        if let Err(error) = level.reload(filter(live.loglevel)) {
            tracing::warn!(%error, "the log level could not be changed");
        }
    });
}

/// Ours at `level`; the Raft library tells every step of its own and warns of each heartbeat that a dead node does not
/// answer, so of it only errors: who answers, leads and follows is told by our own rooms.
fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Debug => LevelFilter::TRACE,
        LogLevel::Verbose => LevelFilter::DEBUG,
        LogLevel::Notice => LevelFilter::INFO,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Nothing => LevelFilter::OFF,
    };
    let theirs = if level == LevelFilter::TRACE { LevelFilter::DEBUG } else { level.min(LevelFilter::ERROR) };
    Targets::new().with_default(level).with_target(slotcast::raft::LOG_TARGET, theirs)
}
