//! What kind of value a directive takes: how it is read, checked, printed and explained. Each variant carries the
//! way to its typed field, so a row of the table needs nothing else.
//!
//! The reasons given for a bad value are Redis 7's words, because clients' tests compare them.

use crate::config::notify::NotifyEvents;
use crate::config::setting::{
    Address, Bind, Choice, Durability, EvictionPolicy, LogLevel, NotifyScope, OutputLimit, OutputLimits,
};
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

/// The way to a field of type `T` in the settings `S`.
pub type Lens<S, T> = fn(&mut S) -> &mut T;

/// The kind of a directive's value, and where it is kept. Ranges are inclusive.
#[allow(missing_docs)] // each variant is its type and, where bounded, its range
pub enum Field<S> {
    YesNo(Lens<S, bool>),
    Port(Lens<S, u16>),
    Count(Lens<S, usize>, usize, usize),
    Number(Lens<S, u32>, u32, u32),
    /// A memory size in bytes.
    Bytes(Lens<S, u64>, u64, u64),
    Seconds(Lens<S, Duration>, u64, u64),
    Millis(Lens<S, Duration>, u64, u64),
    Text(Lens<S, String>),
    LogLevel(Lens<S, LogLevel>),
    Policy(Lens<S, EvictionPolicy>),
    Durability(Lens<S, Durability>),
    Events(Lens<S, NotifyEvents>),
    Scope(Lens<S, NotifyScope>),
    Binds(Lens<S, Vec<Bind>>),
    Addresses(Lens<S, Vec<Address>>),
    OutputLimits(Lens<S, OutputLimits>),
}

impl<S> Field<S> {
    /// Does the directive take several words?
    pub fn many(&self) -> bool {
        matches!(self, Field::Binds(_) | Field::Addresses(_) | Field::OutputLimits(_))
    }

    /// Reads `words` into the field. `Err` is the reason, in Redis's words where Redis has them.
    pub fn read(&self, settings: &mut S, words: &[&str]) -> Result<(), String> {
        if let Field::OutputLimits(lens) = self {
            return read_output_limits(lens(settings), words);
        }
        let word = match *words {
            [word] => word,
            _ if self.many() => "",
            _ => return Err("wrong number of arguments".to_owned()),
        };
        match *self {
            Field::YesNo(lens) => *lens(settings) = yes_no(word)?,
            Field::Port(lens) => *lens(settings) = in_range(integer(word)?, 0, u16::MAX.into())?,
            Field::Count(lens, from, to) => {
                *lens(settings) = in_range(integer(word)?, from as u64, to as u64)?;
            }
            Field::Number(lens, from, to) => {
                *lens(settings) = in_range(integer(word)?, from.into(), to.into())?;
            }
            Field::Bytes(lens, from, to) => *lens(settings) = in_range(bytes(word)?.into(), from, to)?,
            Field::Seconds(lens, from, to) => {
                *lens(settings) = Duration::from_secs(in_range(integer(word)?, from, to)?);
            }
            Field::Millis(lens, from, to) => {
                *lens(settings) = Duration::from_millis(in_range(integer(word)?, from, to)?);
            }
            Field::Text(lens) => word.clone_into(lens(settings)),
            Field::LogLevel(lens) => *lens(settings) = choice(word)?,
            Field::Policy(lens) => *lens(settings) = choice(word)?,
            Field::Durability(lens) => *lens(settings) = choice(word)?,
            Field::Scope(lens) => *lens(settings) = choice(word)?,
            Field::Events(lens) => {
                *lens(settings) = NotifyEvents::parse(word)
                    .map_err(|_| "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".to_owned())?;
            }
            Field::Binds(lens) => *lens(settings) = list(words, "not an IP address")?,
            Field::Addresses(lens) => *lens(settings) = list(words, "not a host:port")?,
            Field::OutputLimits(_) => {}
        }
        Ok(())
    }

    /// The value as CONFIG GET prints it. (Takes `&mut` because a lens does; changes nothing.)
    pub fn print(&self, settings: &mut S) -> String {
        match *self {
            Field::YesNo(lens) => if *lens(settings) { "yes" } else { "no" }.to_owned(),
            Field::Port(lens) => lens(settings).to_string(),
            Field::Count(lens, ..) => lens(settings).to_string(),
            Field::Number(lens, ..) => lens(settings).to_string(),
            Field::Bytes(lens, ..) => lens(settings).to_string(),
            Field::Seconds(lens, ..) => lens(settings).as_secs().to_string(),
            Field::Millis(lens, ..) => lens(settings).as_millis().to_string(),
            Field::Text(lens) => lens(settings).clone(),
            Field::LogLevel(lens) => lens(settings).word().to_owned(),
            Field::Policy(lens) => lens(settings).word().to_owned(),
            Field::Durability(lens) => lens(settings).word().to_owned(),
            Field::Scope(lens) => lens(settings).word().to_owned(),
            Field::Events(lens) => lens(settings).letters(),
            Field::Binds(lens) => joined(lens(settings)),
            Field::Addresses(lens) => joined(lens(settings)),
            Field::OutputLimits(lens) => print_output_limits(lens(settings)),
        }
    }

    /// What may stand after the directive, for the help and for error messages.
    pub fn expects(&self) -> String {
        match *self {
            Field::YesNo(_) => "yes or no".to_owned(),
            Field::Port(_) => "a port, 0 to 65535".to_owned(),
            Field::Count(_, from, to) => range("a number", from as u64, to as u64),
            Field::Number(_, from, to) => range("a number", from.into(), to.into()),
            Field::Bytes(_, from, to) => range("a size such as 1gb, 64mb or 100k", from, to),
            Field::Seconds(_, from, to) => range("a number of seconds", from, to),
            Field::Millis(_, from, to) => range("a number of milliseconds", from, to),
            Field::Text(_) => "one word, or a text in quotes".to_owned(),
            Field::LogLevel(_) => words_of::<LogLevel>(),
            Field::Policy(_) => words_of::<EvictionPolicy>(),
            Field::Durability(_) => words_of::<Durability>(),
            Field::Scope(_) => words_of::<NotifyScope>(),
            Field::Events(_) => "letters of Ag$lshzxeKEtmdn".to_owned(),
            Field::Binds(_) => "IP addresses, * for all, - in front of one that may be missing".to_owned(),
            Field::Addresses(_) => "addresses host:port".to_owned(),
            Field::OutputLimits(_) => {
                "class hard-limit soft-limit soft-seconds, for classes normal, replica, pubsub".to_owned()
            }
        }
    }
}

fn range(what: &str, from: u64, to: u64) -> String {
    match (from, to) {
        (0, to) if to >= i32::MAX as u64 => what.to_owned(),
        (from, to) if to >= i32::MAX as u64 => format!("{what}, at least {from}"),
        (from, to) => format!("{what}, {from} to {to}"),
    }
}

fn words_of<T: Choice>() -> String {
    let words: Vec<&str> = T::ALL.iter().map(|(word, _)| *word).collect();
    format!("one of {}", words.join(", "))
}

fn yes_no(word: &str) -> Result<bool, String> {
    match word.to_ascii_lowercase().as_str() {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("argument must be 'yes' or 'no'".to_owned()),
    }
}

fn integer(word: &str) -> Result<i128, String> {
    let digits = word.strip_prefix('-').unwrap_or(word);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("argument couldn't be parsed into an integer".to_owned());
    }
    word.parse().map_err(|_| "argument couldn't be parsed into an integer".to_owned())
}

fn in_range<T: TryFrom<i128>>(number: i128, from: u64, to: u64) -> Result<T, String> {
    let fits = (i128::from(from)..=i128::from(to)).contains(&number);
    let number = if fits { T::try_from(number).ok() } else { None };
    number.ok_or_else(|| format!("argument must be between {from} and {to} inclusive"))
}

/// A memory size: `k`, `m`, `g` are powers of 1000, `kb`, `mb`, `gb` powers of 1024, in either case.
fn bytes(word: &str) -> Result<u64, String> {
    let split = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    let (digits, unit) = word.split_at(split);
    let unit: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1000 * 1000,
        "mb" => 1 << 20,
        "g" => 1000 * 1000 * 1000,
        "gb" => 1 << 30,
        _ => 0,
    };
    let size = digits.parse::<u64>().ok().filter(|_| unit > 0).and_then(|count| count.checked_mul(unit));
    size.ok_or_else(|| "argument must be a memory value".to_owned())
}

fn choice<T: Choice>(word: &str) -> Result<T, String> {
    let found = T::ALL.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<&str> = T::ALL.iter().map(|(name, _)| *name).collect();
        format!("argument(s) must be one of the following: {}", words.join(", "))
    })
}

/// An empty word is an empty list (`cluster-seeds ""`).
fn list<T: FromStr>(words: &[&str], reason: &str) -> Result<Vec<T>, String> {
    let words = words.iter().filter(|word| !word.is_empty());
    words.map(|word| word.parse().map_err(|_| format!("'{word}' is {reason}"))).collect()
}

fn joined<T: Display>(list: &[T]) -> String {
    list.iter().map(T::to_string).collect::<Vec<_>>().join(" ")
}

/// Changes the classes that are named and leaves the others.
fn read_output_limits(limits: &mut OutputLimits, words: &[&str]) -> Result<(), String> {
    if words.is_empty() || !words.len().is_multiple_of(4) {
        return Err("Wrong number of arguments in buffer limit configuration.".to_owned());
    }
    let mut changed = *limits;
    for four in words.chunks_exact(4) {
        let [class, hard, soft, seconds] = *four else { continue };
        let limit = match class.to_ascii_lowercase().as_str() {
            "normal" => &mut changed.normal,
            "replica" | "slave" => &mut changed.replica,
            "pubsub" => &mut changed.pubsub,
            _ => return Err("Invalid client class specified in buffer limit configuration.".to_owned()),
        };
        let wrong =
            |_| "Error in hard, soft or soft_seconds setting in buffer limit configuration.".to_owned();
        *limit = OutputLimit {
            hard: bytes(hard).map_err(wrong)?,
            soft: bytes(soft).map_err(wrong)?,
            soft_time: Duration::from_secs(seconds.parse::<u32>().map_err(|e| wrong(e.to_string()))?.into()),
        };
    }
    *limits = changed;
    Ok(())
}

fn print_output_limits(limits: &OutputLimits) -> String {
    let classes = [("normal", limits.normal), ("slave", limits.replica), ("pubsub", limits.pubsub)];
    let class = |(name, limit): &(&str, OutputLimit)| {
        format!("{name} {} {} {}", limit.hard, limit.soft, limit.soft_time.as_secs())
    };
    classes.iter().map(class).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_redis_units() {
        for (word, expected) in [
            ("0", 0),
            ("100k", 100_000),
            ("1kb", 1024),
            ("64mb", 64 << 20),
            ("2G", 2_000_000_000),
            ("1GB", 1 << 30),
        ] {
            assert_eq!(bytes(word), Ok(expected), "{word}");
        }
        for word in ["", "mb", "-1", "1tb", "1.5gb", "1 gb", "99999999999gb"] {
            assert!(bytes(word).is_err(), "{word}");
        }
    }

    #[test]
    fn numbers_keep_their_range() {
        let field: Field<u32> = Field::Number(|s| s, 1, 500);
        let mut hz = 10;
        assert_eq!(field.read(&mut hz, &["x"]), Err("argument couldn't be parsed into an integer".into()));
        assert_eq!(field.read(&mut hz, &["0"]), Err("argument must be between 1 and 500 inclusive".into()));
        assert_eq!(field.read(&mut hz, &["-1"]), Err("argument must be between 1 and 500 inclusive".into()));
        assert_eq!(field.read(&mut hz, &["1", "2"]), Err("wrong number of arguments".into()));
        assert_eq!((field.read(&mut hz, &["20"]), hz), (Ok(()), 20));
    }

    #[test]
    fn output_limits_change_by_class() {
        let mut limits = OutputLimits::default();
        let field: Field<OutputLimits> = Field::OutputLimits(|s| s);
        field.read(&mut limits, &["replica", "1kb", "512", "60", "pubsub", "1", "2", "3"]).unwrap();
        assert_eq!(field.print(&mut limits), "normal 0 0 0 slave 1024 512 60 pubsub 1 2 3");
        for bad in [&["normal"][..], &["x", "1", "1", "1"], &["normal", "1", "1", "-1"]] {
            assert!(field.read(&mut limits, bad).is_err(), "{bad:?}");
        }
        assert_eq!(field.print(&mut limits), "normal 0 0 0 slave 1024 512 60 pubsub 1 2 3");
    }

    #[test]
    fn lists_print_as_they_were_written() {
        let mut binds = Vec::new();
        let field: Field<Vec<Bind>> = Field::Binds(|s| s);
        field.read(&mut binds, &["127.0.0.1", "-::1", "*"]).unwrap();
        assert_eq!(field.print(&mut binds), "127.0.0.1 -::1 *");
        assert_eq!(field.read(&mut binds, &["localhost"]), Err("'localhost' is not an IP address".into()));

        let mut seeds = Vec::new();
        let field: Field<Vec<Address>> = Field::Addresses(|s| s);
        field.read(&mut seeds, &["127.0.0.1:7001", "[::1]:7002", "cache-3:7003"]).unwrap();
        assert_eq!(field.print(&mut seeds), "127.0.0.1:7001 [::1]:7002 cache-3:7003");
        for bad in ["7001", "host:", ":7001", "::1:7001", "host:0", "host:99999"] {
            assert!(field.read(&mut seeds, &[bad]).is_err(), "{bad}");
        }
    }
}
