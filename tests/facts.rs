//! The rows against facts about Redis: arity, flags, keys, categories and tips of every command are what Redis says.
//! `tests/facts/commands.tsv` holds them; `tests/facts/derive` asks a redis-server 7.0.15 for further ones.

use std::collections::{BTreeMap, BTreeSet};

use slotcast::command::spec::{Find, KeySpec};
use slotcast::session::entry::Entry;
use slotcast::session::introspection::categories::{categories, legacy_range};
use slotcast::session::table;

/// Where a row differs on purpose: the command, the column, our value.
const ON_PURPOSE: &[(&str, &str, &str)] = &[("xinfo|help", "categories", "@slow")];

/// What Redis doesn't have.
const OWN: &[&str] = &[
    "client|reads",
    "waitaof",
    "xread",
    "client|stamp",
    "invalidations",
    "invalidations|ack",
    "invalidations|help",
    "invalidations|status",
    "invalidations|subscribe",
    "invalidations|unsubscribe",
];

const COLUMNS: [&str; 8] = ["arity", "flags", "first", "last", "step", "categories", "tips", "keys"];

fn every_entry() -> Vec<&'static Entry> {
    table::entries().iter().flat_map(|entry| std::iter::once(entry).chain(entry.subcommands)).collect()
}

fn listed<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let mut words: Vec<&str> = words.into_iter().collect();
    words.sort_unstable();
    if words.is_empty() { "-".to_owned() } else { words.join(",") }
}

fn key_spec(spec: &KeySpec) -> String {
    let (kind, rest) = spec.flags.split_once(' ').unwrap_or((spec.flags, ""));
    let flags = [kind, &rest.to_lowercase()].join(" ");
    let find = match spec.find {
        Find::Range { last, step } => format!("range {last} {step}"),
        Find::Number { first, step } => format!("keynum 0 {first} {step}"),
    };
    format!("{}: {} {find}", flags.trim_end(), spec.begin)
}

fn values(entry: &Entry) -> [String; 8] {
    let command = entry.command;
    let (first, last, step) = legacy_range(command.keys);
    let keys: Vec<String> = command.keys.iter().map(key_spec).collect();
    [
        command.arity.to_string(),
        listed(command.flags.names()),
        first.to_string(),
        last.to_string(),
        step.to_string(),
        listed(categories(command)),
        listed(command.tips.iter().copied()),
        if keys.is_empty() { "-".to_owned() } else { keys.join("; ") },
    ]
}

#[test]
fn rows_say_what_redis_says() {
    let facts: BTreeMap<&str, Vec<&str>> = include_str!("facts/commands.tsv")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, values)| (name, values.split('\t').collect()))
        .collect();
    let mut findings = Vec::new();
    let mut unknown = Vec::new();
    for entry in every_entry().into_iter().filter(|entry| !OWN.contains(&entry.name)) {
        let Some(facts) = facts.get(entry.name) else {
            unknown.push(format!("'{}'", entry.name));
            continue;
        };
        for ((column, ours), redis) in COLUMNS.iter().zip(values(entry)).zip(facts) {
            let on_purpose = ON_PURPOSE.contains(&(entry.name, *column, ours.as_str()));
            if ours != *redis && !on_purpose {
                findings.push(format!("{} {column}: {ours} here, {redis} in Redis", entry.name));
            }
        }
    }
    if !unknown.is_empty() {
        findings.push(format!("no facts: run tests/facts/derive PORT {}", unknown.join(" ")));
    }
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn names_are_unique_and_rows_documented() {
    let mut names = BTreeSet::new();
    for entry in every_entry() {
        assert!(names.insert(entry.name), "{} is there twice", entry.name);
        assert!(!entry.command.summary.is_empty(), "{}: no summary", entry.name);
        assert!(entry.command.summary.ends_with('.'), "{}: the summary is no sentence", entry.name);
        assert!(!entry.command.group.is_empty() && !entry.command.since.is_empty(), "{}", entry.name);
    }
}
