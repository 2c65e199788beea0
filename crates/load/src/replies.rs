//! Counts the replies in a stream without building them: GET and SET answer with one line or one bulk string.

/// What one scan over the received bytes found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Whole replies.
    pub replies: usize,
    /// Of these: errors, and nulls (a GET's miss).
    pub errors: usize,
    /// Nulls.
    pub misses: usize,
    /// Bytes they take; the rest is the beginning of the next reply.
    pub used: usize,
}

/// Walks over whole replies at the front of `bytes`; puts the first error's text into `first_error`.
/// An error when the server sends something that GET and SET never answer.
pub fn scan(bytes: &[u8], first_error: &mut Option<String>) -> Result<Seen, String> {
    let mut seen = Seen::default();
    while let Some(line) = line_at(&bytes[seen.used..]) {
        let rest = &bytes[seen.used..];
        let mut length = line + 2;
        match rest.first() {
            Some(b'+' | b':' | b'_') => seen.misses += usize::from(rest[0] == b'_'),
            Some(b'-') => {
                seen.errors += 1;
                first_error.get_or_insert_with(|| String::from_utf8_lossy(&rest[1..line]).into_owned());
            }
            Some(b'$') if rest.starts_with(b"$-1\r\n") => seen.misses += 1,
            Some(b'$') => {
                length += digits(&rest[1..line]).ok_or("a bulk string without a length")? + 2;
                if rest.len() < length {
                    break;
                }
            }
            _ => return Err(format!("unexpected reply: {:?}", String::from_utf8_lossy(&rest[..line]))),
        }
        seen.used += length;
        seen.replies += 1;
    }
    Ok(seen)
}

/// Where the first line ends (at its `\r`), if it is whole. Lines are short, so a plain walk is the fastest.
fn line_at(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|pair| pair == b"\r\n")
}

fn digits(text: &[u8]) -> Option<usize> {
    text.iter().try_fold(0_usize, |sum, byte| {
        byte.is_ascii_digit().then(|| sum.wrapping_mul(10) + usize::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_whole_replies_only() {
        let stream = b"+OK\r\n$3\r\nabc\r\n$-1\r\n-ERR no\r\n-MOVED 1\r\n$2\r\nx";
        let mut first = None;
        let seen = scan(stream, &mut first);
        assert_eq!(seen, Ok(Seen { replies: 5, errors: 2, misses: 1, used: stream.len() - 5 }));
        assert_eq!(first.as_deref(), Some("ERR no"));
        assert!(scan(b"*1\r\n", &mut first).is_err());
        for cut in 0..9 {
            assert_eq!(scan(&b"$3\r\nabc\r\n"[..cut], &mut first).map(|seen| seen.used), Ok(0));
        }
    }
}
