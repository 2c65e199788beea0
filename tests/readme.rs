//! The README's table of commands is what the rows say. `UPDATE_GOLDEN=1 cargo test --test readme` writes it anew.

use slotcast::command::spec::Command;
use slotcast::command::table;
use std::collections::BTreeMap;
use std::path::Path;

const BEGIN: &str = "<!-- commands:begin -->";
const END: &str = "<!-- commands:end -->";

/// A line a group, commands in alphabetical order; a container stands with its subcommands.
fn commands() -> String {
    let mut groups: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut rows: Vec<&Command> = table::rows().collect();
    rows.sort_by_key(|row| row.name);
    for row in rows {
        groups.entry(row.group).or_default().push(shown(row));
    }
    let line = |(group, names): (&str, Vec<String>)| format!("| {group} | {} |\n", names.join(", "));
    let lines: String = groups.into_iter().map(line).collect();
    format!("{BEGIN}\n| group | commands |\n| --- | --- |\n{lines}{END}")
}

fn shown(row: &Command) -> String {
    let name = row.name.to_uppercase();
    let subcommands: Vec<String> = row.subcommands.iter().map(|row| row.name.to_uppercase()).collect();
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
