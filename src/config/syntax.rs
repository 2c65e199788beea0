//! The syntax of redis.conf: a directive a line, words apart by blanks, quotes, `#` comments. Knows no directives.
//!
//! Inside `"…"` the escapes `\n \r \t \b \a \xHH \"` hold; inside `'…'` only `\'` does; a closing quote must be
//! followed by a blank or the end of the line (`sdssplitargs` in Redis).

/// Where a setting was read: what an error message begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file (or `<stdin>`) and its line, counted from 1.
    Line(String, usize),
    /// A flag of the command line.
    Flag(&'static str),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Line(file, line) => write!(f, "{file}:{line}"),
            Origin::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// The words of one line; none for an empty line or a comment. `Err` says what is wrong with the quoting.
pub fn words(line: &str) -> Result<Vec<String>, &'static str> {
    let mut rest = line.trim();
    let mut words = Vec::new();
    if rest.starts_with('#') {
        return Ok(words);
    }
    while !rest.is_empty() {
        let (word, after) = word(rest)?;
        words.push(word);
        rest = after.trim_start();
    }
    Ok(words)
}

fn word(text: &str) -> Result<(String, &str), &'static str> {
    let mut word = String::new();
    for (at, c) in text.char_indices() {
        match c {
            c if c.is_whitespace() => return Ok((word, &text[at..])),
            '"' | '\'' => {
                let after = quoted(&text[at + 1..], c, &mut word)?;
                if after.starts_with(|next: char| !next.is_whitespace()) {
                    return Err("a closing quote must be followed by a blank");
                }
                return Ok((word, after));
            }
            c => word.push(c),
        }
    }
    Ok((word, ""))
}

/// Reads up to the closing `quote` into `word`; returns what follows it.
fn quoted<'a>(text: &'a str, quote: char, word: &mut String) -> Result<&'a str, &'static str> {
    let mut rest = text;
    loop {
        let c = rest.chars().next().ok_or("unbalanced quotes")?;
        let after = &rest[c.len_utf8()..];
        rest = after;
        match c {
            c if c == quote => return Ok(after),
            '\\' if quote == '"' => rest = escape(after, word)?,
            '\\' if after.starts_with('\'') => {
                word.push('\'');
                rest = &after[1..];
            }
            c => word.push(c),
        }
    }
}

fn escape<'a>(text: &'a str, word: &mut String) -> Result<&'a str, &'static str> {
    let code = text.strip_prefix('x').and_then(|hex| hex.get(..2));
    if let Some(byte) = code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
        if !byte.is_ascii() {
            return Err("\\x escapes above 7f are not text: write the character itself");
        }
        word.push(char::from(byte));
        return Ok(&text[3..]);
    }
    let c = text.chars().next().ok_or("unbalanced quotes")?;
    word.push(match c {
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'b' => '\u{8}',
        'a' => '\u{7}',
        other => other,
    });
    Ok(&text[c.len_utf8()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_as_redis_does() {
        let split = |line: &str| words(line).unwrap();
        assert_eq!(split("  port   7001\t"), ["port", "7001"]);
        assert_eq!(split("# port 7001"), Vec::<String>::new());
        assert_eq!(split(""), Vec::<String>::new());
        assert_eq!(split(r#"save """#), ["save", ""]);
        assert_eq!(split(r#"requirepass "a b\x41\n\"" "#), ["requirepass", "a bA\n\""]);
        assert_eq!(split(r"requirepass 'it\'s \n'"), ["requirepass", r"it's \n"]);
        assert_eq!(split("bind 127.0.0.1 -::1"), ["bind", "127.0.0.1", "-::1"]);
    }

    #[test]
    fn names_broken_quotes() {
        for line in [r#"requirepass "abc"#, "requirepass 'abc", r#"requirepass "a\"#] {
            assert_eq!(words(line), Err("unbalanced quotes"), "{line}");
        }
        assert!(words(r#"requirepass "a"b"#).is_err());
        assert!(words(r#"requirepass "\xff""#).is_err());
    }
}
