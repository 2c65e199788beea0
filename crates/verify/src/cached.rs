//! The keys that caches read and authors change, and what a value says of itself.

/// Keys that caches read and authors write: as many as make each entry live for some reads, and be overtaken soon.
pub const KEYS: usize = 600;

/// The name of a key.
pub fn name(key: usize) -> String {
    format!("cached:{key}")
}

/// What a write of a key puts there: it says which write it was.
pub fn value(key: usize, number: u32) -> String {
    format!("{key}:{number}")
}

/// Which write of a key a value is of; `None`: of none.
pub fn number(key: usize, value: Option<&[u8]>) -> Option<u32> {
    let Some(value) = value else { return Some(0) };
    let (of, number) = std::str::from_utf8(value).ok()?.split_once(':')?;
    (of.parse() == Ok(key)).then(|| number.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_tells_which_write_of_its_key_it_was() {
        assert_eq!(number(7, Some(value(7, 12).as_bytes())), Some(12));
        assert_eq!(number(7, None), Some(0));
        assert_eq!(number(8, Some(value(7, 12).as_bytes())), None);
        assert_eq!(number(7, Some(b"7:x")), None);
    }
}
