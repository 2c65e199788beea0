//! Numbers and byte strings in what nodes write for each other: little-endian, every length a u32 in front.
//!
//! Reading is bounded by the bytes at hand and refuses what doesn't fit; it never panics and allocates nothing. What
//! the numbers mean is the business of whoever writes them.

/// The bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Appends a number.
pub fn put_u32(out: &mut Vec<u8>, n: u32) {
    out.extend_from_slice(&n.to_le_bytes());
}

/// Appends a byte string (shorter than 4 GiB).
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(out, bytes.len() as u32);
    out.extend_from_slice(bytes);
}

/// Takes the next `N` bytes.
pub fn take<const N: usize>(from: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (head, rest) = from.split_first_chunk().ok_or(Malformed)?;
    *from = rest;
    Ok(*head)
}

/// Takes a number.
pub fn read_u32(from: &mut &[u8]) -> Result<u32, Malformed> {
    take(from).map(u32::from_le_bytes)
}

/// Takes a byte string.
pub fn read_bytes<'a>(from: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let len = read_u32(from)? as usize;
    let (head, rest) = from.split_at_checked(len).ok_or(Malformed)?;
    *from = rest;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_read_and_a_cut_is_noticed() {
        let mut bytes = Vec::new();
        put_u32(&mut bytes, 7);
        put_bytes(&mut bytes, b"abc");
        let mut from = &bytes[..];
        assert_eq!(read_u32(&mut from), Ok(7));
        assert_eq!(read_bytes(&mut from), Ok(&b"abc"[..]));
        assert_eq!(take::<1>(&mut from), Err(Malformed));
        let mut cut = &bytes[..bytes.len() - 1];
        assert_eq!(read_u32(&mut cut), Ok(7));
        assert_eq!(read_bytes(&mut cut), Err(Malformed));
    }
}
