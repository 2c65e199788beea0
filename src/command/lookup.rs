//! Finding a row by its name, in any case, within a few nanoseconds and without an allocation.
//!
//! The names are known when the table is built, so a multiplier is searched that gives each a bucket of its own. A name
//! is then two words (its first and its last bytes, in lower case, which for up to 16 bytes is all of it), one
//! multiplication and one comparison. It doesn't know what it finds.

/// A table of `T` by name.
pub struct NameTable<T> {
    buckets: Box<[Option<Entry<T>>]>,
    multiplier: u64,
    shift: u32,
}

struct Entry<T> {
    words: Words,
    name: &'static str,
    item: T,
}

/// First bytes, last bytes, length.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Words(u64, u64, usize);

/// Multipliers to try before the table doubles.
const ATTEMPTS: u64 = 10_000;

impl<T> NameTable<T> {
    /// Builds the table. Of two items with one name the first counts.
    pub fn new(items: impl IntoIterator<Item = (&'static str, T)>) -> Self {
        let mut entries: Vec<Entry<T>> = Vec::new();
        for (name, item) in items {
            if entries.iter().all(|entry| !entry.name.eq_ignore_ascii_case(name)) {
                entries.push(Entry { words: words(name.as_bytes()), name, item });
            }
        }
        // Distinct names have distinct words (see `words`), so some size suffices.
        let mut bits = (entries.len().max(1) * 4).next_power_of_two().trailing_zeros();
        let (multiplier, shift) = loop {
            let shift = u64::BITS - bits;
            let attempts = (1..=ATTEMPTS).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            if let Some(found) =
                attempts.into_iter().find(|multiplier| is_perfect(&entries, *multiplier, shift))
            {
                break (found, shift);
            }
            bits += 1;
        };
        let mut buckets: Vec<Option<Entry<T>>> = (0..1usize << bits).map(|_| None).collect();
        for entry in entries {
            let at = bucket(entry.words, multiplier, shift);
            buckets[at] = Some(entry);
        }
        Self { buckets: buckets.into(), multiplier, shift }
    }

    /// The item with this name.
    #[inline]
    pub fn find(&self, name: &[u8]) -> Option<&T> {
        let words = words(name);
        let entry = self.buckets.get(bucket(words, self.multiplier, self.shift))?.as_ref()?;
        let same =
            entry.words == words && (name.len() <= 16 || name.eq_ignore_ascii_case(entry.name.as_bytes()));
        same.then_some(&entry.item)
    }
}

fn is_perfect<T>(entries: &[Entry<T>], multiplier: u64, shift: u32) -> bool {
    let mut taken: Vec<usize> = entries.iter().map(|entry| bucket(entry.words, multiplier, shift)).collect();
    taken.sort_unstable();
    taken.windows(2).all(|pair| pair[0] != pair[1])
}

#[inline]
fn bucket(Words(first, last, len): Words, multiplier: u64, shift: u32) -> usize {
    let mixed = (first ^ last.rotate_left(23) ^ len as u64).wrapping_mul(multiplier);
    ((mixed ^ mixed >> 29).wrapping_mul(multiplier) >> shift) as usize
}

#[inline]
fn words(name: &[u8]) -> Words {
    let long = |bytes: &[u8; 8]| lower(u64::from_le_bytes(*bytes));
    let short = |bytes: &[u8; 4]| lower(u64::from(u32::from_le_bytes(*bytes)));
    match (name.first_chunk(), name.last_chunk(), name.first_chunk(), name.last_chunk()) {
        (Some(first), Some(last), _, _) => Words(long(first) ^ middle(name), long(last), name.len()),
        (_, _, Some(first), Some(last)) => Words(short(first), short(last), name.len()),
        _ => {
            let word = name.iter().fold(0, |word, byte| word << 8 | u64::from(byte.to_ascii_lowercase()));
            Words(word, 0, name.len())
        }
    }
}

/// What the first and the last eight bytes leave out of a long name, as a hash.
#[inline]
fn middle(name: &[u8]) -> u64 {
    let between = name.get(8..name.len() - 8).unwrap_or_default();
    between.iter().fold(0, |hash, byte| {
        (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(31)
    })
}

/// Eight bytes in lower case at once.
#[inline]
fn lower(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    let low_bits = word & !HIGH;
    let at_least_a = low_bits + (0x80 - b'A' as u64) * ONES;
    let beyond_z = low_bits + (0x7f - b'Z' as u64) * ONES;
    let upper = at_least_a & !beyond_z & !word & HIGH;
    word | upper >> 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::command::table::rows;

    #[test]
    fn every_command_is_found_in_any_case() {
        let table = NameTable::new(rows().map(|row| (row.name, row.name)));
        for row in rows() {
            assert_eq!(table.find(row.name.as_bytes()), Some(&row.name));
            assert_eq!(table.find(row.name.to_uppercase().as_bytes()), Some(&row.name));
            assert_eq!(table.find(format!("{}x", row.name).as_bytes()), None);
        }
    }

    #[test]
    fn long_names_are_compared_as_a_whole() {
        let table = NameTable::new([
            ("abcdefgh-1-ijklmnop", 1),
            ("abcdefgh-2-ijklmnop", 2),
            ("ABCDEFGH-1-IJKLMNOP", 3),
        ]);
        assert_eq!(table.find(b"abcdefgh-1-ijklmnop"), Some(&1));
        assert_eq!(table.find(b"abcdefgh-2-IJKLMNOP"), Some(&2));
        assert_eq!(table.find(b"abcdefgh-3-ijklmnop"), None);
        assert_eq!(table.find(b""), None);
        assert_eq!(NameTable::<()>::new([]).find(b"get"), None);
    }

    proptest! {
        #[test]
        fn lower_case_is_ascii_lower_case(bytes: [u8; 8]) {
            prop_assert_eq!(lower(u64::from_le_bytes(bytes)).to_le_bytes(), bytes.map(|byte| byte.to_ascii_lowercase()));
        }
    }
}
