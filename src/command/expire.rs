//! Deadlines of keys: the EXPIRE family sets them, the TTL family tells them, PERSIST removes them.

use slotcast_wire::args::Args;
use slotcast_wire::reply::Reply;

use crate::command::argument::{Moment, integer, is_word};
use crate::command::error::{CommandError, Outcome};
use crate::command::spec::{Command, Flags, KeySpec, one_key};
use crate::keyspace::locked::Locked;
use crate::keyspace::record::Record;
use crate::time::Millis;

const UPDATED: &[KeySpec] = &[one_key("RW UPDATE")];
const READ: &[KeySpec] = &[one_key("RO ACCESS")];
const VARIES: &[&str] = &["nondeterministic_output"];

/// The rows of this file.
pub const ROWS: &[Command] = &[
    Command::write("expire", -3, expire).flags(Flags::FAST).keys(UPDATED).docs(
        "generic",
        "1.0.0",
        "O(1)",
        "Sets the expiration time of a key in seconds.",
    ),
    Command::write("pexpire", -3, pexpire).flags(Flags::FAST).keys(UPDATED).docs(
        "generic",
        "2.6.0",
        "O(1)",
        "Sets the expiration time of a key in milliseconds.",
    ),
    Command::write("expireat", -3, expireat).flags(Flags::FAST).keys(UPDATED).docs(
        "generic",
        "1.2.0",
        "O(1)",
        "Sets the expiration time of a key to a Unix timestamp.",
    ),
    Command::write("pexpireat", -3, pexpireat).flags(Flags::FAST).keys(UPDATED).docs(
        "generic",
        "2.6.0",
        "O(1)",
        "Sets the expiration time of a key to a Unix milliseconds timestamp.",
    ),
    Command::read("ttl", 2, ttl).flags(Flags::FAST).keys(READ).tips(VARIES).docs(
        "generic",
        "1.0.0",
        "O(1)",
        "Returns the expiration time in seconds of a key.",
    ),
    Command::read("pttl", 2, pttl).flags(Flags::FAST).keys(READ).tips(VARIES).docs(
        "generic",
        "2.6.0",
        "O(1)",
        "Returns the expiration time in milliseconds of a key.",
    ),
    Command::read("expiretime", 2, expiretime).flags(Flags::FAST).keys(READ).docs(
        "generic",
        "7.0.0",
        "O(1)",
        "Returns the expiration time of a key as a Unix timestamp.",
    ),
    Command::read("pexpiretime", 2, pexpiretime).flags(Flags::FAST).keys(READ).docs(
        "generic",
        "7.0.0",
        "O(1)",
        "Returns the expiration time of a key as a Unix milliseconds timestamp.",
    ),
    Command::write("persist", 2, persist).flags(Flags::FAST).keys(UPDATED).docs(
        "generic",
        "2.2.0",
        "O(1)",
        "Removes the expiration time of a key.",
    ),
];

fn expire(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_deadline(keys, args, reply, Moment::InSeconds, "expire")
}

fn pexpire(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_deadline(keys, args, reply, Moment::InMillis, "pexpire")
}

fn expireat(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_deadline(keys, args, reply, Moment::AtSeconds, "expireat")
}

fn pexpireat(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_deadline(keys, args, reply, Moment::AtMillis, "pexpireat")
}

/// When EXPIRE may change the deadline.
#[derive(Default)]
struct Conditions {
    absent: bool,
    present: bool,
    later: bool,
    sooner: bool,
}

impl Conditions {
    fn parse(words: Args<'_>) -> Result<Self, CommandError> {
        let mut conditions = Conditions::default();
        for word in words {
            let condition = match word {
                _ if is_word(word, "nx") => &mut conditions.absent,
                _ if is_word(word, "xx") => &mut conditions.present,
                _ if is_word(word, "gt") => &mut conditions.later,
                _ if is_word(word, "lt") => &mut conditions.sooner,
                _ => {
                    let word = String::from_utf8_lossy(word);
                    return Err(CommandError(format!("ERR Unsupported option {word}").into()));
                }
            };
            *condition = true;
        }
        let Conditions { absent, present, later, sooner } = conditions;
        if absent && (present || later || sooner) {
            return Err(CommandError::text(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if later && sooner {
            return Err(CommandError::text("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(conditions)
    }

    /// Whether `wanted` may take the place of `current`. No deadline counts as one that never comes.
    fn allow(&self, wanted: i64, current: Option<Millis>) -> bool {
        let current = current.map(|at| i64::try_from(at).unwrap_or(i64::MAX));
        !(self.absent && current.is_some()
            || self.present && current.is_none()
            || self.later && current.is_none_or(|current| wanted <= current)
            || self.sooner && current.is_some_and(|current| wanted >= current))
    }
}

fn set_deadline(
    keys: &mut Locked<'_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
    moment: Moment,
    command: &str,
) -> Outcome {
    let conditions = Conditions::parse(args.from(3))?;
    let amount = integer(args.at(2))?;
    let wanted = moment.resolve(amount, keys.now()).ok_or_else(|| CommandError::expire_time(command))?;
    let key = args.at(1);
    let allowed = keys.find(key).is_some_and(|record| conditions.allow(wanted, record.expires_at()));
    if allowed {
        keys.set_deadline(key, Some(wanted.max(0) as Millis));
    }
    reply.integer(allowed as i64);
    Ok(())
}

fn persist(keys: &mut Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let dated = keys.find(args.at(1)).is_some_and(|record| record.expires_at().is_some());
    if dated {
        keys.set_deadline(args.at(1), None);
    }
    reply.integer(dated as i64);
    Ok(())
}

fn ttl(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    tell(keys, args, reply, |deadline| rounded_seconds(deadline - keys.now()))
}

fn pttl(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    tell(keys, args, reply, |deadline| deadline - keys.now())
}

fn expiretime(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    tell(keys, args, reply, rounded_seconds)
}

fn pexpiretime(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    tell(keys, args, reply, |deadline| deadline)
}

fn rounded_seconds(millis: Millis) -> u64 {
    millis / 1000 + u64::from(millis % 1000 >= 500)
}

/// Answers what `f` makes of a key's deadline; -1 without deadline, -2 without key.
fn tell(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>, f: impl Fn(Millis) -> u64) -> Outcome {
    reply.integer(match keys.peek(args.at(1)).map(Record::expires_at) {
        None => -2,
        Some(None) => -1,
        Some(Some(deadline)) => i64::try_from(f(deadline)).unwrap_or(i64::MAX),
    });
    Ok(())
}
