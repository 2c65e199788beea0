//! Redis's older forms of what a row says: ACL categories in their order, first/last/step of the keys.

use crate::command::spec::{Command, Find, KeySpec};

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

/// A command's ACL categories, in Redis's order.
pub fn categories(command: &Command) -> Vec<&'static str> {
    let set = command.acl_categories();
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
