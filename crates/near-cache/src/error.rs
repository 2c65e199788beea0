//! What can go wrong, by what the caller may conclude from it.

use std::fmt;

/// See [`Error::is_certain`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The cluster answered with an error; the request did nothing.
    Refused(String),
    /// Nobody served the request in time; it did nothing.
    Unserved(String),
    /// The request was sent and its fate is unknown: a write may have taken effect, or may yet.
    Uncertain(String),
}

impl Error {
    /// Whether a write that failed like this certainly did nothing and may be repeated without thought.
    pub fn is_certain(&self) -> bool {
        !matches!(self, Error::Uncertain(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Refused(text) => write!(f, "the cluster refused: {text}"),
            Error::Unserved(text) => write!(f, "nobody served the request in time ({text}); it did nothing"),
            Error::Uncertain(text) => write!(f, "the outcome is unknown ({text}): it may have taken effect"),
        }
    }
}

impl std::error::Error for Error {}
