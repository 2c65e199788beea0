//! A request's arguments: views into the bytes it came in, nothing copied.
//!
//! [`Args`] is what commands read. It is two slices and `Copy`; an index out of range gives an empty slice instead of a
//! panic, because what a client sent decides how many there are. [`OwnedArgs`] is the same with a buffer of its own, kept
//! as the canonical RESP encoding: what a queue, a log entry or another node needs is one copy of one slice.

use std::fmt;
use std::ops::Index;

use smallvec::SmallVec;

use crate::number;

/// Where one argument lies: byte offsets from the first byte of its request. A request is shorter than 4 GiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

/// The spans of a request's arguments; few of them need no allocation.
pub type Spans = SmallVec<[Span; 6]>;

impl Span {
    /// The bytes `start..start + len`. The caller has checked that both fit.
    #[inline]
    pub(crate) fn new(start: usize, len: usize) -> Span {
        Span { start: start as u32, end: (start + len) as u32 }
    }

    /// Length in bytes.
    #[inline]
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether the argument is the empty string.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The argument's bytes; empty if `buf` isn't the buffer the span was made for and is shorter.
    #[inline]
    pub fn of(self, buf: &[u8]) -> &[u8] {
        buf.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

/// A request's arguments, the command's name first.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    buf: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Args<'a> {
    /// The arguments `spans` of the request that begins at the first byte of `buf`.
    #[inline]
    pub fn new(buf: &'a [u8], spans: &'a [Span]) -> Args<'a> {
        Args { buf, spans }
    }

    /// Number of arguments, the name included.
    #[inline]
    pub fn len(self) -> usize {
        self.spans.len()
    }

    /// Whether there is nothing at all.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.spans.is_empty()
    }

    /// The command's name as the client spelt it.
    #[inline]
    pub fn name(self) -> &'a [u8] {
        self.at(0)
    }

    /// Argument `i` (0 is the name), or the empty slice if there are fewer.
    #[inline]
    pub fn at(self, i: usize) -> &'a [u8] {
        self.get(i).unwrap_or_default()
    }

    /// Argument `i` (0 is the name), if there are so many.
    #[inline]
    pub fn get(self, i: usize) -> Option<&'a [u8]> {
        self.spans.get(i).map(|span| span.of(self.buf))
    }

    /// The arguments in order, the name included.
    #[inline]
    pub fn iter(self) -> Iter<'a> {
        Iter { buf: self.buf, spans: self.spans.iter() }
    }

    /// The arguments from the `i`-th on (none if there are fewer): `from(1)` is all but the name.
    #[inline]
    pub fn from(self, i: usize) -> Args<'a> {
        Args { buf: self.buf, spans: self.spans.get(i..).unwrap_or_default() }
    }

    /// Appends the canonical RESP array of bulk strings.
    pub fn encode(self, out: &mut Vec<u8>) {
        encode(self.iter(), out);
    }
}

/// Appends `args` as the canonical RESP array of bulk strings: the request a client sends.
pub fn encode<T: AsRef<[u8]>>(args: impl ExactSizeIterator<Item = T>, out: &mut Vec<u8>) {
    number::write_header(out, b'*', args.len());
    for arg in args {
        write_bulk(out, arg.as_ref());
    }
}

/// Appends one bulk string: `$len\r\n`, the bytes, `\r\n`.
#[inline]
pub(crate) fn write_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() + number::HEADER + 2);
    number::write_header(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

impl Index<usize> for Args<'_> {
    type Output = [u8];

    /// As [`Args::at`]: empty if there are fewer.
    #[inline]
    fn index(&self, i: usize) -> &[u8] {
        self.at(i)
    }
}

impl<'a> IntoIterator for Args<'a> {
    type Item = &'a [u8];
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl PartialEq for Args<'_> {
    /// Equal arguments, wherever they lie.
    fn eq(&self, other: &Args<'_>) -> bool {
        self.iter().eq(other.iter())
    }
}

impl fmt::Debug for Args<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|arg| arg.escape_ascii().to_string())).finish()
    }
}

/// The arguments of [`Args`], in order.
#[derive(Clone)]
pub struct Iter<'a> {
    buf: &'a [u8],
    spans: std::slice::Iter<'a, Span>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        self.spans.next().map(|span| span.of(self.buf))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.spans.size_hint()
    }
}

impl DoubleEndedIterator for Iter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        self.spans.next_back().map(|span| span.of(self.buf))
    }
}

impl ExactSizeIterator for Iter<'_> {}

/// Arguments with a buffer of their own: the canonical RESP encoding and the spans into it.
#[derive(Clone, Default)]
pub struct OwnedArgs {
    encoded: Vec<u8>,
    spans: Spans,
}

impl OwnedArgs {
    /// A view of them.
    #[inline]
    pub fn as_args(&self) -> Args<'_> {
        Args::new(&self.encoded, &self.spans)
    }

    /// The canonical RESP array of bulk strings.
    #[inline]
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Appends the canonical RESP array of bulk strings.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.encoded);
    }

    /// The encoding and the spans into it.
    pub fn into_parts(self) -> (Vec<u8>, Spans) {
        (self.encoded, self.spans)
    }
}

impl<T: AsRef<[u8]>> FromIterator<T> for OwnedArgs {
    fn from_iter<I: IntoIterator<Item = T>>(args: I) -> OwnedArgs {
        let args: SmallVec<[T; 8]> = args.into_iter().collect();
        let bytes = args.iter().map(|arg| arg.as_ref().len() + number::HEADER + 2).sum::<usize>();
        let mut encoded = Vec::with_capacity(bytes + number::HEADER);
        let mut spans = Spans::with_capacity(args.len());
        number::write_header(&mut encoded, b'*', args.len());
        for arg in &args {
            let bytes = arg.as_ref();
            write_bulk(&mut encoded, bytes);
            spans.push(Span::new(encoded.len() - 2 - bytes.len(), bytes.len()));
        }
        OwnedArgs { encoded, spans }
    }
}

impl From<Args<'_>> for OwnedArgs {
    fn from(args: Args<'_>) -> OwnedArgs {
        args.iter().collect()
    }
}

impl PartialEq for OwnedArgs {
    fn eq(&self, other: &OwnedArgs) -> bool {
        self.as_args() == other.as_args()
    }
}

impl fmt::Debug for OwnedArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_args().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(args: &[&str]) -> OwnedArgs {
        args.iter().collect()
    }

    #[test]
    fn owned_args_are_their_own_encoding() {
        let set = owned(&["SET", "k", "", "a\r\nb"]);
        assert_eq!(set.encoded(), b"*4\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n$4\r\na\r\nb\r\n");
        let mut again = Vec::new();
        set.as_args().encode(&mut again);
        assert_eq!(again, set.encoded());
        assert_eq!(OwnedArgs::from(set.as_args()), set);
    }

    #[test]
    fn an_index_out_of_range_is_an_empty_argument() {
        let get = owned(&["GET", "k"]);
        let args = get.as_args();
        assert_eq!((args.len(), args.name(), args.at(1), &args[1]), (2, &b"GET"[..], &b"k"[..], &b"k"[..]));
        assert_eq!((args.get(2), args.at(2), &args[99]), (None, &b""[..], &b""[..]));
        assert_eq!(Args::new(b"short", &get.spans).at(1), b"", "spans of another buffer");
    }

    #[test]
    fn a_part_of_the_arguments_counts_from_its_own_start() {
        let mget = owned(&["MGET", "a", "b"]);
        let keys = mget.as_args().from(1);
        assert_eq!((keys.len(), keys.at(0), keys.at(2)), (2, &b"a"[..], &b""[..]));
        assert!(keys.from(2).is_empty() && keys.from(7).is_empty());
        assert_eq!(keys.iter().rev().collect::<Vec<_>>(), [b"b", b"a"]);
    }

    #[test]
    fn no_arguments_at_all_is_no_panic() {
        let none = OwnedArgs::default();
        assert_eq!((none.as_args().name(), none.as_args().len()), (&b""[..], 0));
    }
}
