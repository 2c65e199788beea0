//! The README's table of commands is what the rows say. `UPDATE_GOLDEN=1 cargo test --test readme` writes it anew.

use slotcast::session::entry::Entry;
use slotcast::session::table;
use std::collections::BTreeMap;
use std::path::Path;

const BEGIN: &str = "<!-- commands:begin -->";
const END: &str = "<!-- commands:end -->";

/// A line a group, commands in alphabetical order; a container stands with its subcommands.
fn commands() -> String {
    let mut groups: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for entry in table::entries() {
        groups.entry(entry.command.group).or_default().push(shown(entry));
    }
    let line = |(group, names): (&str, Vec<String>)| format!("| {group} | {} |\n", names.join(", "));
    let lines: String = groups.into_iter().map(line).collect();
    format!("{BEGIN}\n| group | commands |\n| --- | --- |\n{lines}{END}")
}

fn shown(entry: &Entry) -> String {
    let name = entry.name.to_uppercase();
    let subcommands: Vec<String> =
        entry.subcommands.iter().map(|sub| sub.command.name.to_uppercase()).collect();
    if subcommands.is_empty() {
        format!("`{name}`")
    } else {
        format!("`{name}` ({})", subcommands.join(", "))
    }
}

#[test]
fn lists_every_command() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(&path).expect("README.md");
    let (before, rest) = text.split_once(BEGIN).expect("the table's begin");
    let (_, after) = rest.split_once(END).expect("the table's end");
    let expected = format!("{before}{}{after}", commands());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &expected).expect("README.md can be written");
    } else {
        assert!(
            text == expected,
            "README.md's commands differ from the rows: UPDATE_GOLDEN=1 cargo test --test readme"
        );
    }
}
