//! Splitting a line of text into arguments, with the quoting rules Redis has for inline commands, `redis-cli` and
//! `redis.conf`.
//!
//! `"double quotes"` know `\n \r \t \b \a`, `\xHH` and a backslash before any other byte; `'single quotes'` only `\'`. A
//! closing quote must end its argument. Source: `sdssplitargs` of Redis.

/// The arguments of `line` (without its line end), none if it is blank. `None` if quotes are unbalanced or a closing quote
/// is followed by anything but a space.
pub fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut args = Vec::new();
    let mut rest = line;
    loop {
        let blanks = rest.iter().take_while(|&&byte| is_space(byte)).count();
        rest = &rest[blanks..];
        if rest.is_empty() {
            return Some(args);
        }
        let (arg, used) = argument(rest)?;
        args.push(arg);
        rest = &rest[used..];
    }
}

/// C's `isspace` in the "C" locale.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// The argument that begins at the first byte of `text`, and the bytes it took.
fn argument(text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut arg = Vec::new();
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => break,
            b'"' | b'\'' => {
                at += 1 + quoted(&text[at + 1..], byte, &mut arg)?;
                return text.get(at).is_none_or(|&next| is_space(next)).then_some((arg, at));
            }
            _ => arg.push(byte),
        }
        at += 1;
    }
    Some((arg, at))
}

/// Appends what stands before the closing `quote` in `text`; the bytes taken, the quote included.
fn quoted(text: &[u8], quote: u8, arg: &mut Vec<u8>) -> Option<usize> {
    let mut at = 0;
    loop {
        let (byte, used) = match text.get(at..)? {
            [byte, ..] if *byte == quote => return Some(at + 1),
            [b'\\', b'\'', ..] if quote == b'\'' => (b'\'', 2),
            [b'\\', b'x', high, low, ..] if quote == b'"' && hex(*high).is_some() && hex(*low).is_some() => {
                (hex(*high)? << 4 | hex(*low)?, 4)
            }
            [b'\\', escaped, ..] if quote == b'"' => (unescape(*escaped), 2),
            [byte, ..] => (*byte, 1),
            [] => return None,
        };
        arg.push(byte);
        at += used;
    }
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|value| value as u8)
}

fn unescape(letter: u8) -> u8 {
    match letter {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Option<Vec<String>> {
        let args = split(line.as_bytes())?;
        Some(args.iter().map(|arg| arg.escape_ascii().to_string()).collect())
    }

    fn some(args: &[&str]) -> Option<Vec<String>> {
        Some(args.iter().map(|arg| arg.to_string()).collect())
    }

    #[test]
    fn words_are_split_at_spaces() {
        assert_eq!(texts(""), some(&[]));
        assert_eq!(texts(" \t\x0b "), some(&[]));
        assert_eq!(texts("  set  k\tv "), some(&["set", "k", "v"]));
    }

    #[test]
    fn quotes_and_escapes_are_taken_as_redis_takes_them() {
        assert_eq!(texts(r#"set k "a b""#), some(&["set", "k", "a b"]));
        assert_eq!(texts(r#""\x41\n\"\q\xzz""#), some(&[r#"A\n\"qxzz"#]));
        assert_eq!(texts(r"'it\'s \n'"), some(&[r"it\'s \\n"]));
        assert_eq!(texts(r#"ab"cd" x"#), some(&["abcd", "x"]), "a quote may open in mid-word");
        assert_eq!(texts(r#""" ''"#), some(&["", ""]));
    }

    #[test]
    fn unbalanced_quotes_are_refused() {
        for line in [r#"set "k"#, "set 'k", r#"set "k"x"#, "'a''b'", r#""\"#, r#""a\""#, r"'a\'"] {
            assert_eq!(texts(line), None, "{line}");
        }
    }
}
