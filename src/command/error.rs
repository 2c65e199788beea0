//! The error answers of commands: data like any other reply, equal on every replica.

use std::borrow::Cow;

use slotcast_wire::args::Args;

use crate::keyspace::locked::WrongType;

/// An error answer, without the leading `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandError(pub Cow<'static, str>);

/// What a command's function returns: its reply is written, or an error is to be.
pub type Outcome = Result<(), CommandError>;

impl CommandError {
    /// Wrong words in the command.
    pub const SYNTAX: Self = Self(Cow::Borrowed("ERR syntax error"));
    /// A number was expected.
    pub const NOT_INTEGER: Self = Self(Cow::Borrowed("ERR value is not an integer or out of range"));
    /// A floating point number was expected.
    pub const NOT_FLOAT: Self = Self(Cow::Borrowed("ERR value is not a valid float"));
    /// The command is for another type.
    pub const WRONG_TYPE: Self =
        Self(Cow::Borrowed("WRONGTYPE Operation against a key holding the wrong kind of value"));
    /// The key has to exist.
    pub const NO_SUCH_KEY: Self = Self(Cow::Borrowed("ERR no such key"));
    /// A counter left the range of 64 bits.
    pub const OVERFLOW: Self = Self(Cow::Borrowed("ERR increment or decrement would overflow"));
    /// A sum of floating point numbers is none.
    pub const NOT_FINITE: Self = Self(Cow::Borrowed("ERR increment would produce NaN or Infinity"));
    /// A string would grow beyond [`crate::command::argument::MAX_STRING`].
    pub const STRING_TOO_LONG: Self =
        Self(Cow::Borrowed("ERR string exceeds maximum allowed size (proto-max-bulk-len)"));
    /// A number is outside what the command takes.
    pub const OUT_OF_RANGE: Self = Self(Cow::Borrowed("ERR value is out of range"));
    /// Memory is short and the policy lets nothing go.
    pub const OUT_OF_MEMORY: Self =
        Self(Cow::Borrowed("OOM command not allowed when used memory > 'maxmemory'."));

    /// An error with a constant text.
    pub const fn text(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// `ERR wrong number of arguments for 'name' command`.
    pub fn arity(name: &str) -> Self {
        Self(format!("ERR wrong number of arguments for '{}' command", name.to_lowercase()).into())
    }

    /// A number is outside what the command takes, and what it takes.
    pub fn not_between(min: i64, max: i64) -> Self {
        Self(format!("ERR value is out of range, value must between {min} and {max}").into())
    }

    /// What a request gets whose command nobody knows.
    pub fn unknown_command(args: Args<'_>) -> Self {
        let mut shown = String::new();
        for arg in args.from(1) {
            let Some(room) = MAX_SHOWN.checked_sub(shown.len()).filter(|room| *room > 0) else { break };
            shown.push_str(&format!("'{}' ", text_of(arg, room)));
        }
        let name = text_of(args.name(), MAX_SHOWN);
        Self(format!("ERR unknown command '{name}', with args beginning with: {shown}").into())
    }

    /// What a container's request gets whose second word nobody knows.
    pub fn unknown_subcommand(container: &str, word: &[u8]) -> Self {
        let (word, container) = (text_of(word, MAX_SHOWN), container.to_uppercase());
        Self(format!("ERR unknown subcommand '{word}'. Try {container} HELP.").into())
    }

    /// `ERR invalid expire time in 'name' command`.
    pub fn expire_time(name: &str) -> Self {
        Self(format!("ERR invalid expire time in '{}' command", name.to_lowercase()).into())
    }
}

/// Bytes of a request that an error shows.
const MAX_SHOWN: usize = 128;

fn text_of(bytes: &[u8], most: usize) -> Cow<'_, str> {
    String::from_utf8_lossy(&bytes[..bytes.len().min(most)])
}

impl From<WrongType> for CommandError {
    fn from(_: WrongType) -> Self {
        Self::WRONG_TYPE
    }
}
