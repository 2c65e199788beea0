//! Writing replies: straight into the connection's output buffer, in the protocol version it asked for.
//!
//! [`Reply`] has one method per RESP type. Where RESP2 lacks a type, the method writes what Redis writes instead (a map is
//! a flat array, a double a bulk string), so that a command never asks which version it answers in.
//!
//! Nothing here checks that an aggregate gets as many elements as it announced: the writer doesn't know commands.

use crate::args;
use crate::number;

/// The protocol version of a connection (`HELLO`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proto {
    /// Version 2, which every connection begins with.
    #[default]
    Resp2,
    /// Version 3: maps, sets, doubles, pushes.
    Resp3,
}

/// A writer of replies that appends to a buffer.
#[derive(Debug)]
pub struct Reply<'a> {
    out: &'a mut Vec<u8>,
    proto: Proto,
}

impl<'a> Reply<'a> {
    /// A writer that appends to `out`.
    #[inline]
    pub fn new(out: &'a mut Vec<u8>, proto: Proto) -> Reply<'a> {
        Reply { out, proto }
    }

    /// The version replies are written in.
    #[inline]
    pub fn proto(&self) -> Proto {
        self.proto
    }

    /// `OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// A simple string; a line break in it becomes a space.
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text);
    }

    /// An error: `text` begins with its code (`ERR`, `WRONGTYPE`); a line break in it becomes a space.
    pub fn error(&mut self, text: &str) {
        self.line(b'-', text);
    }

    /// An integer.
    #[inline]
    pub fn integer(&mut self, n: i64) {
        match n {
            0..10_000 => number::write_header(self.out, b':', n as usize),
            n => number::write_line(self.out, b':', n < 0, n.unsigned_abs()),
        }
    }

    /// A bulk string.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        args::write_bulk(self.out, bytes);
    }

    /// The integer `n` as a bulk string.
    pub fn bulk_integer(&mut self, n: i64) {
        let digits = decimal_digits(n);
        number::write_header(self.out, b'$', digits);
        number::write_i64(self.out, n);
        self.out.extend_from_slice(b"\r\n");
    }

    /// No value (RESP2: the null bulk string).
    #[inline]
    pub fn null(&mut self) {
        self.out.extend_from_slice(match self.proto {
            Proto::Resp2 => b"$-1\r\n".as_slice(),
            Proto::Resp3 => b"_\r\n",
        });
    }

    /// No value where an array would stand (RESP2: the null array).
    #[inline]
    pub fn null_array(&mut self) {
        self.out.extend_from_slice(match self.proto {
            Proto::Resp2 => b"*-1\r\n".as_slice(),
            Proto::Resp3 => b"_\r\n",
        });
    }

    /// Puts whole frames in front of what was written since `mark`.
    pub fn insert(&mut self, mark: usize, frames: &[u8]) {
        self.out.splice(mark..mark, frames.iter().copied());
    }

    /// The head of an array of `len` elements, which follow.
    #[inline]
    pub fn array(&mut self, len: usize) {
        number::write_header(self.out, b'*', len);
    }

    /// The head of a map of `len` pairs, which follow (RESP2: a flat array of `2 * len`).
    pub fn map(&mut self, len: usize) {
        match self.proto {
            Proto::Resp2 => self.array(2 * len),
            Proto::Resp3 => number::write_header(self.out, b'%', len),
        }
    }

    /// The head of a set of `len` elements, which follow (RESP2: an array).
    pub fn set(&mut self, len: usize) {
        match self.proto {
            Proto::Resp2 => self.array(len),
            Proto::Resp3 => number::write_header(self.out, b'~', len),
        }
    }

    /// The head of a push of `len` elements, which follow, its kind first (RESP2: an array, as pub/sub messages are).
    pub fn push(&mut self, len: usize) {
        match self.proto {
            Proto::Resp2 => self.array(len),
            Proto::Resp3 => number::write_header(self.out, b'>', len),
        }
    }

    /// The head of `len` pairs of attributes, which follow and are followed by the reply they are about. False in RESP2,
    /// which has none: then write no pairs.
    #[must_use]
    pub fn attribute(&mut self, len: usize) -> bool {
        if self.proto == Proto::Resp3 {
            number::write_header(self.out, b'|', len);
        }
        self.proto == Proto::Resp3
    }

    /// A floating-point number, in the shortest form that reads back the same (RESP2: a bulk string).
    pub fn double(&mut self, value: f64) {
        let mut text = Vec::with_capacity(32);
        number::write_double_shortest(&mut text, value);
        match self.proto {
            Proto::Resp2 => self.bulk(&text),
            Proto::Resp3 => self.parts(&[b",", &text, b"\r\n"]),
        }
    }

    /// A boolean (RESP2: the integer 1 or 0).
    pub fn boolean(&mut self, value: bool) {
        match self.proto {
            Proto::Resp2 => self.integer(i64::from(value)),
            Proto::Resp3 => self.out.extend_from_slice(if value { b"#t\r\n" } else { b"#f\r\n" }),
        }
    }

    /// A number of any size, in decimal digits (RESP2: a bulk string).
    pub fn big_number(&mut self, digits: &str) {
        match self.proto {
            Proto::Resp2 => self.bulk(digits.as_bytes()),
            Proto::Resp3 => self.line(b'(', digits),
        }
    }

    /// A text meant for people; `format` has three letters, `txt` or `mkd` (RESP2: a bulk string).
    pub fn verbatim(&mut self, format: &str, text: &[u8]) {
        debug_assert_eq!(format.len(), 3, "RESP3: the format of a verbatim string has three bytes");
        match self.proto {
            Proto::Resp2 => self.bulk(text),
            Proto::Resp3 => {
                number::write_header(self.out, b'=', text.len() + 4);
                self.parts(&[format.as_bytes(), b":", text, b"\r\n"]);
            }
        }
    }

    /// Bytes that are frames already.
    #[inline]
    pub fn raw(&mut self, frames: &[u8]) {
        self.out.extend_from_slice(frames);
    }

    /// The place behind what has been written, for [`Reply::truncate`] and the `_at` methods.
    #[inline]
    pub fn mark(&self) -> usize {
        self.out.len()
    }

    /// Takes back what has been written since `mark`.
    pub fn truncate(&mut self, mark: usize) {
        self.out.truncate(mark);
    }

    /// Makes the `len` elements written since `mark` an array: for when their number is known only at the end. Costs one
    /// move of the elements' bytes.
    pub fn array_at(&mut self, mark: usize, len: usize) {
        self.insert_head(mark, |head| head.array(len));
    }

    /// As [`Reply::array_at`], for the `len` pairs of a map.
    pub fn map_at(&mut self, mark: usize, len: usize) {
        self.insert_head(mark, |head| head.map(len));
    }

    /// As [`Reply::array_at`], for the `len` elements of a set.
    pub fn set_at(&mut self, mark: usize, len: usize) {
        self.insert_head(mark, |head| head.set(len));
    }

    fn insert_head(&mut self, mark: usize, write: impl FnOnce(&mut Reply<'_>)) {
        let mut head = Vec::with_capacity(number::HEADER);
        write(&mut Reply::new(&mut head, self.proto));
        let mark = mark.min(self.out.len());
        self.out.splice(mark..mark, head);
    }

    fn line(&mut self, type_byte: u8, text: &str) {
        self.out.reserve(text.len() + 3);
        self.out.push(type_byte);
        self.out.extend(text.bytes().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
        self.out.extend_from_slice(b"\r\n");
    }

    fn parts(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.out.extend_from_slice(part);
        }
    }
}

/// Bytes of `n` in decimal, the minus included.
fn decimal_digits(n: i64) -> usize {
    n.unsigned_abs().checked_ilog10().unwrap_or(0) as usize + 1 + usize::from(n < 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `write` gives in RESP2 and in RESP3.
    fn both(write: impl Fn(&mut Reply<'_>)) -> [String; 2] {
        [Proto::Resp2, Proto::Resp3].map(|proto| {
            let mut out = Vec::new();
            write(&mut Reply::new(&mut out, proto));
            out.escape_ascii().to_string()
        })
    }

    #[track_caller]
    fn assert_writes(write: impl Fn(&mut Reply<'_>), resp2: &str, resp3: &str) {
        assert_eq!(both(write), [resp2, resp3]);
    }

    #[test]
    fn types_of_both_versions() {
        assert_writes(|reply| reply.ok(), r"+OK\r\n", r"+OK\r\n");
        assert_writes(|reply| reply.simple("a\r\nb"), r"+a  b\r\n", r"+a  b\r\n");
        assert_writes(|reply| reply.error("ERR a\nb"), r"-ERR a b\r\n", r"-ERR a b\r\n");
        assert_writes(|reply| reply.bulk(b""), r"$0\r\n\r\n", r"$0\r\n\r\n");
        assert_writes(
            |reply| reply.bulk(&[b'x'; 100]),
            &format!(r"$100\r\n{:x<100}\r\n", ""),
            &format!(r"$100\r\n{:x<100}\r\n", ""),
        );
        assert_writes(|reply| reply.bulk_integer(-10), r"$3\r\n-10\r\n", r"$3\r\n-10\r\n");
        assert_writes(|reply| reply.array(12), r"*12\r\n", r"*12\r\n");
        assert_writes(|reply| reply.raw(b"+x\r\n"), r"+x\r\n", r"+x\r\n");
    }

    #[test]
    fn types_resp2_lacks() {
        assert_writes(|reply| reply.null(), r"$-1\r\n", r"_\r\n");
        assert_writes(|reply| reply.null_array(), r"*-1\r\n", r"_\r\n");
        assert_writes(|reply| reply.map(2), r"*4\r\n", r"%2\r\n");
        assert_writes(|reply| reply.set(2), r"*2\r\n", r"~2\r\n");
        assert_writes(|reply| reply.push(3), r"*3\r\n", r">3\r\n");
        assert_writes(|reply| assert_eq!(reply.attribute(1), reply.proto() == Proto::Resp3), "", r"|1\r\n");
        assert_writes(|reply| reply.double(0.1), r"$3\r\n0.1\r\n", r",0.1\r\n");
        assert_writes(|reply| reply.double(f64::NEG_INFINITY), r"$4\r\n-inf\r\n", r",-inf\r\n");
        assert_writes(|reply| reply.boolean(true), r":1\r\n", r"#t\r\n");
        assert_writes(|reply| reply.boolean(false), r":0\r\n", r"#f\r\n");
        assert_writes(|reply| reply.big_number("-12"), r"$3\r\n-12\r\n", r"(-12\r\n");
        assert_writes(|reply| reply.verbatim("txt", b"a\nb"), r"$3\r\na\nb\r\n", r"=7\r\ntxt:a\nb\r\n");
    }

    #[test]
    fn integers_of_every_width() {
        for n in [0, 1, 9, 10, 99, 100, 999, 1000, 9999, 10_000, 12345, -1, -10, i64::MAX, i64::MIN] {
            let expected = format!(r":{n}\r\n");
            assert_writes(|reply| reply.integer(n), &expected, &expected);
            let expected = format!(r"${}\r\n{n}\r\n", n.to_string().len());
            assert_writes(|reply| reply.bulk_integer(n), &expected, &expected);
        }
    }

    #[test]
    fn a_length_can_come_last() {
        let write = |reply: &mut Reply<'_>| {
            reply.ok();
            let mark = reply.mark();
            reply.integer(7);
            reply.integer(8);
            reply.map_at(mark, 1);
            reply.set_at(mark, 1);
            reply.array_at(mark, 1);
        };
        assert_writes(
            write,
            r"+OK\r\n*1\r\n*1\r\n*2\r\n:7\r\n:8\r\n",
            r"+OK\r\n*1\r\n~1\r\n%1\r\n:7\r\n:8\r\n",
        );
    }

    #[test]
    fn a_reply_can_be_taken_back() {
        let write = |reply: &mut Reply<'_>| {
            reply.ok();
            let mark = reply.mark();
            reply.array(3);
            reply.truncate(mark);
            reply.error("ERR no");
        };
        assert_writes(write, r"+OK\r\n-ERR no\r\n", r"+OK\r\n-ERR no\r\n");
    }
}
