//! The error answers of commands: data like any other reply, equal on every replica.

use std::borrow::Cow;

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

    /// `ERR invalid expire time in 'name' command`.
    pub fn expire_time(name: &str) -> Self {
        Self(format!("ERR invalid expire time in '{}' command", name.to_lowercase()).into())
    }
}

impl From<WrongType> for CommandError {
    fn from(_: WrongType) -> Self {
        Self::WRONG_TYPE
    }
}
