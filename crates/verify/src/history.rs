//! What clients note about each call, and how it is written down for people.

use std::fmt;

use crate::register::Op;

/// One call of one client on one key. Times in nanoseconds of one monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Who called.
    pub client: u16,
    /// What was done, and what came of it.
    pub op: Op,
    /// Before the first byte was sent.
    pub invoked: u64,
    /// After the last byte was received; `None`: the outcome is unknown.
    pub returned: Option<u64>,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |ns: u64| ns as f64 / 1e6;
        write!(f, "{:>12.3} .. ", ms(self.invoked))?;
        match self.returned {
            Some(returned) => write!(f, "{:>12.3}", ms(returned))?,
            None => write!(f, "{:>12}", "?")?,
        }
        write!(f, " ms  client {:<3} {}", self.client, self.op)
    }
}
