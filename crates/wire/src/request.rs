//! The request parser: bytes a client sent, in; where its arguments lie, out.
//!
//! A request is an array of bulk strings or an inline command. The parser does no I/O and owns no buffer: the caller shows
//! it the bytes from the current request's first one on, again and longer each time, and it resumes where it stopped, so
//! that a request of a million arguments in a million pieces still costs linear time. It allocates in proportion to the
//! bytes received, never to a length that was only claimed.
//!
//! Errors, limits and leniency are those of Redis 7.0 (`processInputBuffer`): the two bytes that end a line or a bulk
//! string are skipped, not looked at. What a command is, is not known here.

use std::fmt;

use crate::args::{Args, OwnedArgs, Span, Spans};
use crate::inline;
use crate::number;

/// Arguments a client may send before it has authenticated.
pub const UNAUTHENTICATED_ARGS: usize = 10;

/// Bytes of an argument a client may send before it has authenticated.
pub const UNAUTHENTICATED_BULK: usize = 16 * 1024;

/// What a request may measure; beyond it the parser gives a [`ProtocolError`] and the connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one argument (`proto-max-bulk-len`).
    pub max_bulk: usize,
    /// Number of arguments.
    pub max_args: usize,
    /// Bytes of an inline command or a length line.
    pub max_inline: usize,
    /// Without it [`UNAUTHENTICATED_ARGS`] and [`UNAUTHENTICATED_BULK`] hold too.
    pub authenticated: bool,
}

impl Limits {
    /// Redis's: 512 MiB an argument, 1024 * 1024 arguments, 64 KiB a line.
    pub const DEFAULT: Limits =
        Limits { max_bulk: 512 << 20, max_args: 1 << 20, max_inline: 64 << 10, authenticated: true };

    /// For bytes that passed a client's limits before: log entries, what other nodes pass on.
    pub const TRUSTED: Limits = Limits { max_bulk: MAX_REQUEST, max_args: MAX_REQUEST, ..Limits::DEFAULT };

    /// The same for a client that has yet to authenticate.
    pub const fn unauthenticated(self) -> Limits {
        Limits { authenticated: false, ..self }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::DEFAULT
    }
}

/// What the bytes so far amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Not a whole request yet: call again with more bytes.
    Incomplete,
    /// So many bytes that ask for nothing (an empty line, `*0`, `*-1`): consume them and go on, no reply.
    Blank(usize),
    /// So many bytes that are a request of one argument or more, now in the caller's [`Request`].
    Request(usize),
}

/// Where a request's arguments lie. The caller keeps as many as it parses before it executes, and uses them again: to hand
/// one over by value would cost more than to parse it.
#[derive(Debug, Default)]
pub struct Request {
    spans: Spans,
    /// Bytes it took.
    consumed: usize,
    /// An inline command's canonical form, which the spans are for: unquoting changes bytes.
    inline: Option<Box<[u8]>>,
}

impl Request {
    /// Its arguments (one or more). `buf` is what was given to [`RequestParser::parse`].
    #[inline]
    pub fn args<'a>(&'a self, buf: &'a [u8]) -> Args<'a> {
        Args::new(self.inline.as_deref().unwrap_or(buf), &self.spans)
    }

    /// Forgets the request, and the memory a large one took.
    #[inline]
    fn clear(&mut self) {
        self.inline = None;
        if self.spans.spilled() {
            self.spans = Spans::new();
        }
        self.spans.clear();
    }

    /// Its bytes as an array of bulk strings, which parse to the same arguments again. `buf` is what was given to
    /// [`RequestParser::parse`].
    #[inline]
    pub fn encoded<'a>(&'a self, buf: &'a [u8]) -> &'a [u8] {
        self.inline.as_deref().unwrap_or(buf.get(..self.consumed).unwrap_or_default())
    }
}

/// Why a client's bytes are no request. Displays as Redis's text, which goes after `-ERR `; then the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// The number after `*` is malformed or beyond [`Limits::max_args`].
    MultibulkLength,
    /// The number after `$` is malformed, negative or beyond [`Limits::max_bulk`], or the request beyond 4 GiB.
    BulkLength,
    /// An argument begins with this byte instead of `$`.
    ExpectedBulk(u8),
    /// `*` with no line end within [`Limits::max_inline`].
    LongMultibulkLine,
    /// `$` with no line end within [`Limits::max_inline`].
    LongBulkLine,
    /// An inline command with no line end within [`Limits::max_inline`].
    LongInline,
    /// An inline command's quotes don't match.
    UnbalancedQuotes,
    /// More than [`UNAUTHENTICATED_ARGS`].
    UnauthenticatedMultibulk,
    /// More than [`UNAUTHENTICATED_BULK`].
    UnauthenticatedBulk,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Protocol error: ")?;
        match self {
            ProtocolError::MultibulkLength => f.write_str("invalid multibulk length"),
            ProtocolError::BulkLength => f.write_str("invalid bulk length"),
            ProtocolError::ExpectedBulk(byte) => write!(f, "expected '$', got '{}'", char::from(*byte)),
            ProtocolError::LongMultibulkLine => f.write_str("too big mbulk count string"),
            ProtocolError::LongBulkLine => f.write_str("too big bulk count string"),
            ProtocolError::LongInline => f.write_str("too big inline request"),
            ProtocolError::UnbalancedQuotes => f.write_str("unbalanced quotes in request"),
            ProtocolError::UnauthenticatedMultibulk => f.write_str("unauthenticated multibulk length"),
            ProtocolError::UnauthenticatedBulk => f.write_str("unauthenticated bulk length"),
        }
    }
}

impl std::error::Error for ProtocolError {}

/// Bytes of the largest request, which a [`Span`] can still point into.
const MAX_REQUEST: usize = u32::MAX as usize;

/// Bytes of the shortest bulk string, `$0\r\n\r\n`.
const SHORTEST_BULK: usize = 6;

/// Arguments of the usual request, at most: as many spans need no allocation.
const FEW: usize = 6;

/// The largest number [`short_line`] reads.
const SHORT: usize = 9999;

// What the fast way takes, a client that has yet to authenticate may send.
const _: () = assert!(FEW <= UNAUTHENTICATED_ARGS && SHORT <= UNAUTHENTICATED_BULK);

/// The usual request (few arguments, short lines, all of it there) in one pass and without state. `None` says nothing about
/// `buf` but that it wants the general way.
#[inline]
fn few_arguments(buf: &[u8], limits: &Limits, request: &mut Request) -> Option<usize> {
    let (count, mut at) = short_line(buf, 0, b'*')?;
    if count == 0 || count > FEW.min(limits.max_args) {
        return None;
    }
    request.clear();
    for _ in 0..count {
        let (len, start) = short_line(buf, at, b'$')?;
        at = start + len + 2;
        if at > buf.len() || len > limits.max_bulk {
            return None;
        }
        request.spans.push(Span::new(start, len));
    }
    request.consumed = at;
    Some(at)
}

/// The number of one to four digits in the line at `at`, and where the next line would begin (which may be behind the end
/// of `buf`). `None` if the line is anything else, or among the last bytes.
#[inline(always)]
fn short_line(buf: &[u8], at: usize, type_byte: u8) -> Option<(usize, usize)> {
    let [first, line @ ..] = buf.get(at..)?.first_chunk::<SHORTEST_BULK>()?;
    let [a, b, c, d] = [line[0], line[1], line[2], line[3]].map(|byte| usize::from(byte.wrapping_sub(b'0')));
    let (number, digits) = match line {
        [_, b'\r', ..] if a <= 9 => (a, 1),
        [_, _, b'\r', ..] if a.wrapping_sub(1) < 9 && b <= 9 => (a * 10 + b, 2),
        [_, _, _, b'\r', ..] if a.wrapping_sub(1) < 9 && b.max(c) <= 9 => (a * 100 + b * 10 + c, 3),
        [.., b'\r'] if a.wrapping_sub(1) < 9 && b.max(c).max(d) <= 9 => (a * 1000 + b * 100 + c * 10 + d, 4),
        _ => return None,
    };
    (*first == type_byte).then_some((number, at + digits + 3))
}

/// The number of arguments that `*` announces; 0 if there is nothing to come.
fn array_length(number: Option<i64>, limits: &Limits) -> Result<usize, ProtocolError> {
    let count = usize::try_from(number.ok_or(ProtocolError::MultibulkLength)?).unwrap_or(0);
    if count > limits.max_args {
        return Err(ProtocolError::MultibulkLength);
    }
    if count > UNAUTHENTICATED_ARGS && !limits.authenticated {
        return Err(ProtocolError::UnauthenticatedMultibulk);
    }
    Ok(count)
}

/// The line a `*` or `$` stands before.
struct LengthLine {
    type_byte: u8,
    /// `None` if malformed.
    number: Option<i64>,
    /// Where the next line begins.
    next: usize,
}

/// The parser of one connection: what it knows of the request it is in the middle of.
#[derive(Debug, Default)]
pub struct RequestParser {
    /// Arguments found so far.
    spans: Spans,
    /// Arguments still to come; 0 between requests.
    missing: usize,
    /// First byte not yet parsed.
    at: usize,
    /// Bytes from `at` on that are known to hold no line end.
    searched: usize,
}

impl RequestParser {
    /// Takes the request whose first byte is `buf[0]` into `request`. After [`Parsed::Incomplete`], `buf` must begin with the
    /// same bytes again; after anything else, behind what was consumed. Only after [`Parsed::Request`] does `request` hold
    /// one. After an error the parser is of no more use.
    #[inline]
    pub fn parse(
        &mut self,
        buf: &[u8],
        limits: &Limits,
        request: &mut Request,
    ) -> Result<Parsed, ProtocolError> {
        if self.missing == 0
            && let Some(consumed) = few_arguments(buf, limits, request)
        {
            self.searched = 0;
            return Ok(Parsed::Request(consumed));
        }
        request.clear();
        match buf.first() {
            None => Ok(Parsed::Incomplete),
            Some(b'*') => self.array(buf, limits, request),
            Some(_) => self.inline(buf, limits, request),
        }
    }

    fn array(&mut self, buf: &[u8], limits: &Limits, request: &mut Request) -> Result<Parsed, ProtocolError> {
        if self.missing == 0 {
            let Some(line) = self.length_line(buf, 0, limits, ProtocolError::LongMultibulkLine)? else {
                return Ok(Parsed::Incomplete);
            };
            self.missing = array_length(line.number, limits)?;
            self.at = line.next;
            if self.missing == 0 {
                return Ok(Parsed::Blank(line.next));
            }
        }
        self.spans.reserve(self.missing.min(buf.len().saturating_sub(self.at) / SHORTEST_BULK));
        while self.missing > 0 {
            let Some((start, len)) = self.bulk_header(buf, self.at, limits)? else {
                return Ok(Parsed::Incomplete);
            };
            let next = start + len + 2;
            if next > MAX_REQUEST {
                return Err(ProtocolError::BulkLength);
            }
            if next > buf.len() {
                return Ok(Parsed::Incomplete);
            }
            self.spans.push(Span::new(start, len));
            self.missing -= 1;
            self.at = next;
        }
        *request = Request { spans: std::mem::take(&mut self.spans), consumed: self.at, inline: None };
        Ok(Parsed::Request(self.at))
    }

    /// The `$len` line at `at`: where the bytes start and how many they are.
    fn bulk_header(
        &mut self,
        buf: &[u8],
        at: usize,
        limits: &Limits,
    ) -> Result<Option<(usize, usize)>, ProtocolError> {
        if let Some((len, start)) = short_line(buf, at, b'$')
            && len <= limits.max_bulk
        {
            self.searched = 0;
            return Ok(Some((start, len)));
        }
        let Some(line) = self.length_line(buf, at, limits, ProtocolError::LongBulkLine)? else {
            return Ok(None);
        };
        if line.type_byte != b'$' {
            return Err(ProtocolError::ExpectedBulk(line.type_byte));
        }
        let len = line.number.and_then(|len| usize::try_from(len).ok()).ok_or(ProtocolError::BulkLength)?;
        if len > limits.max_bulk {
            return Err(ProtocolError::BulkLength);
        }
        if len > UNAUTHENTICATED_BULK && !limits.authenticated {
            return Err(ProtocolError::UnauthenticatedBulk);
        }
        Ok(Some((line.next, len)))
    }

    /// The line at `at`, if it is whole.
    fn length_line(
        &mut self,
        buf: &[u8],
        at: usize,
        limits: &Limits,
        too_long: ProtocolError,
    ) -> Result<Option<LengthLine>, ProtocolError> {
        let line = buf.get(at..).unwrap_or_default();
        let Some(end) = self.search(line, b'\r', limits, too_long)? else { return Ok(None) };
        if line.len() < end + 2 {
            self.searched = end;
            return Ok(None);
        }
        let number = line.get(1..end).and_then(number::parse_i64);
        Ok(Some(LengthLine { type_byte: line[0], number, next: at + end + 2 }))
    }

    /// Where in `line` the first `last` is, unless it has yet to come; an error if it is beyond [`Limits::max_inline`].
    fn search(
        &mut self,
        line: &[u8],
        last: u8,
        limits: &Limits,
        too_long: ProtocolError,
    ) -> Result<Option<usize>, ProtocolError> {
        let window = &line[..line.len().min(limits.max_inline.saturating_add(1))];
        let rest = window.get(self.searched..).unwrap_or_default();
        match rest.iter().position(|&byte| byte == last) {
            Some(end) => Ok(Some(std::mem::take(&mut self.searched) + end)),
            None if line.len() > limits.max_inline => Err(too_long),
            None => {
                self.searched = line.len();
                Ok(None)
            }
        }
    }

    fn inline(
        &mut self,
        buf: &[u8],
        limits: &Limits,
        request: &mut Request,
    ) -> Result<Parsed, ProtocolError> {
        let Some(end) = self.search(buf, b'\n', limits, ProtocolError::LongInline)? else {
            return Ok(Parsed::Incomplete);
        };
        let line = &buf[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let args = inline::split(line).ok_or(ProtocolError::UnbalancedQuotes)?;
        if args.is_empty() {
            return Ok(Parsed::Blank(end + 1));
        }
        let (encoded, spans) = args.into_iter().collect::<OwnedArgs>().into_parts();
        *request = Request { spans, consumed: end + 1, inline: Some(encoded.into_boxed_slice()) };
        Ok(Parsed::Request(end + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the bytes amount to, shown at once: each request's arguments, then the error or what is left over.
    fn parse_all(bytes: &[u8], limits: &Limits) -> String {
        let (mut parser, mut request) = (RequestParser::default(), Request::default());
        let mut at = 0;
        let mut seen = String::new();
        loop {
            match parser.parse(&bytes[at..], limits, &mut request) {
                Ok(Parsed::Request(used)) => {
                    seen.push_str(&format!("{:?} ", request.args(&bytes[at..])));
                    at += used;
                }
                Ok(Parsed::Blank(used)) => at += used,
                Ok(Parsed::Incomplete) => return format!("{seen}+{}", bytes.len() - at),
                Err(error) => return format!("{seen}{error}"),
            }
        }
    }

    fn parsed(bytes: &[u8]) -> String {
        parse_all(bytes, &Limits::DEFAULT)
    }

    #[test]
    fn pipelined_requests_come_one_by_one() {
        let bytes = b"*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$0\r\n\r\nPING 'a b'\r\n*1\r\n$4\r\nPI";
        assert_eq!(parsed(bytes), r#"["PING"] ["GET", ""] ["PING", "a b"] +10"#);
    }

    #[test]
    fn what_asks_for_nothing_is_skipped() {
        assert_eq!(parsed(b"*-5\r\n*0\r\n*-1\r\n\r\n\n   \r\nPING\n"), r#"["PING"] +0"#);
    }

    #[test]
    fn the_bytes_that_end_a_line_are_skipped_unseen_as_in_redis() {
        assert_eq!(parsed(b"*2\rx$4\rxECHOyy$1\r\nkzz"), r#"["ECHO", "k"] +0"#);
    }

    /// Each answer was given by redis-server 7.0.15.
    #[test]
    fn errors_are_those_of_redis() {
        for (bytes, error) in [
            ("*\r\n", "invalid multibulk length"),
            ("*+1\r\n", "invalid multibulk length"),
            ("*01\r\n", "invalid multibulk length"),
            ("*2147483648\r\n", "invalid multibulk length"),
            ("*1\r\n\r\nx", "expected '$', got '\r'"),
            ("*1\r\n!4\r\n", "expected '$', got '!'"),
            ("*1\r\n$-1\r\n", "invalid bulk length"),
            ("*1\r\n$x\r\n", "invalid bulk length"),
            ("*1\r\n$536870913\r\n", "invalid bulk length"),
            ("*1\r\n$111111111111111111111111111111\r\n", "invalid bulk length"),
            ("\"PING\"x\r\n", "unbalanced quotes in request"),
            ("PING 'x\r\n", "unbalanced quotes in request"),
        ] {
            assert_eq!(parsed(bytes.as_bytes()), format!("Protocol error: {error}"), "{bytes:?}");
        }
    }

    #[test]
    fn lines_without_end_are_cut_off() {
        let ones = "1".repeat(65 * 1024);
        assert_eq!(parsed(format!("*{ones}").as_bytes()), "Protocol error: too big mbulk count string");
        assert_eq!(parsed(format!("*1\r\n${ones}").as_bytes()), "Protocol error: too big bulk count string");
        assert_eq!(parsed(ones.as_bytes()), "Protocol error: too big inline request");
        assert_eq!(parsed(&ones.as_bytes()[..65536]), "+65536");
    }

    #[test]
    fn a_claimed_length_is_waited_for_but_not_believed() {
        assert_eq!(parsed(b"*1048576\r\n$536870912\r\nabc"), "+25");
        assert_eq!(parsed(b"*1048577\r\n"), "Protocol error: invalid multibulk length");
    }

    #[test]
    fn before_authentication_little_is_taken() {
        let limits = Limits::DEFAULT.unauthenticated();
        let auth = "*10\r\n".to_owned() + &"$1\r\na\r\n".repeat(10);
        assert!(parse_all(auth.as_bytes(), &limits).ends_with("+0"));
        assert_eq!(parse_all(b"*11\r\n", &limits), "Protocol error: unauthenticated multibulk length");
        assert_eq!(parse_all(b"*1\r\n$16384\r\n", &limits), "+12");
        assert_eq!(parse_all(b"*1\r\n$16385\r\n", &limits), "Protocol error: unauthenticated bulk length");
    }

    #[test]
    fn an_inline_request_is_encoded_as_an_array() {
        let line = b"set k \"\\x00 v\"\r\nrest";
        let mut request = Request::default();
        let parsed_line = RequestParser::default().parse(line, &Limits::DEFAULT, &mut request);
        assert_eq!(parsed_line, Ok(Parsed::Request(line.len() - 4)));
        assert_eq!(request.encoded(line), b"*3\r\n$3\r\nset\r\n$1\r\nk\r\n$3\r\n\0 v\r\n");
        assert_eq!(parsed(request.encoded(line)), r#"["set", "k", "\\x00 v"] +0"#);
    }

    /// A million arguments, one byte more at each call: only linear time finishes.
    #[test]
    fn a_fragmented_giant_costs_linear_time() {
        let giant: Vec<u8> = b"*100000\r\n".iter().copied().chain(b"$1\r\nx\r\n".repeat(100_000)).collect();
        let (mut parser, mut request) = (RequestParser::default(), Request::default());
        for end in 0..giant.len() {
            assert_eq!(parser.parse(&giant[..end], &Limits::DEFAULT, &mut request), Ok(Parsed::Incomplete));
        }
        assert_eq!(parser.parse(&giant, &Limits::DEFAULT, &mut request), Ok(Parsed::Request(giant.len())));
        assert_eq!(request.args(&giant).len(), 100_000);
    }

    #[test]
    fn a_request_used_again_keeps_nothing_of_the_last_one() {
        let (mut parser, mut request) = (RequestParser::default(), Request::default());
        let many = b"*9\r\n".iter().copied().chain(b"$1\r\nx\r\n".repeat(9)).collect::<Vec<_>>();
        for (bytes, count) in [(&many[..], 9), (b"SET 'k' v\r\n", 3), (b"*1\r\n$4\r\nPING\r\n", 1)] {
            assert_eq!(parser.parse(bytes, &Limits::DEFAULT, &mut request), Ok(Parsed::Request(bytes.len())));
            assert_eq!(request.args(bytes).len(), count);
        }
        assert!(!request.spans.spilled(), "the memory of nine arguments is given back");
        assert_eq!(parser.parse(b"*1\r\n$4\r\nPI", &Limits::DEFAULT, &mut request), Ok(Parsed::Incomplete));
        assert!(request.args(b"").is_empty());
    }
}
