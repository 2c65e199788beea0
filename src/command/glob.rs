//! Patterns of KEYS, SCAN MATCH and (later) PSUBSCRIBE: Redis's `stringmatchlen`, byte for byte, quirks included, but
//! without its recursion: a mismatch goes back to the last `*` only, which suffices because an earlier `*` could not
//! reach further. So a match costs at most pattern × text steps.
//!
//! `*` any bytes, `?` one byte, `[a-c]` `[^a]` one byte of a set, `\` takes the next byte as it is.

/// Whether `text` matches `pattern` as a whole. As in Redis, empty text matches only the empty pattern (the callers treat
/// a pattern of one `*` apart).
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    let (mut p, mut t) = (0, 0);
    // The pattern behind the last `*`, and the text it is tried on.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            star = Some((p, t));
        } else if let Some(used) = one(&pattern[p..], text[t]) {
            p += used;
            t += 1;
        } else if let Some((behind, tried)) = star {
            (p, t) = (behind, tried + 1);
            star = Some((p, t));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// The length of the pattern's first element if it matches `byte`. The element is not `*`.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', set @ ..] => in_set(set, byte).map(|used| used + 1),
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [literal, ..] => (*literal == byte).then_some(1),
    }
}

/// The length of a set (behind its `[`, closing `]` included) if `byte` is in it. A set that is never closed ends with the
/// pattern.
fn in_set(set: &[u8], byte: u8) -> Option<usize> {
    let negated = set.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut found = false;
    let end = loop {
        match &set[at..] {
            [] => break at,
            [b'\\', escaped, ..] => {
                found |= *escaped == byte;
                at += 2;
            }
            [b']', ..] => break at + 1,
            [low, b'-', high, ..] => {
                // Redis compares these as signed characters.
                let (low, high, byte) = (*low as i8, *high as i8, byte as i8);
                found |= (low.min(high)..=low.max(high)).contains(&byte);
                at += 3;
            }
            [literal, ..] => {
                found |= *literal == byte;
                at += 1;
            }
        }
    };
    (found != negated).then_some(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Redis's recursion, as it is in `util.c`, except for its shortcut through hopeless patterns.
    fn recursive(mut pattern: &[u8], mut text: &[u8]) -> bool {
        while !pattern.is_empty() && !text.is_empty() {
            if pattern[0] == b'*' {
                while pattern.get(1) == Some(&b'*') {
                    pattern = &pattern[1..];
                }
                if pattern.len() == 1 {
                    return true;
                }
                return (0..text.len()).any(|skip| recursive(&pattern[1..], &text[skip..]));
            }
            match one(pattern, text[0]) {
                Some(used) => (pattern, text) = (&pattern[used..], &text[1..]),
                None => return false,
            }
            if text.is_empty() {
                while pattern.first() == Some(&b'*') {
                    pattern = &pattern[1..];
                }
            }
        }
        pattern.is_empty() && text.is_empty()
    }

    #[test]
    fn elements_match_as_documented() {
        for (pattern, text, expected) in [
            ("h?llo", "hello", true),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hbllo", true),
            (r"h\?llo", "hello", false),
            (r"h\?llo", "h?llo", true),
            ("*", "", false),
            ("", "", true),
            ("a**", "a", true),
            ("[", "[", false),
            ("[^", "x", true),
            ("[a", "a", true),
            ("[a-", "-", true),
            (r"[\]]", "]", true),
            (r"a\", r"a\", true),
            ("[]a", "a", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
        assert!(matches(b"[\x7f-\x80]", b"a"), "a range of signed characters");
    }

    #[test]
    fn a_hopeless_pattern_costs_little() {
        let pattern = b"a*".repeat(50_000);
        assert!(!matches(&[&pattern[..], b"b"].concat(), &b"a".repeat(100_000)));
    }

    proptest! {
        #[test]
        fn going_back_to_the_last_star_suffices(pattern in r"[ab*?\[\]^\\-]{0,12}", text in "[ab^-]{0,12}") {
            prop_assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), recursive(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
