//! `notify-keyspace-events`: which events are announced, and on which channels.
//!
//! The letters are Redis's. CONFIG GET gives them in Redis's order, with one improvement: `n` is shown beside `A` too,
//! or setting what one got would lose it.

/// Letters of classes, in the order in which they are shown. `A` stands for the first [`ALL`] of them.
const CLASSES: &[u8; 11] = b"g$lshzxetdn";
const ALL: usize = 10;
/// Where events are announced, and misses, which no `A` includes.
const OTHERS: &[u8; 3] = b"KEm";

/// A set of letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotifyEvents(u32);

/// A letter nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownLetter;

impl NotifyEvents {
    /// From letters in any order; none: nothing is announced.
    pub fn parse(letters: &str) -> Result<Self, UnknownLetter> {
        letters.bytes().try_fold(Self(0), |set, letter| match letter {
            b'A' => Ok(Self(set.0 | ((1 << ALL) - 1))),
            letter => bit(letter).map(|bit| Self(set.0 | bit)).ok_or(UnknownLetter),
        })
    }

    /// The letters, as CONFIG GET shows them.
    pub fn letters(self) -> String {
        let all = (1 << ALL) - 1;
        let begin = if self.0 & all == all { "A" } else { "" };
        let shown = CLASSES.iter().chain(OTHERS).filter(|letter| {
            let bit = bit(**letter).unwrap_or(0);
            self.0 & bit != 0 && (begin.is_empty() || bit & all == 0)
        });
        begin.chars().chain(shown.map(|letter| char::from(*letter))).collect()
    }

    /// Whether a letter is among them.
    pub fn admits(self, letter: u8) -> bool {
        bit(letter).is_some_and(|bit| self.0 & bit != 0)
    }

    /// As a number, to be kept in an atomic.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// From [`NotifyEvents::bits`].
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Whether any event is announced on any channel: a channel and a class are needed.
    pub fn announces(self) -> bool {
        let anywhere = self.admits(b'K') || self.admits(b'E');
        anywhere && CLASSES.iter().chain(b"m").any(|letter| self.admits(*letter))
    }
}

fn bit(letter: u8) -> Option<u32> {
    let at = CLASSES.iter().chain(OTHERS).position(|known| *known == letter)?;
    Some(1 << at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_shown_as_redis_orders_them() {
        let cases = [
            ("", ""),
            ("KEA", "AKE"),
            ("AKEm", "AKEm"),
            ("mnEglx", "glxnEm"),
            ("tdezxshl$gEKm", "AKEm"),
            ("EKm", "KEm"),
            ("Kn$", "$nK"),
            ("AKEn", "AnKE"),
        ];
        for (letters, shown) in cases {
            let set = NotifyEvents::parse(letters).unwrap();
            assert_eq!(set.letters(), shown, "{letters}");
            assert_eq!(NotifyEvents::parse(shown), Ok(set), "what was shown can be set");
        }
        assert_eq!(NotifyEvents::parse("KEy"), Err(UnknownLetter));
    }

    #[test]
    fn a_channel_and_a_class_are_needed() {
        let announces = |letters| NotifyEvents::parse(letters).unwrap().announces();
        assert!(announces("Kg") && announces("Em") && announces("KEA"));
        assert!(!announces("") && !announces("KE") && !announces("A"));
    }
}
