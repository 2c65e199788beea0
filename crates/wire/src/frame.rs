//! Frames in general: any RESP2 or RESP3 value, owned, and a decoder that takes its bytes as they come.
//!
//! For the reading side of a connection to a server: the near cache, the node that proxies, tests. A server reads requests
//! with [`crate::request`], which is ten times faster, and writes with [`crate::reply`].
//!
//! The decoder keeps an explicit stack instead of recursing, so that depth is a number it can bound, and it takes every
//! byte once, however the frame is cut into pieces. It allocates for what it received, not for what was announced. RESP3's
//! streamed (chunked) types are refused: no server sends them.

use std::fmt;

use crate::number;

/// Aggregates within aggregates; deeper is a [`FrameError`].
pub const MAX_DEPTH: usize = 32;

/// Bytes of one string (Redis's `proto-max-bulk-len`); longer is a [`FrameError`].
pub const MAX_BULK: usize = 512 << 20;

/// Elements of one aggregate; more is a [`FrameError`].
pub const MAX_ELEMENTS: usize = 1 << 27;

/// Bytes of a line (a length, an integer, a simple string, an error); longer is a [`FrameError`].
pub const MAX_LINE: usize = 64 << 10;

/// A RESP value. Source: the RESP3 specification; RESP2's types are among them.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// `+`
    Simple(String),
    /// `-`: the text begins with the error's code.
    Error(String),
    /// `:`
    Integer(i64),
    /// `$`
    Bulk(Vec<u8>),
    /// `$-1`, `*-1` and `_`
    Null,
    /// `#`
    Boolean(bool),
    /// `,`
    Double(f64),
    /// `(`: decimal digits.
    BigNumber(String),
    /// `!`: an error with a length.
    BulkError(Vec<u8>),
    /// `=`: three letters that name the format, and the text.
    Verbatim([u8; 3], Vec<u8>),
    /// `*`
    Array(Vec<Frame>),
    /// `%`: pairs in the order they came.
    Map(Vec<(Frame, Frame)>),
    /// `~`: elements in the order they came.
    Set(Vec<Frame>),
    /// `>`: out of band; its kind is the first element.
    Push(Vec<Frame>),
    /// `|`: pairs of attributes, and the frame they are about.
    Attributed(Vec<(Frame, Frame)>, Box<Frame>),
}

/// Why bytes are no frame; the connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// No type begins with this byte.
    UnknownType(u8),
    /// The text of a line isn't what its type asks for.
    Malformed,
    /// Beyond [`MAX_DEPTH`], [`MAX_BULK`], [`MAX_ELEMENTS`] or [`MAX_LINE`].
    TooLarge,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::UnknownType(byte) => write!(f, "no RESP type begins with '{}'", byte.escape_ascii()),
            FrameError::Malformed => f.write_str("malformed RESP frame"),
            FrameError::TooLarge => f.write_str("RESP frame is too deep or too large"),
        }
    }
}

impl std::error::Error for FrameError {}

/// An aggregate whose elements are still coming.
#[derive(Debug)]
struct Open {
    type_byte: u8,
    elements: Vec<Frame>,
    missing: usize,
}

/// Takes frames from a stream of bytes.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    stack: Vec<Open>,
    /// Bytes at the front that are known to hold no line end.
    searched: usize,
}

/// A token: a whole value, or the head of an aggregate of so many frames.
enum Token {
    Value(Frame),
    Head(u8, usize),
}

impl FrameDecoder {
    /// Takes bytes from the front of `buf` until a frame is whole or the bytes run out. Gives how many it took (they must
    /// not be shown again) and the frame, if it is whole. After an error the decoder is of no more use.
    pub fn decode(&mut self, buf: &[u8]) -> Result<(usize, Option<Frame>), FrameError> {
        let mut taken = 0;
        while let Some((token, used)) = self.token(&buf[taken..])? {
            taken += used;
            let frame = match token {
                Token::Value(frame) => self.add(frame)?,
                Token::Head(type_byte, missing) => self.open(type_byte, missing)?,
            };
            if frame.is_some() {
                return Ok((taken, frame));
            }
        }
        Ok((taken, None))
    }

    /// Whether a frame has begun and isn't whole.
    pub fn is_midway(&self) -> bool {
        !self.stack.is_empty()
    }

    fn open(&mut self, type_byte: u8, missing: usize) -> Result<Option<Frame>, FrameError> {
        if self.stack.len() == MAX_DEPTH {
            return Err(FrameError::TooLarge);
        }
        if missing == 0 {
            return self.add(close(type_byte, Vec::new())?);
        }
        self.stack.push(Open { type_byte, elements: Vec::new(), missing });
        Ok(None)
    }

    /// Adds a whole value to the innermost aggregate and closes those it completes; the frame, if it was the last value.
    fn add(&mut self, mut frame: Frame) -> Result<Option<Frame>, FrameError> {
        while let Some(open) = self.stack.last_mut() {
            open.elements.push(frame);
            open.missing -= 1;
            if open.missing > 0 {
                return Ok(None);
            }
            let Some(whole) = self.stack.pop() else { return Ok(None) };
            frame = close(whole.type_byte, whole.elements)?;
        }
        Ok(Some(frame))
    }

    /// The token at the front of `buf` and its bytes, unless it isn't whole.
    fn token(&mut self, buf: &[u8]) -> Result<Option<(Token, usize)>, FrameError> {
        let Some((line, after)) = self.line(buf)? else { return Ok(None) };
        let [type_byte, text @ ..] = line else { return Err(FrameError::Malformed) };
        let token = match type_byte {
            b'$' | b'!' | b'=' if text != b"-1" => {
                let len = length(text, MAX_BULK)?;
                let Some(body) = buf.get(after..after + len + 2) else { return Ok(None) };
                let body = body.strip_suffix(b"\r\n").ok_or(FrameError::Malformed)?;
                self.searched = 0;
                return Ok(Some((Token::Value(string(*type_byte, body)?), after + len + 2)));
            }
            b'*' | b'~' | b'>' if text != b"-1" => Token::Head(*type_byte, length(text, MAX_ELEMENTS)?),
            b'%' => Token::Head(b'%', 2 * length(text, MAX_ELEMENTS)?),
            b'|' => Token::Head(b'|', 2 * length(text, MAX_ELEMENTS)? + 1),
            type_byte => Token::Value(scalar(*type_byte, text)?),
        };
        self.searched = 0;
        Ok(Some((token, after)))
    }

    /// The first line without its end, and where the next byte is.
    fn line<'a>(&mut self, buf: &'a [u8]) -> Result<Option<(&'a [u8], usize)>, FrameError> {
        let window = &buf[..buf.len().min(MAX_LINE)];
        let found = window.iter().skip(self.searched).position(|&byte| byte == b'\n');
        let Some(end) = found.map(|end| self.searched + end) else {
            self.searched = window.len();
            return if window.len() == MAX_LINE { Err(FrameError::TooLarge) } else { Ok(None) };
        };
        self.searched = 0; // a string's length line is read again when its bytes are there
        let line = buf[..end].strip_suffix(b"\r").ok_or(FrameError::Malformed)?;
        Ok(Some((line, end + 1)))
    }
}

fn length(text: &[u8], limit: usize) -> Result<usize, FrameError> {
    let len =
        number::parse_i64(text).and_then(|len| usize::try_from(len).ok()).ok_or(FrameError::Malformed)?;
    if len > limit { Err(FrameError::TooLarge) } else { Ok(len) }
}

fn string(type_byte: u8, body: &[u8]) -> Result<Frame, FrameError> {
    match (type_byte, body) {
        (b'!', text) => Ok(Frame::BulkError(text.to_vec())),
        (b'=', [a, b, c, b':', text @ ..]) => Ok(Frame::Verbatim([*a, *b, *c], text.to_vec())),
        (b'=', _) => Err(FrameError::Malformed),
        (_, bytes) => Ok(Frame::Bulk(bytes.to_vec())),
    }
}

fn scalar(type_byte: u8, text: &[u8]) -> Result<Frame, FrameError> {
    let frame = match (type_byte, text) {
        (b'+', text) => Some(Frame::Simple(String::from_utf8_lossy(text).into_owned())),
        (b'-', text) => Some(Frame::Error(String::from_utf8_lossy(text).into_owned())),
        (b':', text) => number::parse_i64(text.strip_prefix(b"+").unwrap_or(text)).map(Frame::Integer),
        (b'_', b"") | (b'$' | b'*', b"-1") => Some(Frame::Null),
        (b'#', b"t") => Some(Frame::Boolean(true)),
        (b'#', b"f") => Some(Frame::Boolean(false)),
        (b',', text) => double(text).map(Frame::Double),
        (b'(', text) => big_number(text).map(Frame::BigNumber),
        (b'$' | b'!' | b'=' | b'*' | b'~' | b'>' | b'_' | b'#', _) => None,
        (other, _) => return Err(FrameError::UnknownType(other)),
    };
    frame.ok_or(FrameError::Malformed)
}

fn double(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn big_number(text: &[u8]) -> Option<String> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let valid = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    valid.then(|| String::from_utf8_lossy(text).into_owned())
}

/// The aggregate of all its elements.
fn close(type_byte: u8, mut elements: Vec<Frame>) -> Result<Frame, FrameError> {
    Ok(match type_byte {
        b'~' => Frame::Set(elements),
        b'>' => Frame::Push(elements),
        b'%' => Frame::Map(pairs(elements)),
        b'|' => {
            let about = elements.pop().ok_or(FrameError::Malformed)?;
            Frame::Attributed(pairs(elements), Box::new(about))
        }
        _ => Frame::Array(elements),
    })
}

fn pairs(elements: Vec<Frame>) -> Vec<(Frame, Frame)> {
    let mut pairs = Vec::with_capacity(elements.len() / 2);
    let mut elements = elements.into_iter();
    while let (Some(key), Some(value)) = (elements.next(), elements.next()) {
        pairs.push((key, value));
    }
    pairs
}

impl Frame {
    /// The bytes of a bulk, simple or verbatim string.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Frame::Simple(text) => Some(text.as_bytes()),
            Frame::Bulk(bytes) | Frame::Verbatim(_, bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Whether it is made of other frames.
    pub fn is_aggregate(&self) -> bool {
        matches!(
            self,
            Frame::Array(_) | Frame::Map(_) | Frame::Set(_) | Frame::Push(_) | Frame::Attributed(..)
        )
    }

    /// The text of an error.
    pub fn as_error(&self) -> Option<std::borrow::Cow<'_, str>> {
        match self {
            Frame::Error(text) => Some(text.as_str().into()),
            Frame::BulkError(text) => Some(String::from_utf8_lossy(text)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The frames in `bytes`, shown a piece at a time, each as it is displayed; then what is missing or wrong.
    fn shown(bytes: &[u8], piece: usize) -> String {
        let mut decoder = FrameDecoder::default();
        let mut texts = Vec::new();
        let mut pending = Vec::new();
        for piece in bytes.chunks(piece) {
            pending.extend_from_slice(piece);
            loop {
                match decoder.decode(&pending) {
                    Ok((used, frame)) => {
                        pending.drain(..used);
                        let Some(frame) = frame else { break };
                        texts.push(frame.to_string());
                    }
                    Err(error) => return format!("{}\n!{error}", texts.join("\n")).trim().to_owned(),
                }
            }
        }
        if decoder.is_midway() || !pending.is_empty() {
            texts.push("...".to_owned());
        }
        texts.join("\n")
    }

    #[track_caller]
    fn assert_shown(bytes: &str, expected: &str) {
        for piece in [bytes.len().max(1), 1, 3] {
            assert_eq!(shown(bytes.as_bytes(), piece), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_not_whole_is_waited_for() {
        for whole in ["*2\r\n:1\r\n%1\r\n+a\r\n$2\r\nbc\r\n", "=7\r\ntxt:abc\r\n", "|1\r\n+a\r\n+b\r\n_\r\n"]
        {
            for end in 1..whole.len() {
                assert_shown(&whole[..end], "...");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for bytes in [
            "+OK\n",
            "\r\n",
            ":x\r\n",
            "#x\r\n",
            ",x\r\n",
            "(1x\r\n",
            "_x\r\n",
            "$x\r\n",
            "=3\r\nabc\r\n",
            "$1\r\nabc",
        ] {
            assert_shown(bytes, "!malformed RESP frame");
        }
        assert_shown("?1\r\n", "!no RESP type begins with '?'");
        assert_shown("$?\r\n", "!malformed RESP frame");
    }

    #[test]
    fn what_is_announced_is_bounded() {
        let too_large = "!RESP frame is too deep or too large";
        assert_shown("$536870913\r\n", too_large);
        assert_shown("*134217729\r\n", too_large);
        assert_shown("*134217728\r\n:1\r\n", "...");
        assert_shown(&"*1\r\n".repeat(MAX_DEPTH), "...");
        assert_shown(&"*1\r\n".repeat(MAX_DEPTH + 1), too_large);
        assert_eq!(shown("+".repeat(MAX_LINE).as_bytes(), MAX_LINE), too_large);
    }
}
