//! One file of the log: its name, its header, its mark.
//!
//! ```text
//! "SLOTWAL1" ─ number u64 ─ wal u64 ─ boot u128 ─ sync u8 ─ crc u32 ─ records ... ─ zeros, or the end of the file
//! ```

use crate::wal::trust::{Boot, Sync};

/// Bytes of a header; the first record follows.
pub const HEADER: usize = 45;
const MAGIC: &[u8; 8] = b"SLOTWAL1";
const SUFFIX: &str = ".wal";

/// What the header of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Counts the segments of a log, from 1.
    pub number: u64,
    /// Drawn when the log was begun.
    pub wal: u64,
    /// The machine's boot during which it was written.
    pub boot: Option<Boot>,
    /// How it was written.
    pub sync: Sync,
}

impl Header {
    /// Its bytes.
    pub fn bytes(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..8].copy_from_slice(MAGIC);
        out[8..16].copy_from_slice(&self.number.to_le_bytes());
        out[16..24].copy_from_slice(&self.wal.to_le_bytes());
        out[24..40].copy_from_slice(&self.boot.map_or(0, |Boot(boot)| boot).to_le_bytes());
        out[40] = self.sync as u8;
        let crc = crc32c::crc32c(&out[..41]);
        out[41..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header at the start of `bytes`; `None`: there is none.
    pub fn parse(bytes: &[u8]) -> Option<Header> {
        let head: &[u8; HEADER] = bytes.first_chunk()?;
        let crc = head.last_chunk().map(|crc| u32::from_le_bytes(*crc))?;
        if !head.starts_with(MAGIC) || crc32c::crc32c(&head[..41]) != crc {
            return None;
        }
        let boot = head.get(24..40)?.try_into().ok().map(u128::from_le_bytes)?;
        Some(Header {
            number: head.get(8..16)?.try_into().ok().map(u64::from_le_bytes)?,
            wal: head.get(16..24)?.try_into().ok().map(u64::from_le_bytes)?,
            boot: Some(Boot(boot)).filter(|_| boot != 0),
            sync: if head[40] == Sync::Always as u8 { Sync::Always } else { Sync::Background },
        })
    }

    /// What the segment's records begin with: not zero, and not to be guessed by who writes values.
    pub fn mark(&self) -> u32 {
        let mut seed = [0; 16];
        seed[..8].copy_from_slice(&self.wal.to_le_bytes());
        seed[8..].copy_from_slice(&self.number.to_le_bytes());
        crc32c::crc32c(&seed) | 1
    }
}

/// A segment's file.
pub fn name(number: u64) -> String {
    format!("{number:016}{SUFFIX}")
}

/// The number in a segment's name; `None`: another file.
pub fn number(name: &str) -> Option<u64> {
    name.strip_suffix(SUFFIX).filter(|digits| digits.len() == 16)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_back_and_a_damaged_one_is_none() {
        let header = Header { number: 7, wal: 99, boot: Some(Boot(5)), sync: Sync::Always };
        let bytes = header.bytes();
        assert_eq!(Header::parse(&bytes), Some(header));
        for at in 0..HEADER {
            let mut damaged = bytes;
            damaged[at] ^= 1;
            assert_eq!(Header::parse(&damaged), None, "byte {at}");
        }
        assert_eq!(Header::parse(&bytes[..HEADER - 1]), None);
        let unknown = Header { boot: None, sync: Sync::Background, ..header };
        assert_eq!(Header::parse(&unknown.bytes()), Some(unknown));
        assert_ne!(header.mark(), Header { number: 8, ..header }.mark());
    }

    #[test]
    fn names_order_like_numbers() {
        assert_eq!(number(&name(12)), Some(12));
        assert!(name(9) < name(10));
        for other in ["12.wal", "node-id", "000000000000000x.wal", "0000000000000012.wal.new"] {
            assert_eq!(number(other), None, "{other}");
        }
    }
}
