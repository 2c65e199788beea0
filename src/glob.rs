//! Redis's glob patterns (`KEYS`, `SCAN MATCH`, `CONFIG GET`, `PSUBSCRIBE`): `*`, `?`, `[a-c]`, `[^x]`, `\` escapes.
//!
//! Bytes, not text. Redis's own matcher calls itself at every `*` and takes exponential time on patterns such as
//! `a*a*a*b`; here only the last `*` is ever tried again, which decides the same language in O(pattern × text).

/// Does all of `text` match `pattern`? Case counts.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    search(pattern, text, false)
}

/// As [`matches`], but ASCII letters match in either case (names of directives).
pub fn matches_ignore_case(pattern: &[u8], text: &[u8]) -> bool {
    search(pattern, text, true)
}

fn search(pattern: &[u8], text: &[u8], fold: bool) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None; // pattern after the star, text it has swallowed up to
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            last_star = Some((p, t));
            continue;
        }
        let step = match text.get(t) {
            None if p == pattern.len() => return true,
            None => return false, // only more text could help, and there is none
            Some(&byte) => one(&pattern[p..], byte, fold),
        };
        match (step, last_star) {
            (Some(width), _) => (p, t) = (p + width, t + 1),
            (None, None) => return false,
            (None, Some((after, swallowed))) => {
                (p, t) = (after, swallowed + 1);
                last_star = Some((after, swallowed + 1));
            }
        }
    }
}

/// Matches the first element of `pattern` (never a star) with one byte: the element's width, or `None`.
fn one(pattern: &[u8], byte: u8, fold: bool) -> Option<usize> {
    let same = |a: u8| if fold { a.eq_ignore_ascii_case(&byte) } else { a == byte };
    match *pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', ref class @ ..] => {
            let (hit, width) = class_holds(class, byte, fold);
            hit.then_some(1 + width)
        }
        [b'\\', escaped, ..] => same(escaped).then_some(2),
        [literal, ..] => same(literal).then_some(1),
    }
}

/// `class` begins after `[`. An unclosed class ends with the pattern, as in Redis.
fn class_holds(class: &[u8], byte: u8, fold: bool) -> (bool, usize) {
    let lower = |b: u8| if fold { b.to_ascii_lowercase() } else { b };
    let byte = lower(byte);
    let negated = class.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut hit = false;
    loop {
        match class[at..] {
            [] => return (hit != negated, at),
            [b']', ..] => return (hit != negated, at + 1),
            [b'\\', escaped, ..] => {
                hit |= lower(escaped) == byte;
                at += 2;
            }
            [from, b'-', to, ..] => {
                let (from, to) = (lower(from.min(to)), lower(from.max(to)));
                hit |= (from..=to).contains(&byte);
                at += 3;
            }
            [literal, ..] => {
                hit |= lower(literal) == byte;
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_redis_does() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("h\\?llo", "h?llo", true),
            ("h\\?llo", "hello", false),
            ("[\\]]", "]", true),
            ("[abc", "c", true),
            ("a\\", "a\\", true),
            ("*a*b", "xxaxxaxxb", true),
            ("*a*b", "xxaxxaxxbc", false),
            ("user:*:name", "user:1:name", true),
            ("Abc", "abc", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} on {text}");
        }
        assert!(matches_ignore_case(b"MAX[M-O]em*", b"maxmemory"));
    }

    #[test]
    fn many_stars_stay_cheap() {
        let pattern = b"a*".repeat(50);
        assert!(!matches(&[&pattern[..], b"b"].concat(), &b"a".repeat(5_000)));
    }
}
