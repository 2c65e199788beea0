//! Commands as COMMAND DOCS prints them: a map from the name to summary, since, group, complexity and subcommands.

use slotcast_wire::reply::Reply;

use crate::session::entry::Entry;

/// Writes the documentation of some commands.
pub fn write_all<'a>(entries: impl Iterator<Item = &'a Entry>, reply: &mut Reply<'_>) {
    let entries: Vec<&Entry> = entries.collect();
    reply.map(entries.len());
    for entry in entries {
        reply.bulk(entry.name.as_bytes());
        write(entry, reply);
    }
}

fn write(entry: &Entry, reply: &mut Reply<'_>) {
    let command = entry.command;
    let fields = [
        ("summary", command.summary),
        ("since", command.since),
        ("group", command.group),
        ("complexity", command.complexity),
    ];
    let fields = fields.iter().filter(|(_, text)| !text.is_empty());
    let deprecated = if command.deprecated.is_some() { 3 } else { 0 };
    reply.map(fields.clone().count() + deprecated + usize::from(!entry.subcommands.is_empty()));
    for (name, text) in fields {
        reply.bulk(name.as_bytes());
        reply.bulk(text.as_bytes());
    }
    if let Some(deprecated) = command.deprecated {
        reply.bulk(b"doc_flags");
        reply.set(1);
        reply.simple("deprecated");
        reply.bulk(b"deprecated_since");
        reply.bulk(deprecated.since.as_bytes());
        reply.bulk(b"replaced_by");
        reply.bulk(deprecated.instead.as_bytes());
    }
    if !entry.subcommands.is_empty() {
        reply.bulk(b"subcommands");
        write_all(entry.subcommands.iter(), reply);
    }
}
