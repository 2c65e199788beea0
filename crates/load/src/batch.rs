//! A batch of requests as the bytes to send, made once; before each sending only the digits of the keys change.

use crate::Op;

/// `key:` and twelve digits.
pub const KEY_BYTES: usize = 16;
const DIGITS: usize = 12;

/// `pipeline` requests of one kind, ready to write.
pub struct Batch {
    /// What is sent.
    pub op: Op,
    bytes: Vec<u8>,
    /// Where the first key's digits stand, and how far the next key is from it.
    first_digit: usize,
    stride: usize,
    pipeline: usize,
}

impl Batch {
    /// A batch of `pipeline` GETs, or SETs with a value of `value_bytes`.
    pub fn new(op: Op, value_bytes: usize, pipeline: usize) -> Self {
        let head =
            if op == Op::Get { "*2\r\n$3\r\nGET\r\n$16\r\nkey:" } else { "*3\r\n$3\r\nSET\r\n$16\r\nkey:" };
        let mut one = format!("{head}000000000000\r\n").into_bytes();
        if op != Op::Get {
            one.extend_from_slice(format!("${value_bytes}\r\n").as_bytes());
            one.extend((0..value_bytes).map(|i| b'a' + (i % 26) as u8));
            one.extend_from_slice(b"\r\n");
        }
        Self { op, first_digit: head.len(), stride: one.len(), bytes: one.repeat(pipeline), pipeline }
    }

    /// Puts the keys `next` gives into the batch, at most `limit` of them; gives the bytes to send and how many requests they are.
    pub fn fill(&mut self, limit: usize, mut next: impl FnMut() -> u32) -> (&[u8], usize) {
        let count = self.pipeline.min(limit);
        for i in 0..count {
            let at = self.first_digit + i * self.stride;
            write_digits(&mut self.bytes[at..at + DIGITS], next());
        }
        (&self.bytes[..count * self.stride], count)
    }
}

/// The key of that number.
pub fn key(number: u32) -> [u8; KEY_BYTES] {
    let mut key = *b"key:000000000000";
    write_digits(&mut key[KEY_BYTES - DIGITS..], number);
    key
}

fn write_digits(place: &mut [u8], mut number: u32) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_well_formed() {
        let mut batch = Batch::new(Op::Set, 3, 2);
        let mut numbers = [7, 123_456].into_iter();
        let (bytes, count) = batch.fill(9, || numbers.next().unwrap());
        assert_eq!(count, 2);
        let expected = "*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000007\r\n$3\r\nabc\r\n*3\r\n$3\r\nSET\r\n$16\r\nkey:000000123456\r\n$3\r\nabc\r\n";
        assert_eq!(std::str::from_utf8(bytes), Ok(expected));
        assert_eq!(batch.fill(1, || 1).1, 1);
        assert_eq!(&key(123_456), b"key:000000123456");
    }
}
