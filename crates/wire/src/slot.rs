//! The hash slot of a key: `CRC16(key) mod 16384` with the hash tag rule, as the Redis Cluster specification has it.
//!
//! CRC16 is the XMODEM variant (polynomial 0x1021, initial value 0). A bytewise table costs a nanosecond a byte, one of
//! the larger parts of a pipelined request, so eight (then four) bytes are folded at a time with eight tables (4 KiB, built at compile
//! time). The `crc16` crate is the definition the tests compare with.
//!
//! Who owns a slot is not known here.

/// Number of hash slots of a cluster.
pub const SLOTS: usize = 16384;

/// The slot of `key`, below [`SLOTS`]. If the key has a `{`, and a `}` after it with at least one byte between the first of
/// each, only the bytes between are hashed, so that related keys can be kept together.
#[inline]
pub fn slot_of(key: &[u8]) -> u16 {
    crc16(hash_tag(key)) & (SLOTS as u16 - 1)
}

/// The part of `key` that decides its slot.
#[inline]
pub fn hash_tag(key: &[u8]) -> &[u8] {
    // Most keys have none. Looking on behind a find lets the compiler compare sixteen bytes at once, which `contains` does for
    // long slices only: sixty instructions less a request.
    if !key.iter().fold(false, |found, &byte| found | (byte == b'{')) {
        return key;
    }
    let Some(open) = key.iter().position(|&byte| byte == b'{') else { return key };
    let rest = &key[open + 1..];
    match rest.iter().position(|&byte| byte == b'}') {
        None | Some(0) => key,
        Some(close) => &rest[..close],
    }
}

/// Bytes folded per step.
const LANES: usize = 8;

/// `TABLES[k][b]` is the CRC of byte `b` followed by `k` zero bytes.
static TABLES: [[u16; 256]; LANES] = tables();

const fn tables() -> [[u16; 256]; LANES] {
    let mut tables = [[0u16; 256]; LANES];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut lane = 0;
        while lane < LANES {
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
                bit += 1;
            }
            tables[lane][byte] = crc;
            lane += 1;
        }
        byte += 1;
    }
    tables
}

#[inline]
fn crc16(bytes: &[u8]) -> u16 {
    let (eights, rest) = bytes.as_chunks::<LANES>();
    let (fours, rest) = rest.as_chunks::<{ LANES / 2 }>();
    let crc = eights.iter().fold(0, fold);
    let crc = fours.iter().fold(crc, fold);
    rest.iter().fold(crc, |crc, &byte| (crc << 8) ^ TABLES[0][((crc >> 8) as u8 ^ byte) as usize])
}

/// The CRC of what `crc` is of, followed by `chunk` (2 to [`LANES`] bytes).
#[inline(always)]
fn fold<const N: usize>(crc: u16, chunk: &[u8; N]) -> u16 {
    let [high, low] = crc.to_be_bytes();
    let first = TABLES[N - 1][(chunk[0] ^ high) as usize] ^ TABLES[N - 2][(chunk[1] ^ low) as usize];
    (2..N).fold(first, |crc, i| crc ^ TABLES[N - 1 - i][chunk[i] as usize])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_specification_examples_hold() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot_of(b""), 0);
        assert_eq!(slot_of(b"foo"), 12182);
        assert_eq!(hash_tag(b"{user1000}.following"), b"user1000");
        assert_eq!(hash_tag(b"foo{}{bar}"), b"foo{}{bar}", "an empty tag is no tag");
        assert_eq!(hash_tag(b"foo{{bar}}zap"), b"{bar");
        assert_eq!(hash_tag(b"foo{bar}{zap}"), b"bar");
        assert_eq!(hash_tag(b"foo}{bar"), b"foo}{bar");
    }

    proptest! {
        #[test]
        fn the_tables_agree_with_the_definition(bytes: Vec<u8>) {
            prop_assert_eq!(crc16(&bytes), crc16::State::<crc16::XMODEM>::calculate(&bytes));
        }
    }
}
