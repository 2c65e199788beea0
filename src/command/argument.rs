//! Reading arguments: integers, words, moments. What several families read alike, with Redis's errors.

use slotcast_wire::number::parse_i64;

use crate::command::error::CommandError;
use crate::time::Millis;

/// Bytes of the longest string (Redis's `proto-max-bulk-len`); a command that would make a longer one is refused.
pub const MAX_STRING: usize = 512 << 20;

/// An integer.
pub fn integer(arg: &[u8]) -> Result<i64, CommandError> {
    parse_i64(arg).ok_or(CommandError::NOT_INTEGER)
}

/// Whether an argument is this word, in any case.
pub fn is_word(arg: &[u8], word: &str) -> bool {
    arg.eq_ignore_ascii_case(word.as_bytes())
}

/// How an argument gives a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Seconds from now.
    InSeconds,
    /// Milliseconds from now.
    InMillis,
    /// Unix time in seconds.
    AtSeconds,
    /// Unix time in milliseconds.
    AtMillis,
}

impl Moment {
    /// The moment as Unix time in milliseconds (negative: before 1970); `None` if it doesn't fit.
    pub fn resolve(self, amount: i64, now: Millis) -> Option<i64> {
        let base = i64::try_from(now).ok()?;
        match self {
            Moment::InSeconds => amount.checked_mul(1000)?.checked_add(base),
            Moment::InMillis => amount.checked_add(base),
            Moment::AtSeconds => amount.checked_mul(1000),
            Moment::AtMillis => Some(amount),
        }
    }

    /// The deadline of `command`, which must be positive before it is resolved (SET and its kin; EXPIRE is laxer).
    pub fn deadline(self, amount: &[u8], now: Millis, command: &str) -> Result<Millis, CommandError> {
        let amount = integer(amount)?;
        let at = self.resolve(amount, now).filter(|_| amount > 0).and_then(|at| Millis::try_from(at).ok());
        at.ok_or_else(|| CommandError::expire_time(command))
    }
}

/// The words `EX`, `PX`, `EXAT` and `PXAT`.
pub fn moment(word: &[u8]) -> Option<Moment> {
    let words = [
        ("ex", Moment::InSeconds),
        ("px", Moment::InMillis),
        ("exat", Moment::AtSeconds),
        ("pxat", Moment::AtMillis),
    ];
    words.into_iter().find(|(name, _)| is_word(word, name)).map(|(_, moment)| moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_resolve_or_overflow() {
        assert_eq!(Moment::InSeconds.resolve(2, 500), Some(2500));
        assert_eq!(Moment::InMillis.resolve(-2, 500), Some(498));
        assert_eq!(Moment::AtSeconds.resolve(i64::MAX / 1000 + 1, 0), None);
        assert_eq!(Moment::InMillis.resolve(i64::MAX, 1), None);
        assert_eq!(Moment::AtMillis.deadline(b"7", 9, "set"), Ok(7), "a deadline may have passed");
        assert_eq!(
            Moment::AtMillis.deadline(b"0", 9, "set"),
            Err(CommandError::text("ERR invalid expire time in 'set' command"))
        );
    }
}
