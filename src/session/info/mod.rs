//! INFO: what monitoring and clients' ready checks read. [`facts`] collects the figures, [`sections`] prints them.
//!
//! Fields that slotcast has no true value for are left out rather than invented.

mod facts;
mod sections;
mod vitals;

use slotcast_wire::args::Args;
use slotcast_wire::reply::Reply;

use crate::command::error::CommandError;
use crate::command::spec::Flags;
use crate::session::Session;
use crate::session::context::Context;
use crate::session::info::facts::Facts;
use crate::session::info::sections::SECTIONS;
use crate::session::row::Row;
use crate::session::verdict::Verdict;

/// The rows of this room.
pub const ROWS: &[Row] = &[Row::new("info", -1, info)
    .flags(Flags::LOADING.or(Flags::STALE))
    .categories(&["@dangerous"])
    .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
    .docs("server", "1.0.0", "O(1)", "Returns information and statistics about the node.")];

fn info(
    session: &mut Session,
    context: &Context,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Verdict, CommandError> {
    let facts = Facts::gather(context, session.client.local_addr.port());
    reply.verbatim("txt", text(&facts, args.from(1)).as_bytes());
    Ok(Verdict::Replied)
}

/// The sections asked for, in their fixed order, an empty line between two; a section nobody knows is empty.
fn text(facts: &Facts, asked: Args<'_>) -> String {
    let all = asked.is_empty()
        || asked.iter().any(|name| {
            ["all", "default", "everything"].iter().any(|word| name.eq_ignore_ascii_case(word.as_bytes()))
        });
    let wanted = SECTIONS
        .iter()
        .filter(|(title, _)| all || asked.iter().any(|name| name.eq_ignore_ascii_case(title.as_bytes())));
    let texts: Vec<String> = wanted
        .map(|(title, lines)| {
            let lines = lines(facts).into_iter().map(|(name, value)| format!("{name}:{value}\r\n"));
            format!("# {title}\r\n{}", lines.collect::<String>())
        })
        .collect();
    texts.join("\r\n")
}

#[cfg(test)]
mod tests {
    use slotcast_wire::args::OwnedArgs;

    use super::*;

    fn ask(facts: &Facts, sections: &[&str]) -> String {
        let asked: OwnedArgs = sections.iter().collect();
        text(facts, asked.as_args())
    }

    #[test]
    fn sections_come_in_their_order_and_only_if_asked_for() {
        let facts = Facts::default();
        let titles = |text: &str| -> Vec<String> {
            text.lines().filter_map(|line| line.strip_prefix("# ").map(str::to_owned)).collect()
        };
        assert_eq!(titles(&ask(&facts, &["cluster", "SERVER"])), ["Server", "Cluster"]);
        assert_eq!(titles(&ask(&facts, &[])).len(), SECTIONS.len());
        assert_eq!(ask(&facts, &["nosuch"]), "");
        assert_eq!(ask(&facts, &["cluster"]), "# Cluster\r\ncluster_enabled:0\r\n");
    }

    #[test]
    fn an_empty_database_has_no_line() {
        let mut facts = Facts::default();
        assert_eq!(ask(&facts, &["keyspace"]), "# Keyspace\r\n");
        (facts.keys, facts.volatile_keys) = (3, 1);
        assert_eq!(ask(&facts, &["keyspace"]), "# Keyspace\r\ndb0:keys=3,expires=1,avg_ttl=0\r\n");
    }
}
