//! What Redis derives from a row instead of listing: ACL categories, and the older first/last/step of the keys.

use crate::command::spec::{Find, Flags, KeySpec};
use crate::session::table::Entry;

/// All categories, in the order COMMAND prints them.
const ORDER: &[&str] = &[
    "@keyspace",
    "@read",
    "@write",
    "@set",
    "@sortedset",
    "@list",
    "@hash",
    "@string",
    "@bitmap",
    "@hyperloglog",
    "@geo",
    "@stream",
    "@pubsub",
    "@admin",
    "@fast",
    "@slow",
    "@blocking",
    "@dangerous",
    "@connection",
    "@transaction",
    "@scripting",
];

/// Categories that a command's group implies.
const BY_GROUP: &[(&str, &str)] = &[
    ("string", "@string"),
    ("hash", "@hash"),
    ("list", "@list"),
    ("set", "@set"),
    ("sorted-set", "@sortedset"),
    ("bitmap", "@bitmap"),
    ("hyperloglog", "@hyperloglog"),
    ("geo", "@geo"),
    ("stream", "@stream"),
    ("pubsub", "@pubsub"),
    ("generic", "@keyspace"),
    ("connection", "@connection"),
    ("transactions", "@transaction"),
    ("scripting", "@scripting"),
];

/// Commands whose categories Redis gives by hand, in place of the group's.
const BY_HAND: &[(&str, &[&str])] = &[
    ("asking", &["@connection"]),
    ("readonly", &["@connection"]),
    ("readwrite", &["@connection"]),
    ("command", &["@connection"]),
    ("command|count", &["@connection"]),
    ("command|docs", &["@connection"]),
    ("command|getkeys", &["@connection"]),
    ("command|getkeysandflags", &["@connection"]),
    ("command|help", &["@connection"]),
    ("command|info", &["@connection"]),
    ("command|list", &["@connection"]),
    ("wait", &["@connection"]),
    ("dbsize", &["@keyspace"]),
    ("flushall", &["@keyspace", "@dangerous"]),
    ("flushdb", &["@keyspace", "@dangerous"]),
    ("keys", &["@keyspace", "@dangerous"]),
    ("info", &["@dangerous"]),
    ("role", &["@admin", "@dangerous"]),
];

/// A command's ACL categories: those of its group or given by hand, and those its flags imply (Redis's
/// `setImplicitACLCategories`).
pub fn categories(entry: &Entry) -> Vec<&'static str> {
    let flags = entry.command.flags;
    let mut set: Vec<&'static str> = match BY_HAND.iter().find(|(name, _)| *name == entry.name) {
        Some((_, by_hand)) => by_hand.to_vec(),
        // A bare container does nothing, so it is in no category but @slow.
        None if !entry.subcommands.is_empty() => Vec::new(),
        None => {
            let group = BY_GROUP.iter().find(|(group, _)| *group == entry.command.group);
            group.map(|(_, category)| *category).into_iter().collect()
        }
    };
    let implied = [
        (Flags::WRITE, &["@write"][..]),
        (Flags::READONLY, &["@read"]),
        (Flags::ADMIN, &["@admin", "@dangerous"]),
        (Flags::PUBSUB, &["@pubsub"]),
        (Flags::BLOCKING, &["@blocking"]),
    ];
    set.extend(implied.iter().filter(|(flag, _)| flags.has(*flag)).flat_map(|(_, names)| names.iter()));
    set.push(if flags.has(Flags::FAST) { "@fast" } else { "@slow" });
    ORDER.iter().filter(|category| set.contains(category)).copied().collect()
}

/// First key, last key (negative: from the end) and step, as far as they can tell where the keys are; zeros if not
/// at all (Redis's `populateCommandLegacyRangeSpec`).
pub fn legacy_range(specs: &[KeySpec]) -> (i64, i64, i64) {
    let range = |spec: &KeySpec| match spec.find {
        Find::Range { last, step } => {
            let first = spec.begin as i64;
            Some((first, if last < 0 { last.into() } else { first + i64::from(last) }, step as i64))
        }
        Find::Number { .. } => None,
    };
    if let [only] = specs {
        return range(only).unwrap_or_default();
    }
    let (mut first, mut last) = (i64::MAX, 0_i64);
    for (begin, end, step) in specs.iter().filter_map(range) {
        // Only ranges that touch make one range.
        if step == 1 && (last == 0 || last == begin - 1) {
            first = first.min(begin);
            last = end;
        }
    }
    if first == i64::MAX { (0, 0, 0) } else { (first, last, 1) }
}
