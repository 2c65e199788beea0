//! What a row of the command table says.
//!
//! Rows are constants, written with a builder that reads like the table in Redis's documentation. A row doesn't
//! know who looks it up.

use slotcast_wire::args::Args;
use slotcast_wire::number::parse_i64;
use slotcast_wire::reply::Reply;
use smallvec::SmallVec;

use crate::command::error::{CommandError, Outcome};
use crate::keyspace::event::{Class, Event};
use crate::keyspace::locked::Locked;

/// A command that only looks.
pub type ReadFn = for<'a> fn(&Locked<'_>, Args<'a>, &mut Reply<'_>) -> Outcome;
/// A command that may change keys.
pub type WriteFn = for<'a> fn(&mut Locked<'_>, Args<'a>, &mut Reply<'_>) -> Outcome;

/// Who executes a command.
#[derive(Clone, Copy)]
pub enum Run {
    /// A function over the keyspace that only looks.
    Read(ReadFn),
    /// A function over the keyspace that may change it.
    Write(WriteFn),
    /// The session (see `session::table`): the command is about the connection, the node or the cluster.
    Session,
    /// Nobody: the command is a name for its subcommands (see [`Command::resolve`]).
    Container,
}

/// Command flags, as COMMAND shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(pub u32);

macro_rules! flags {
    ($($bit:literal $name:ident $text:literal),* $(,)?) => {
        impl Flags {
            $(#[doc = concat!("`", $text, "`")] pub const $name: Flags = Flags(1 << $bit);)*
            const NAMES: &[(Flags, &str)] = &[$((Flags::$name, $text)),*];
        }
    };
}

flags! {
    0 WRITE "write", 1 READONLY "readonly", 2 DENYOOM "denyoom", 3 ADMIN "admin", 4 PUBSUB "pubsub",
    5 NOSCRIPT "noscript", 6 BLOCKING "blocking", 7 LOADING "loading", 8 STALE "stale", 9 SKIP_MONITOR "skip_monitor",
    10 ASKING "asking", 11 FAST "fast", 12 NO_AUTH "no_auth", 13 MOVABLEKEYS "movablekeys",
    14 NO_MULTI "no_multi", 15 ALLOW_BUSY "allow_busy", 16 NO_ASYNC_LOADING "no_async_loading",
    17 NO_MANDATORY_KEYS "no_mandatory_keys", 18 SKIP_SLOWLOG "skip_slowlog",
}

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);

    /// Both.
    pub const fn or(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether all of `other` are set.
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The set flags' names.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().filter(move |(flag, _)| self.has(*flag)).map(|(_, name)| *name)
    }
}

/// Where some of a command's keys are (Redis's key specifications).
#[derive(Clone, Copy, Debug)]
pub struct KeySpec {
    /// How they are used, as COMMAND INFO shows it: `RW ACCESS UPDATE`.
    pub flags: &'static str,
    /// Index of the first key, or of the number of keys.
    pub begin: usize,
    /// How the others follow.
    pub find: Find,
}

/// How a key specification goes on from its begin.
#[derive(Clone, Copy, Debug)]
pub enum Find {
    /// To the argument at `last` (relative to `begin`; negative: from the end, -1 the last), every `step`th.
    Range {
        /// See above.
        last: i32,
        /// See above.
        step: usize,
    },
    /// `begin` holds the number of keys; they start `first` behind it, every `step`th.
    Number {
        /// See above.
        first: usize,
        /// See above.
        step: usize,
    },
}

/// A row.
#[derive(Clone, Copy)]
pub struct Command {
    /// Lower case; a subcommand's is its own word.
    pub name: &'static str,
    /// Number of arguments with the name (and the container's); negative: at least that many.
    pub arity: i32,
    /// Flags.
    pub flags: Flags,
    /// Where the keys are.
    pub keys: &'static [KeySpec],
    /// `string`, `hash`, `generic`, `connection`, `server`, `cluster`, `transactions`, `pubsub`, …
    pub group: &'static str,
    /// The Redis version that brought it.
    pub since: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Big O.
    pub complexity: &'static str,
    /// Hints for cluster clients.
    pub tips: &'static [&'static str],
    /// Subcommands of a container.
    pub subcommands: &'static [Command],
    /// Since when one should use another command, and which.
    pub deprecated: Option<Deprecated>,
    /// ACL categories in place of the group's.
    pub categories: &'static [&'static str],
    /// What a value's change by it is called (keyspace notifications).
    pub event: Option<Event>,
    /// Looking for a key in vain is no event: it is about the record, not the value.
    pub silent: bool,
    /// Who executes it.
    pub run: Run,
}

/// Why a command is still there.
#[derive(Clone, Copy, Debug)]
pub struct Deprecated {
    /// The Redis version that deprecated it.
    pub since: &'static str,
    /// What to use instead.
    pub instead: &'static str,
}

/// The arguments that are keys.
pub type KeyPositions = SmallVec<[u32; 4]>;

/// The keys cannot be told from these arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoKeys;

impl Command {
    /// A row for a command that only looks.
    pub const fn read(name: &'static str, arity: i32, run: ReadFn) -> Self {
        Self::new(name, arity, Flags::READONLY, Run::Read(run))
    }

    /// A row for a command that may change keys.
    pub const fn write(name: &'static str, arity: i32, run: WriteFn) -> Self {
        Self::new(name, arity, Flags::WRITE, Run::Write(run))
    }

    /// A row for a command that the session executes.
    pub const fn session(name: &'static str, arity: i32) -> Self {
        Self::new(name, arity, Flags::NONE, Run::Session)
    }

    /// A row for a command that is nothing without its subcommands.
    pub const fn container(name: &'static str, subcommands: &'static [Command]) -> Self {
        Self::new(name, -2, Flags::NONE, Run::Container).subcommands(subcommands)
    }

    const fn new(name: &'static str, arity: i32, flags: Flags, run: Run) -> Self {
        let (keys, tips, subcommands): (&[KeySpec], &[&str], &[Command]) = (&[], &[], &[]);
        let (deprecated, categories): (_, &[&str]) = (None, &[]);
        Self {
            name,
            arity,
            flags,
            keys,
            group: "",
            since: "",
            summary: "",
            complexity: "",
            tips,
            subcommands,
            deprecated,
            categories,
            event: None,
            silent: false,
            run,
        }
    }

    /// Adds flags.
    pub const fn flags(mut self, flags: Flags) -> Self {
        self.flags = self.flags.or(flags);
        self
    }

    /// Takes flags away.
    pub const fn without(mut self, flags: Flags) -> Self {
        self.flags = Flags(self.flags.0 & !flags.0);
        self
    }

    /// Says where the keys are.
    pub const fn keys(mut self, keys: &'static [KeySpec]) -> Self {
        self.keys = keys;
        self
    }

    /// Documents it.
    pub const fn docs(
        mut self,
        group: &'static str,
        since: &'static str,
        complexity: &'static str,
        summary: &'static str,
    ) -> Self {
        (self.group, self.since, self.complexity, self.summary) = (group, since, complexity, summary);
        self
    }

    /// Adds hints for cluster clients (`request_policy:all_shards`, …).
    pub const fn tips(mut self, tips: &'static [&'static str]) -> Self {
        self.tips = tips;
        self
    }

    /// Marks it as deprecated.
    pub const fn deprecated(mut self, since: &'static str, instead: &'static str) -> Self {
        self.deprecated = Some(Deprecated { since, instead });
        self
    }

    /// Names the change of a value.
    pub const fn event(mut self, class: Class, name: &'static str) -> Self {
        self.event = Some(Event::new(class, name));
        self
    }

    /// Makes looking for a key in vain no event.
    pub const fn silent(mut self) -> Self {
        self.silent = true;
        self
    }

    /// Gives it ACL categories in place of the group's; those that follow from its flags stay.
    pub const fn categories(mut self, categories: &'static [&'static str]) -> Self {
        self.categories = categories;
        self
    }

    /// Gives it subcommands.
    pub const fn subcommands(mut self, subcommands: &'static [Command]) -> Self {
        self.subcommands = subcommands;
        self
    }

    /// Whether `count` arguments (name included) fit.
    pub fn accepts(&self, count: usize) -> bool {
        let arity = self.arity.unsigned_abs() as usize;
        if self.arity < 0 { count >= arity } else { count == arity }
    }

    /// The row that a request means: this one, or the subcommand it names. An error if there is no such subcommand or
    /// the number of arguments doesn't fit.
    pub fn resolve(&'static self, args: Args<'_>) -> Result<&'static Command, CommandError> {
        if self.subcommands.is_empty() || args.len() < 2 {
            return if self.accepts(args.len()) { Ok(self) } else { Err(CommandError::arity(self.name)) };
        }
        let word = args.at(1);
        match self.subcommands.iter().find(|row| word.eq_ignore_ascii_case(row.name.as_bytes())) {
            Some(row) if row.accepts(args.len()) => Ok(row),
            Some(row) => Err(CommandError::arity(&format!("{}|{}", self.name, row.name))),
            None => Err(CommandError::unknown_subcommand(self.name, word)),
        }
    }

    /// ACL categories, as COMMAND INFO shows them (`@read`, `@fast`, …).
    pub fn acl_categories(&self) -> Vec<&'static str> {
        let by_flag = [(Flags::WRITE, "@write"), (Flags::READONLY, "@read"), (Flags::ADMIN, "@admin")];
        let by_flag = by_flag.into_iter().chain([
            (Flags::ADMIN, "@dangerous"),
            (Flags::PUBSUB, "@pubsub"),
            (Flags::BLOCKING, "@blocking"),
        ]);
        let mut categories: Vec<_> =
            by_flag.filter(|(flag, _)| self.flags.has(*flag)).map(|(_, category)| category).collect();
        categories.push(if self.flags.has(Flags::FAST) { "@fast" } else { "@slow" });
        categories.extend(match self.group {
            _ if matches!(self.run, Run::Container) || !self.categories.is_empty() => None,
            "generic" => Some("@keyspace"),
            "string" => Some("@string"),
            "hash" => Some("@hash"),
            "connection" => Some("@connection"),
            "transactions" => Some("@transaction"),
            _ => None,
        });
        categories.extend_from_slice(self.categories);
        categories
    }

    /// Whether it may change keys.
    pub fn is_write(&self) -> bool {
        matches!(self.run, Run::Write(_))
    }

    /// Indices of the arguments that are keys. `NoKeys` if the arguments contradict the specification (a number of
    /// keys that is no number or too large).
    pub fn key_positions(&self, args: Args<'_>) -> Result<KeyPositions, NoKeys> {
        let mut positions = KeyPositions::new();
        for spec in self.keys {
            let (first, last, step) = match spec.find {
                Find::Range { last, step } => {
                    let last = if last < 0 {
                        args.len() as i64 + last as i64
                    } else {
                        spec.begin as i64 + last as i64
                    };
                    (spec.begin, last, step)
                }
                Find::Number { first, step } => {
                    let number =
                        parse_i64(args.at(spec.begin)).filter(|number| *number >= 0).ok_or(NoKeys)?;
                    let first = spec.begin + first;
                    (first, first as i64 + (number - 1).saturating_mul(step as i64), step)
                }
            };
            if last >= args.len() as i64 {
                return Err(NoKeys);
            }
            let last = usize::try_from(last).unwrap_or(0);
            positions.extend((first..=last).step_by(step).map(|position| position as u32));
        }
        Ok(positions)
    }
}

/// One key, the first argument.
pub const fn one_key(flags: &'static str) -> KeySpec {
    KeySpec { flags, begin: 1, find: Find::Range { last: 0, step: 1 } }
}

/// All arguments from the first on, every `step`th.
pub const fn all_keys(flags: &'static str, step: usize) -> KeySpec {
    KeySpec { flags, begin: 1, find: Find::Range { last: -1, step } }
}
