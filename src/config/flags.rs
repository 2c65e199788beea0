//! The command line: `slotcast [FILE] [--directive value …]`, as redis-server takes it. Every directive is a flag,
//! built from its row. Reads the file; prints nothing and ends nothing.

use crate::config::syntax::{self, Origin};
use crate::config::table::{DIRECTIVES, Directive};
use crate::config::{Config, ConfigError, Line, lines};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::ffi::OsString;
use std::io::Read;

/// What the command line asks for.
pub enum Invocation {
    /// Start a node.
    Run(Config),
    /// The configuration is good; say so and end (`--check-config`).
    Checked,
    /// Print this and end (`--help`, `--version`).
    Print(String),
}

/// Longest configuration read, in bytes; a longer one is a mistake (a device, a data file).
const LONGEST_FILE: u64 = 1 << 20;

/// Reads the arguments (the program's name first) and the file they name; `stdin` stands for the file `-`.
pub fn parse<A: Into<OsString> + Clone>(
    arguments: impl IntoIterator<Item = A>,
    stdin: &mut dyn Read,
) -> Result<Invocation, ConfigError> {
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) if !error.use_stderr() => return Ok(Invocation::Print(error.to_string())),
        Err(error) => {
            let text = error.to_string();
            let message = text.trim_start_matches("error: ").trim_end().to_owned();
            return Err(ConfigError { origin: None, message });
        }
    };
    let mut settings = match matches.get_one::<String>(FILE) {
        Some(file) => read_file(file, stdin)?,
        None => Vec::new(),
    };
    settings.extend(DIRECTIVES.iter().flat_map(|row| flag_lines(row, &matches)));
    let config = Config::from_lines(&settings)?;
    Ok(if matches.get_flag(CHECK) { Invocation::Checked } else { Invocation::Run(config) })
}

const FILE: &str = "FILE";
const CHECK: &str = "check-config";

fn command() -> Command {
    let command = Command::new("slotcast")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A cache cluster that speaks the Redis protocol.")
        .after_help("Flags win over the file. cluster.conf explains every directive.")
        .arg(Arg::new(FILE).help("Configuration in the syntax of redis.conf; - reads standard input"))
        .arg(
            Arg::new(CHECK)
                .long(CHECK)
                .action(ArgAction::SetTrue)
                .help("Read and check the configuration, start nothing"),
        );
    command.args(DIRECTIVES.iter().map(flag))
}

fn flag(row: &'static Directive) -> Arg {
    let flag = Arg::new(row.name).long(row.name).action(ArgAction::Append).allow_negative_numbers(true);
    let flag = flag.help(format!("{} [{}; default: {}]", row.doc, row.expects(), row.default));
    if row.many() { flag.value_name("WORD").num_args(1..) } else { flag.value_name("VALUE").num_args(1) }
}

/// Each use of a directive's flag as a line of a file. Words given as one argument (`--bind "* ::*"`) are split as
/// redis-server splits them.
fn flag_lines(row: &'static Directive, matches: &ArgMatches) -> Vec<Line> {
    let Some(uses) = matches.get_occurrences::<String>(row.name) else { return Vec::new() };
    let line = |values: &mut dyn Iterator<Item = &String>| {
        let mut words = vec![row.name.to_owned()];
        for value in values {
            match syntax::words(value) {
                Ok(split) if row.many() && !split.is_empty() => words.extend(split),
                _ => words.push(value.clone()),
            }
        }
        Line { origin: Origin::Flag(row.name), words }
    };
    uses.map(|mut values| line(&mut values)).collect()
}

fn read_file(file: &str, stdin: &mut dyn Read) -> Result<Vec<Line>, ConfigError> {
    let mut text = String::new();
    let (name, read) = if file == "-" {
        ("<stdin>", stdin.take(LONGEST_FILE).read_to_string(&mut text))
    } else {
        let read = std::fs::File::open(file).and_then(|f| f.take(LONGEST_FILE).read_to_string(&mut text));
        (file, read)
    };
    match read {
        Ok(size) if size as u64 == LONGEST_FILE => Err(ConfigError {
            origin: None,
            message: format!("{name}: larger than 1 MiB; not a configuration file"),
        }),
        Ok(_) => lines(name, &text),
        Err(error) => Err(ConfigError { origin: None, message: format!("cannot read {name}: {error}") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str], stdin: &str) -> Result<Invocation, ConfigError> {
        parse([&["slotcast"], arguments].concat(), &mut stdin.as_bytes())
    }

    fn config(arguments: &[&str], stdin: &str) -> Config {
        match run(arguments, stdin).expect("good") {
            Invocation::Run(config) => config,
            _ => panic!("expected a run"),
        }
    }

    fn refused(arguments: &[&str], stdin: &str) -> String {
        run(arguments, stdin).err().expect("should be refused").to_string()
    }

    #[test]
    fn flags_win_over_the_file() {
        let config = config(&["-", "--port", "7002", "--maxmemory", "1gb"], "port 7001\ntimeout 5\n");
        assert_eq!(config.startup.port, 7002);
        assert_eq!(config.live().maxmemory, 1 << 30);
        assert_eq!(config.live().timeout.as_secs(), 5);
    }

    #[test]
    fn flags_take_several_words_and_empty_ones() {
        let config = config(
            &[
                "--save",
                "",
                "--cluster-seeds",
                "a:1",
                "b:2",
                "--bind",
                "127.0.0.1 -::1",
                "--client-output-buffer-limit",
                "pubsub 1 1 1",
                "--client-output-buffer-limit",
                "normal",
                "2",
                "2",
                "2",
            ],
            "",
        );
        assert_eq!((config.startup.cluster_seeds.len(), config.startup.bind.len()), (2, 2));
        let limits = config.live().client_output_buffer_limit;
        assert_eq!((limits.pubsub.hard, limits.normal.hard), (1, 2));
    }

    #[test]
    fn errors_name_the_flag_the_line_or_the_nearest_name() {
        assert_eq!(
            refused(&["--port", "x"], ""),
            "--port: 'port x': argument couldn't be parsed into an integer; expected a port, 0 to 65535"
        );
        assert!(refused(&["--timeout", "-1"], "").contains("between 0 and"));
        assert!(
            refused(&["-"], "prot 1")
                .starts_with("<stdin>:1: unknown directive 'prot'; did you mean 'port'?")
        );
        assert!(refused(&["--prot", "1"], "").contains("--port"));
        assert!(refused(&["no-such.conf"], "").starts_with("cannot read no-such.conf"));
    }

    #[test]
    fn asks_that_start_nothing() {
        assert!(matches!(run(&["--check-config"], ""), Ok(Invocation::Checked)));
        assert!(run(&["--check-config", "--port", "x"], "").is_err());
        let Ok(Invocation::Print(help)) = run(&["--help"], "") else { panic!("no help") };
        for row in DIRECTIVES {
            assert!(help.contains(&format!("--{} ", row.name)), "{}", row.name);
        }
        let Ok(Invocation::Print(version)) = run(&["--version"], "") else { panic!("no version") };
        assert_eq!(version.trim(), format!("slotcast {}", env!("CARGO_PKG_VERSION")));
    }
}
