//! House rules that no compiler checks, read from the sources: who may import whom, how long a function may be, what
//! nothing may be called. A finding names file, line and rule. rustfmt's layout is relied upon: a function ends at
//! the brace that stands where it began.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms by floor, lowest first. A room imports from floors below its own only.
const FLOORS: &[&[&str]] = &[
    &["broken", "codec", "glob", "id", "metrics", "time"],
    &["bus", "config", "keyspace", "topology", "wal"],
    &["command", "pubsub", "raft", "tracking"],
    &["meta", "session", "shard"],
    &["server"],
    &["node"],
    &["main"],
];

/// Rooms that may name `tokio::net`. All others are told what arrived and say what to send.
const SOCKET_ROOMS: &[&str] = &["bus", "server", "node", "main"];

/// Files that may hold `unsafe`: each argues its safety and has its tests at the foot.
const UNSAFE_FILES: &[&str] = &["src/keyspace/record.rs"];

const LONGEST_FILE: usize = 400;
const LONGEST_FUNCTION: usize = 70;

/// Words that say nothing, in names of types, functions and modules.
const BANNED_WORDS: &[&str] = &[
    "common", "data", "handler", "helper", "helpers", "info", "manager", "process", "slave", "util", "utils",
];

/// Where a banned word is the protocol's own.
const PROTOCOL_WORDS: &[(&str, &str)] = &[("src/session/", "info"), ("src/command/", "info")];

/// A source file, with its tests (below the first `#[cfg(test)]`) told apart.
struct Source {
    path: String,
    lines: Vec<String>,
    code_lines: usize,
}

impl Source {
    fn new(path: &str, text: &str) -> Source {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let tests = lines.iter().position(|line| line.starts_with("#[cfg(test)]"));
        Source { path: path.to_owned(), code_lines: tests.unwrap_or(lines.len()), lines }
    }

    /// The top-level module a file of `src/` belongs to.
    fn room(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        let room = inside.split('/').next()?;
        Some(room.strip_suffix(".rs").unwrap_or(room)).filter(|room| *room != "lib")
    }

    /// Every line but comments, numbered from 1.
    fn statements(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.lines.iter().enumerate().map(|(index, line)| (index + 1, line.as_str()));
        numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// The same without the tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.statements().take_while(|(number, _)| *number <= self.code_lines)
    }

    fn finding(&self, line: usize, rule: impl AsRef<str>) -> String {
        format!("{}:{line}: {}", self.path, rule.as_ref())
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.map(|entry| entry.expect("a readable folder").path()) {
        let name = entry.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if entry.is_dir() && !["target", "node_modules", ".venv"].contains(&name.as_str()) {
            files_below(&entry, found);
        } else if name.ends_with(".rs") {
            found.push(entry);
        }
    }
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let mut paths = Vec::new();
    folders.iter().for_each(|folder| files_below(&root().join(folder), &mut paths));
    paths.sort();
    let source = |path: &PathBuf| {
        let text = fs::read_to_string(path).expect("a readable source");
        let name = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
        Source::new(&name, &text)
    };
    paths.iter().map(source).collect()
}

/// The server and the crates beside it: what the rules of design are about.
fn product() -> Vec<Source> {
    let sources = sources(&["src", "crates"]);
    assert!(sources.len() > 20, "tidy does not find the sources");
    sources.into_iter().filter(|source| !source.path.contains("/fuzz/")).collect()
}

#[track_caller]
fn assert_clean(findings: impl IntoIterator<Item = String>) {
    let findings: Vec<String> = findings.into_iter().collect();
    assert!(findings.is_empty(), "\n{}\n{} finding(s)\n", findings.join("\n"), findings.len());
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// The identifiers that follow each occurrence of `prefix`.
fn names_after<'a>(line: &'a str, prefix: &str) -> Vec<&'a str> {
    let name =
        |rest: &'a str| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
    line.match_indices(prefix).map(|(at, _)| name(&line[at + prefix.len()..])).collect()
}

fn upward_imports(source: &Source) -> Vec<String> {
    let Some(room) = source.room() else { return Vec::new() };
    let Some(own) = floor(room) else {
        return vec![source.finding(1, format!("room `{room}` has no floor: give it one in tests/tidy.rs"))];
    };
    let prefix = if room == "main" { "slotcast::" } else { "crate::" };
    let mut findings = Vec::new();
    for (number, line) in source.statements() {
        for other in names_after(line, prefix).into_iter().filter(|other| *other != room) {
            match floor(other) {
                None => findings
                    .push(source.finding(number, "write the full path: `use crate::room::module::Name`")),
                Some(theirs) if theirs >= own => findings.push(source.finding(
                    number,
                    format!(
                        "`{room}` (floor {}) imports `{other}` (floor {}): imports point downward only",
                        own + 1,
                        theirs + 1
                    ),
                )),
                Some(_) => {}
            }
        }
    }
    findings
}

#[test]
fn imports_point_downward() {
    assert_clean(product().iter().filter(|source| source.path.starts_with("src/")).flat_map(upward_imports));
}

/// Files of a room that import each other in a circle, as one finding a circle.
fn circles(sources: &[Source]) -> Vec<String> {
    let module = |source: &Source| {
        let path = source.path.strip_prefix("src/").and_then(|path| path.strip_suffix(".rs"));
        path.map(|path| path.strip_suffix("/mod").unwrap_or(path).replace('/', "::"))
    };
    let names: BTreeSet<String> = sources.iter().filter_map(module).collect();
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources {
        let Some(own) = module(source) else { continue };
        for (_, line) in source.code() {
            for path in line.match_indices("crate::").map(|(at, _)| &line[at + "crate::".len()..]) {
                let end =
                    path.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(path.len());
                let full = path[..end].trim_end_matches(':').to_owned();
                let parent = full.rsplit_once("::").map(|(parent, _)| parent.to_owned());
                let target = Some(full).filter(|full| names.contains(full)).or(parent);
                if let Some(target) = target.filter(|target| *target != own && names.contains(target)) {
                    imports.entry(own.clone()).or_default().insert(target);
                }
            }
        }
    }
    let reached = |from: &String| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(next) = open.pop() {
            open.extend(
                imports.get(next).into_iter().flatten().filter(|target| seen.insert((*target).clone())),
            );
        }
        seen
    };
    let circle = |name: &String| {
        let others: Vec<String> =
            reached(name).into_iter().filter(|other| reached(other).contains(name)).collect();
        (!others.is_empty()).then(|| format!("modules import each other in a circle: {}", others.join(", ")))
    };
    names.iter().filter_map(circle).collect::<BTreeSet<String>>().into_iter().collect()
}

#[test]
fn modules_form_no_circles() {
    assert_clean(circles(&product()));
}

fn foreign_names(source: &Source) -> Vec<String> {
    let room = source.room().unwrap_or("a crate");
    let served = source.path.starts_with("src/"); // the crates beside it are clients, or wire
    let mut findings = Vec::new();
    for (number, line) in source.statements() {
        if line.contains("openraft") && room != "raft" {
            findings.push(source.finding(number, "only src/raft names openraft"));
        }
        if served && line.contains("tokio::net") && !SOCKET_ROOMS.contains(&room) {
            findings.push(
                source.finding(
                    number,
                    format!("`{room}` knows no sockets: tokio::net is for {SOCKET_ROOMS:?}"),
                ),
            );
        }
        if line.contains("tokio") && source.path.starts_with("crates/wire/src") {
            findings.push(source.finding(number, "the wire crate does no I/O"));
        }
        if line.trim_start().starts_with("pub use ") {
            findings.push(source.finding(number, "no `pub use`: a path names the room it comes from"));
        }
        let unsafe_code = names_after(line, "unsafe").first() == Some(&"") && !line.contains("unsafe_");
        if unsafe_code && !UNSAFE_FILES.contains(&source.path.as_str()) {
            findings.push(source.finding(number, format!("unsafe belongs into {UNSAFE_FILES:?} only")));
        }
    }
    findings
}

#[test]
fn each_room_names_only_what_it_may() {
    assert_clean(product().iter().flat_map(foreign_names));
}

fn long_functions(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for (number, line) in
        source.code().filter(|(_, line)| declared(line).is_some_and(|(kind, _)| kind == "fn"))
    {
        let indent = &line[..line.len() - line.trim_start().len()];
        let end = format!("{indent}}}");
        let length =
            source.lines[number - 1..].iter().position(|line| *line == end).map_or(1, |lines| lines + 1);
        let one_line = line.ends_with('}') || line.ends_with(';');
        if length > LONGEST_FUNCTION && !one_line {
            findings.push(
                source.finding(number, format!("{length} lines: a function has at most {LONGEST_FUNCTION}")),
            );
        }
    }
    findings
}

fn size(source: &Source) -> Vec<String> {
    let mut findings = long_functions(source);
    if source.code_lines > LONGEST_FILE {
        let lines = source.code_lines;
        findings.push(
            source.finding(1, format!("{lines} lines without tests: a file has at most {LONGEST_FILE}")),
        );
    }
    if !source.lines.first().is_some_and(|line| line.starts_with("//!")) {
        findings
            .push(source.finding(1, "a module opens with `//!`: what it is, why so, what it does not know"));
    }
    findings
}

#[test]
fn files_and_functions_are_short_and_modules_introduced() {
    assert_clean(product().iter().flat_map(size));
}

/// What a line declares: the keyword and the name.
fn declared(line: &str) -> Option<(&'static str, &str)> {
    let mut rest = line.trim_start();
    if rest.starts_with("pub(") {
        rest = rest.split_once(") ").map_or("", |(_, rest)| rest);
    }
    for qualifier in ["pub ", "default ", "const ", "async ", "unsafe ", "extern \"C\" "] {
        rest = rest.strip_prefix(qualifier).unwrap_or(rest);
    }
    let kinds = ["fn", "struct", "enum", "trait", "type", "mod"];
    let declares = |kind: &&str| rest.strip_prefix(*kind).is_some_and(|rest| rest.starts_with(' '));
    let kind = kinds.into_iter().find(declares)?;
    Some((kind, names_after(rest, " ").first().copied().unwrap_or_default()))
}

/// `read_line` and `ReadLine` as their words, in lower case.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in name.chars() {
        if c == '_' || c.is_uppercase() {
            words.push(String::new());
        }
        words.last_mut().expect("never empty").extend(c.to_lowercase().filter(|c| *c != '_'));
    }
    words.retain(|word| !word.is_empty());
    words
}

fn bad_name(source: &Source, kind: &str, name: &str) -> Option<String> {
    let protocols = |word: &str| {
        PROTOCOL_WORDS.iter().any(|(folder, own)| source.path.starts_with(folder) && *own == word)
    };
    let banned = |word: &String| BANNED_WORDS.contains(&word.as_str()) && !protocols(word);
    if let Some(word) = words(name).into_iter().find(banned) {
        return Some(format!("{kind} `{name}`: `{word}` says nothing; name what it does"));
    }
    (kind == "fn" && name.starts_with("get_")).then(|| format!("fn `{name}`: no `get_` prefix"))
}

/// Whether line `number` stands in an `impl Trait for Type`: its names are the trait's, chosen elsewhere.
fn named_by_a_trait(source: &Source, number: usize) -> bool {
    let mut before = source.lines[..number - 1].iter().rev();
    let opens = |line: &&String| line.starts_with("impl") || line.starts_with('}');
    before.find(opens).is_some_and(|line| line.starts_with("impl") && line.contains(" for "))
}

fn bad_names(source: &Source) -> Vec<String> {
    let chosen_here = |number: &usize| !named_by_a_trait(source, *number);
    let declared = source.code().filter_map(|(number, line)| Some((number, declared(line)?)));
    let declared = declared.filter(|(number, _)| chosen_here(number));
    let bad = |(number, (kind, name))| Some(source.finding(number, bad_name(source, kind, name)?));
    let mut findings: Vec<String> = declared.filter_map(bad).collect();
    let stem = Path::new(&source.path).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    findings.extend(stem.and_then(|stem| bad_name(source, "mod", &stem)).map(|rule| source.finding(1, rule)));
    findings
}

#[test]
fn names_say_something() {
    assert_clean(product().iter().flat_map(bad_names));
}

#[test]
fn nothing_is_left_for_later() {
    let later = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
    let found = |source: Source| {
        let lines = source.lines.iter().enumerate();
        let left = lines.filter(|(_, line)| later.iter().any(|word| line.contains(word)));
        left.map(|(index, _)| source.finding(index + 1, "do it, or write an issue")).collect::<Vec<_>>()
    };
    assert_clean(sources(&["src", "crates", "tests", "benches", "examples"]).into_iter().flat_map(found));
}

/// Dependencies of a Cargo.toml that do not say why they are there.
fn unexplained(path: &str, text: &str) -> Vec<String> {
    let source = Source::new(path, text);
    let mut inside = false;
    let mut findings = Vec::new();
    for (index, line) in source.lines.iter().enumerate() {
        if line.starts_with('[') {
            inside = line.contains("dependencies");
        } else if inside && line.contains(" = ") && !line.contains("# ") && !line.starts_with('#') {
            findings.push(source.finding(index + 1, "a dependency says in a comment why it is there"));
        }
    }
    findings
}

#[test]
fn dependencies_say_why() {
    let mut crates: Vec<PathBuf> = vec![root()];
    let members = fs::read_dir(root().join("crates")).expect("crates/");
    crates.extend(members.map(|member| member.expect("a folder").path()));
    assert_clean(crates.iter().flat_map(|folder| {
        let path = folder.join("Cargo.toml");
        let text = fs::read_to_string(&path).unwrap_or_default();
        unexplained(&path.to_string_lossy(), &text)
    }));
}

/// The rules themselves: each must be able to fail.
mod rules {
    use super::*;

    #[test]
    fn floors() {
        let findings = |path: &str, text: &str| upward_imports(&Source::new(path, text)).len();
        assert_eq!(
            findings(
                "src/keyspace/slot.rs",
                "use crate::time::Millis;\nuse crate::keyspace::record::Record;"
            ),
            0
        );
        assert_eq!(findings("src/keyspace/slot.rs", "use crate::shard::machine::Machine;"), 1);
        assert_eq!(findings("src/shard/machine.rs", "    let x = crate::meta::controller::plan();"), 1);
        assert_eq!(findings("src/shard/machine.rs", "// crate::meta is not known here"), 0);
        assert_eq!(findings("src/shard/machine.rs", "use crate::{id, time};"), 1);
        assert_eq!(findings("src/main.rs", "use slotcast::node::Node;"), 0);
        assert_eq!(findings("src/attic.rs", ""), 1);
    }

    #[test]
    fn circle() {
        let one = Source::new("src/keyspace/a.rs", "use crate::keyspace::b::B;");
        let two = Source::new("src/keyspace/b.rs", "use crate::keyspace::c::C;");
        let back = Source::new("src/keyspace/c.rs", "use crate::keyspace::a;");
        let straight = Source::new("src/keyspace/c.rs", "use crate::time::Millis;");
        let expected = "modules import each other in a circle: keyspace::a, keyspace::b, keyspace::c";
        assert_eq!(circles(&[one, two, back]), [expected]);
        let one = Source::new("src/keyspace/a.rs", "use crate::keyspace::b::B;");
        let two = Source::new("src/keyspace/b.rs", "use crate::keyspace::c::C;");
        assert_eq!(circles(&[one, two, straight]), Vec::<String>::new());
    }

    #[test]
    fn foreign() {
        let findings = |path: &str, text: &str| foreign_names(&Source::new(path, text)).len();
        assert_eq!(findings("src/shard/machine.rs", "use openraft::Raft;"), 1);
        assert_eq!(findings("src/raft/machine.rs", "use openraft::Raft;"), 0);
        assert_eq!(findings("src/session/table.rs", "use tokio::net::TcpStream;"), 1);
        assert_eq!(findings("src/server/dispatch.rs", "    unsafe { *pointer }"), 1);
        assert_eq!(findings("src/server/dispatch.rs", "#![deny(unsafe_op_in_unsafe_fn)]"), 0);
        assert_eq!(findings("src/keyspace/record.rs", "    unsafe { *pointer }"), 0);
        assert_eq!(findings("src/lib.rs", "pub use crate::node::Node;"), 1);
        assert_eq!(findings("crates/wire/src/frame.rs", "use tokio::io::AsyncRead;"), 1);
    }

    #[test]
    fn lengths() {
        let long = format!(
            "//! x\nimpl X {{\n    pub(crate) async fn f(\n    ) {{\n{}    }}\n}}\n",
            "        g();\n".repeat(70)
        );
        assert_eq!(
            size(&Source::new("src/x.rs", &long)),
            ["src/x.rs:3: 73 lines: a function has at most 70"]
        );
        let tests = format!("//! x\n#[cfg(test)]\n{}", "// y\n".repeat(500));
        assert_eq!(size(&Source::new("src/x.rs", &tests)), Vec::<String>::new());
        assert_eq!(size(&Source::new("src/x.rs", &"// y\n".repeat(401))).len(), 2);
    }

    #[test]
    fn names() {
        let findings = |text: &str| bad_names(&Source::new("src/keyspace/slot.rs", text)).len();
        for bad in [
            "pub struct SlotManager;",
            "fn get_slot() {}",
            "mod utils;",
            "    pub const fn data() {}",
            "enum InfoKind {",
        ] {
            assert_eq!(findings(bad), 1, "{bad}");
        }
        for good in [
            "fn database() {}",
            "struct Slot;",
            "let data = 1;",
            "fn getex() {}",
            "// a handler",
            "fn get() {}",
        ] {
            assert_eq!(findings(good), 0, "{good}");
        }
        assert_eq!(
            findings("impl Store for Log {\n    fn get_reader() {}\n}"),
            0,
            "the trait chose that name"
        );
        assert_eq!(findings("impl Log {\n    fn get_reader() {}\n}"), 1);
        assert_eq!(findings("impl Store for Log {\n}\nfn get_reader() {}"), 1);
        assert_eq!(bad_names(&Source::new("src/keyspace/helpers.rs", "")).len(), 1);
        assert_eq!(bad_names(&Source::new("src/session/info.rs", "fn info() {}")).len(), 0);
    }

    #[test]
    fn dependencies() {
        let text = "[package]\nname = \"x\"\n[dependencies]\na = \"1\" # for a\nb = \"1\"\n[profile.dev]\ndebug = true\n";
        assert_eq!(
            unexplained("Cargo.toml", text),
            ["Cargo.toml:5: a dependency says in a comment why it is there"]
        );
    }
}
