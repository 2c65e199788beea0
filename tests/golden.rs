//! Golden scripts of the data commands: `tests/golden/*.txt`, requests in, replies out below each.
//!
//! A script runs against an empty keyspace, through the rows and the executor that the server uses, at a moment of
//! virtual time that only `@sleep` moves; so its replies never vary. `UPDATE_GOLDEN=1 cargo test --test golden` writes
//! the replies anew: then read the difference. `tests/golden/differential` plays the same scripts against real servers.
//!
//! ```text
//! # a comment
//! > SET key "a value" EX 10      a request, quoted as redis-cli takes it
//! OK                             its reply, as redis-cli shows it
//! @resp3                         from here in RESP3 (@resp2 goes back)
//! @sleep 9500                    the clock moves on by so many milliseconds
//! @effects                       from here each request is followed by what it did to keys
//! @events                        from here each request is followed by its keyspace notifications
//! @differs why                   Redis answers the next request otherwise, for this reason
//! @unordered                     ... with the same elements in another order
//! @random                        the next reply is another one each time, everywhere but here
//! @near                          ... with a number that may be off by a second
//! ```

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use slotcast::command::error::CommandError;
use slotcast::command::execute::{execute, note_misses};
use slotcast::command::needs::needs;
use slotcast::command::table::rows;
use slotcast::keyspace::Keyspace;
use slotcast::keyspace::effect::{Change, Effect, Everybody};
use slotcast::keyspace::event::Occurrence;
use slotcast::keyspace::locked::Locked;
use slotcast::session::table;
use slotcast_wire::args::{Args, OwnedArgs};
use slotcast_wire::frame::FrameDecoder;
use slotcast_wire::inline;
use slotcast_wire::reply::{Proto, Reply};

/// When scripts begin: 2023-11-14T22:13:20Z.
const START: u64 = 1_700_000_000_000;

/// One script's state.
struct Runner {
    keyspace: Keyspace,
    now: u64,
    seed: u64,
    proto: Proto,
    effects: bool,
    events: bool,
}

impl Runner {
    fn new() -> Self {
        Runner {
            keyspace: Keyspace::new(),
            now: START,
            seed: 0,
            proto: Proto::Resp2,
            effects: false,
            events: false,
        }
    }

    /// Takes a line that begins with `@`. Those for the differential runner mean nothing here.
    fn direct(&mut self, directive: &str) {
        match directive.split(' ').collect::<Vec<_>>()[..] {
            ["@resp2"] => self.proto = Proto::Resp2,
            ["@resp3"] => self.proto = Proto::Resp3,
            ["@effects"] => self.effects = true,
            ["@events"] => self.events = true,
            ["@sleep", millis] => self.now += millis.parse::<u64>().expect("milliseconds"),
            ["@differs", _, ..] | ["@unordered"] | ["@near"] | ["@random"] => {}
            _ => panic!("unknown directive: {directive}"),
        }
    }

    /// Runs a request; the reply's text, and the effects'.
    fn request(&mut self, line: &str) -> String {
        let words = inline::split(line.as_bytes()).unwrap_or_else(|| panic!("unbalanced quotes: {line}"));
        let args: OwnedArgs = words.iter().collect();
        let mut bytes = Vec::new();
        let (effects, events) = self.run(args.as_args(), &mut bytes).unwrap_or_else(|CommandError(text)| {
            Reply::new(&mut bytes, self.proto).error(&text);
            Default::default()
        });
        let (used, frame) = FrameDecoder::default().decode(&bytes).expect("a frame");
        assert_eq!(used, bytes.len(), "one reply for: {line}");
        let mut text = format!("{}\n", frame.expect("a whole frame"));
        for effect in effects.iter().filter(|_| self.effects) {
            writeln!(text, "~ {}", effect_text(effect)).expect("a string takes all");
        }
        for Occurrence { event, key } in events {
            writeln!(text, "! {} {}", event.name, key.escape_ascii()).expect("a string takes all");
        }
        text
    }

    fn run(
        &mut self,
        args: Args<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(Vec<Effect>, Vec<Occurrence>), CommandError> {
        let command = table::resolve(args)?.command;
        let needs = needs(command, args).map_err(|_| CommandError::SYNTAX)?;
        self.seed += 1;
        let mut locked = Locked::new(&self.keyspace, &needs, self.now, self.seed, &Everybody);
        locked.events.note(self.events);
        execute(command, &mut locked, args, &mut Reply::new(out, self.proto));
        note_misses(command, &mut locked, args);
        let effects = locked.effects().to_vec();
        assert!(command.is_write() || effects.is_empty(), "a read changed something");
        Ok((effects, locked.events.take()))
    }
}

fn effect_text(effect: &Effect) -> String {
    match effect {
        Effect::Flushed => "flushed".into(),
        Effect::Key { key, change, .. } => {
            let change = match change {
                Change::Set => "set",
                Change::Removed => "removed",
                Change::Expired => "expired",
                Change::Evicted => "evicted",
            };
            format!("{change} {}", key.escape_ascii())
        }
    }
}

/// The script with the replies it gives now in place of those it has.
fn replayed(script: &str) -> String {
    let mut runner = Runner::new();
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

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let entries = std::fs::read_dir(folder).expect("the folder of scripts");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    paths
}

#[test]
fn scripts_get_the_replies_they_have() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut differences = String::new();
    let scripts = scripts();
    assert!(scripts.len() >= 8, "scripts are missing");
    for path in scripts {
        let script = std::fs::read_to_string(&path).expect("a script");
        let replayed = replayed(&script);
        if update {
            std::fs::write(&path, &replayed).expect("a script written");
        } else if let Some((at, (is, should))) =
            replayed.lines().zip(script.lines()).enumerate().find(|(_, (is, should))| is != should)
        {
            let name = path.file_name().unwrap_or_default().display();
            writeln!(differences, "{name}:{}: expected {should:?}, got {is:?}", at + 1).expect("text");
        } else if replayed.lines().count() != script.lines().count() {
            writeln!(differences, "{}: ends otherwise", path.display()).expect("text");
        }
    }
    assert!(differences.is_empty(), "(UPDATE_GOLDEN=1 rewrites the scripts)\n{differences}");
}

#[test]
fn every_data_command_is_in_a_script() {
    let scripts: String = scripts()
        .iter()
        .map(|path| std::fs::read_to_string(path).expect("a script").to_lowercase())
        .collect();
    let missing: Vec<_> = rows()
        .map(|row| row.name)
        .filter(|name| !scripts.lines().any(|line| line.split(' ').nth(1) == Some(name)))
        .collect();
    assert!(missing.is_empty(), "no script has a request {missing:?}");
}
