//! What the SCAN family has in common: the cursor and the options behind it.

use slotcast_wire::args::Args;

use crate::command::argument::{integer, is_word};
use crate::command::error::CommandError;
use crate::glob::matches;

/// Elements a call looks at without COUNT.
const DEFAULT_COUNT: usize = 10;

/// MATCH, COUNT and TYPE.
pub struct ScanOptions<'a> {
    /// About how many elements a call looks at; at least one.
    pub count: usize,
    pattern: Option<&'a [u8]>,
    type_name: Option<&'a [u8]>,
}

impl<'a> ScanOptions<'a> {
    /// Reads the arguments behind the cursor; only SCAN knows `typed` elements.
    pub fn parse(words: Args<'a>, typed: bool) -> Result<Self, CommandError> {
        let mut options = Self { count: DEFAULT_COUNT, pattern: None, type_name: None };
        for at in (0..words.len()).step_by(2) {
            let word = words.at(at);
            let value = words.get(at + 1).ok_or(CommandError::SYNTAX)?;
            if is_word(word, "count") {
                options.count = match integer(value)? {
                    count @ 1.. => count as usize,
                    _ => return Err(CommandError::SYNTAX),
                };
            } else if is_word(word, "match") {
                options.pattern = Some(value).filter(|pattern| *pattern != b"*");
            } else if is_word(word, "type") && typed {
                options.type_name = Some(value);
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        Ok(options)
    }

    /// Whether MATCH lets an element through.
    pub fn wants(&self, element: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| matches(pattern, element))
    }

    /// Whether TYPE lets a key through.
    pub fn wants_type(&self, name: &str) -> bool {
        self.type_name.is_none_or(|wanted| is_word(wanted, name))
    }
}

/// The cursor in the first argument.
pub fn cursor(arg: &[u8]) -> Result<u64, CommandError> {
    let digits = std::str::from_utf8(arg).ok().and_then(|text| text.parse().ok());
    digits.ok_or(CommandError::text("ERR invalid cursor"))
}
