//! Frames as `redis-cli` shows them: what golden tests compare and people read.
//!
//! Follows `cliFormatReplyTTY` of redis-cli 7.0, so that an expectation can be pasted from a terminal.

use std::fmt;

use crate::frame::Frame;
use crate::number;

impl fmt::Display for Frame {
    /// As `redis-cli` shows a reply, without a line break at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, "")
    }
}

impl Frame {
    fn write(&self, f: &mut fmt::Formatter<'_>, indent: &str) -> fmt::Result {
        match self {
            Frame::Simple(text) => f.write_str(text),
            Frame::Error(text) => write!(f, "(error) {text}"),
            Frame::BulkError(text) => write!(f, "(error) {}", String::from_utf8_lossy(text)),
            Frame::Integer(n) => write!(f, "(integer) {n}"),
            Frame::Bulk(bytes) => write!(f, "\"{}\"", Quoted(bytes)),
            Frame::Null => f.write_str("(nil)"),
            Frame::Boolean(value) => write!(f, "({value})"),
            Frame::Double(value) => {
                let mut text = Vec::new();
                number::write_double_shortest(&mut text, *value);
                write!(f, "(double) {}", String::from_utf8_lossy(&text))
            }
            Frame::BigNumber(digits) => write!(f, "(big number) {digits}"),
            Frame::Verbatim(_, text) => f.write_str(&String::from_utf8_lossy(text)),
            Frame::Array(elements) => write_elements(f, indent, elements, ')', "(empty array)"),
            Frame::Set(elements) => write_elements(f, indent, elements, '~', "(empty set)"),
            Frame::Push(elements) => write_elements(f, indent, elements, '>', "(empty push)"),
            Frame::Map(pairs) => write_pairs(f, indent, pairs, '#', "(empty hash)"),
            Frame::Attributed(pairs, about) => {
                write_pairs(f, indent, pairs, '|', "(empty attributes)")?;
                write!(f, "\n{indent}")?;
                about.write(f, indent)
            }
        }
    }
}

/// A frame as it is shown within another.
struct Shown<'a> {
    frame: &'a Frame,
    indent: &'a str,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.frame.write(f, self.indent)
    }
}

/// Bytes as `redis-cli` quotes them.
struct Quoted<'a>(&'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in self.0 {
            match byte {
                b'\\' | b'"' => write!(f, "\\{}", byte as char)?,
                b'\n' => f.write_str("\\n")?,
                b'\r' => f.write_str("\\r")?,
                b'\t' => f.write_str("\\t")?,
                0x07 => f.write_str("\\a")?,
                0x08 => f.write_str("\\b")?,
                b' '..=b'~' => write!(f, "{}", byte as char)?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        Ok(())
    }
}

fn write_elements(
    f: &mut fmt::Formatter<'_>,
    indent: &str,
    elements: &[Frame],
    sign: char,
    empty: &str,
) -> fmt::Result {
    if elements.is_empty() {
        return f.write_str(empty);
    }
    let width = elements.len().to_string().len();
    let deeper = format!("{indent}{:width$}  ", "");
    for (i, element) in elements.iter().enumerate() {
        if i > 0 {
            write!(f, "\n{indent}")?;
        }
        write!(f, "{:>width$}{sign} ", i + 1)?;
        element.write(f, &deeper)?;
    }
    Ok(())
}

fn write_pairs(
    f: &mut fmt::Formatter<'_>,
    indent: &str,
    pairs: &[(Frame, Frame)],
    sign: char,
    empty: &str,
) -> fmt::Result {
    if pairs.is_empty() {
        return f.write_str(empty);
    }
    let width = pairs.len().to_string().len();
    let deeper = format!("{indent}{:width$}  ", "");
    for (i, (key, value)) in pairs.iter().enumerate() {
        if i > 0 {
            write!(f, "\n{indent}")?;
        }
        write!(f, "{:>width$}{sign} ", i + 1)?;
        key.write(f, &deeper)?;
        f.write_str(" => ")?;
        let shown = Shown { frame: value, indent: &deeper }.to_string();
        if value.is_aggregate() && shown.contains('\n') {
            write!(f, "\n{deeper}")?;
        }
        f.write_str(&shown)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::frame::FrameDecoder;

    /// Each frame in `bytes`, as it is displayed.
    fn shown(bytes: &str) -> String {
        let mut rest = bytes.as_bytes();
        let mut texts = Vec::new();
        while !rest.is_empty() {
            let (used, frame) = FrameDecoder::default().decode(rest).expect("valid");
            texts.push(frame.expect("whole").to_string());
            rest = &rest[used..];
        }
        texts.join("\n")
    }

    #[track_caller]
    fn assert_shown(bytes: &str, expected: &str) {
        assert_eq!(shown(bytes), expected);
    }

    #[test]
    fn scalars_look_as_in_redis_cli() {
        assert_shown(
            "+OK\r\n-ERR no\r\n:-3\r\n$3\r\na\"\x01\r\n",
            "OK\n(error) ERR no\n(integer) -3\n\"a\\\"\\x01\"",
        );
        assert_shown("$-1\r\n*-1\r\n_\r\n#t\r\n#f\r\n", "(nil)\n(nil)\n(nil)\n(true)\n(false)");
        assert_shown(
            ",3.141\r\n,inf\r\n(12345678901234567890\r\n",
            "(double) 3.141\n(double) inf\n(big number) 12345678901234567890",
        );
        assert_shown("!6\r\nERR no\r\n=7\r\ntxt:abc\r\n", "(error) ERR no\nabc");
    }

    /// What redis-cli 7.0.15 printed for `COMMAND INFO get` (a part of it) in RESP3.
    #[test]
    fn aggregates_look_as_in_redis_cli() {
        assert_shown(
            "*1\r\n*3\r\n$3\r\nget\r\n~2\r\n+readonly\r\n+fast\r\n~1\r\n%2\r\n$5\r\nflags\r\n~2\r\n+RO\r\n+access\r\n\
             $4\r\nspec\r\n%1\r\n$5\r\nindex\r\n:1\r\n",
            "1) 1) \"get\"\n   2) 1~ readonly\n      2~ fast\n   3) 1~ 1# \"flags\" => \n            1~ RO\n            \
             2~ access\n         2# \"spec\" => 1# \"index\" => (integer) 1",
        );
        assert_shown("*0\r\n~0\r\n%0\r\n>0\r\n", "(empty array)\n(empty set)\n(empty hash)\n(empty push)");
        let ten = format!("*10\r\n{}", ":1\r\n".repeat(10));
        assert!(shown(&ten).starts_with(" 1) (integer) 1\n 2) "));
        assert_shown(">2\r\n+invalidate\r\n*1\r\n+k\r\n", "1> invalidate\n2> 1) k");
        assert_shown("|1\r\n+ttl\r\n:9\r\n$1\r\nv\r\n", "1| ttl => (integer) 9\n\"v\"");
    }
}
