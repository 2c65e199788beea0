//! A command as COMMAND and COMMAND INFO print it:
//! `[name, arity, flags, first, last, step, categories, tips, key specifications, subcommands]`.

use slotcast_wire::reply::Reply;

use crate::command::spec::{Find, KeySpec};
use crate::session::entry::Entry;
use crate::session::introspection::categories::{categories, legacy_range};

/// Writes one command with its subcommands.
pub fn write(entry: &Entry, reply: &mut Reply<'_>) {
    let command = entry.command;
    reply.array(10);
    reply.bulk(entry.name.as_bytes());
    reply.integer(command.arity.into());
    write_set(&command.flags.names().collect::<Vec<_>>(), reply);
    let (first, last, step) = legacy_range(command.keys);
    [first, last, step].iter().for_each(|n| reply.integer(*n));
    write_set(&categories(command), reply);
    reply.set(command.tips.len());
    command.tips.iter().for_each(|tip| reply.bulk(tip.as_bytes()));
    reply.set(command.keys.len());
    command.keys.iter().for_each(|spec| write_key_spec(spec, reply));
    reply.set(entry.subcommands.len());
    entry.subcommands.iter().for_each(|sub| write(sub, reply));
}

fn write_set(words: &[&str], reply: &mut Reply<'_>) {
    reply.set(words.len());
    words.iter().for_each(|word| reply.simple(word));
}

/// Writes what is done to a key as a set: `RW`, `access`. The first word is the kind of use, in capitals.
pub fn write_words(flags: &str, reply: &mut Reply<'_>) {
    let words: Vec<String> = flags
        .split(' ')
        .enumerate()
        .map(|(at, word)| if at == 0 { word.to_owned() } else { word.to_ascii_lowercase() })
        .collect();
    reply.set(words.len());
    words.iter().for_each(|word| reply.simple(word));
}

fn write_key_spec(spec: &KeySpec, reply: &mut Reply<'_>) {
    reply.map(3);
    reply.bulk(b"flags");
    write_words(spec.flags, reply);
    reply.bulk(b"begin_search");
    write_step("index", &[("index", spec.begin as i64)], reply);
    reply.bulk(b"find_keys");
    match spec.find {
        Find::Range { last, step } => {
            let fields = [("lastkey", last.into()), ("keystep", step as i64), ("limit", 0)];
            write_step("range", &fields, reply);
        }
        Find::Number { first, step } => {
            let fields = [("keynumidx", 0), ("firstkey", first as i64), ("keystep", step as i64)];
            write_step("keynum", &fields, reply);
        }
    }
}

fn write_step(kind: &str, fields: &[(&str, i64)], reply: &mut Reply<'_>) {
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(kind.as_bytes());
    reply.bulk(b"spec");
    reply.map(fields.len());
    for (name, value) in fields {
        reply.bulk(name.as_bytes());
        reply.integer(*value);
    }
}
