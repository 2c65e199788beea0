//! The broadcast mode's table: prefix to the connections that are told of all keys that begin with it.
//!
//! Many connections share few prefixes, so it is kept by prefix, and a key is looked up once for each length that
//! prefixes have. It holds only what connections have named, which the session bounds.

use std::collections::BTreeMap;

use hashbrown::HashMap;

/// See the module's documentation. `M`: a member, under its connection's id.
pub struct Prefixes<M> {
    members: HashMap<Box<[u8]>, BTreeMap<u64, M>, foldhash::fast::RandomState>,
    /// How many prefixes have this length.
    lengths: BTreeMap<usize, usize>,
}

impl<M> Default for Prefixes<M> {
    fn default() -> Self {
        Self { members: HashMap::default(), lengths: BTreeMap::new() }
    }
}

impl<M> Prefixes<M> {
    /// From now on the member is told of keys that begin with `prefix`.
    pub fn join(&mut self, prefix: &[u8], id: u64, member: M) {
        let lengths = &mut self.lengths;
        let members = self.members.entry_ref(prefix).or_insert_with(|| {
            *lengths.entry(prefix.len()).or_insert(0) += 1;
            BTreeMap::new()
        });
        members.insert(id, member);
    }

    /// It no longer is.
    pub fn leave(&mut self, prefix: &[u8], id: u64) {
        let Some(members) = self.members.get_mut(prefix) else { return };
        members.remove(&id);
        if !members.is_empty() {
            return;
        }
        self.members.remove(prefix);
        if let Some(count) = self.lengths.get_mut(&prefix.len()) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&prefix.len());
            }
        }
    }

    /// The members to tell of a key, with the prefix they have named. One that has named two of the key's comes twice.
    pub fn of<'a>(&'a self, key: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a M)> {
        let prefixes = self.lengths.keys().map_while(|length| key.get(..*length));
        let members = prefixes.filter_map(|prefix| Some((prefix, self.members.get(prefix)?)));
        members.flat_map(|(prefix, members)| members.values().map(move |member| (prefix, member)))
    }

    /// Number of prefixes.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is told of anything.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_finds_all_whose_prefix_it_has() {
        let mut prefixes = Prefixes::default();
        for (prefix, id) in [("", 1), ("user:", 2), ("user:1", 3), ("user:", 4), ("cart:", 5)] {
            prefixes.join(prefix.as_bytes(), id, id);
        }
        let told = |key: &str| prefixes.of(key.as_bytes()).map(|(_, id)| *id).collect::<Vec<_>>();
        assert_eq!(told("user:17"), [1, 2, 4, 3]);
        assert_eq!(told("user:2"), [1, 2, 4]);
        assert_eq!(told("us"), [1]);
        assert_eq!(told(""), [1]);
    }

    #[test]
    fn nothing_is_left_of_those_who_have_left() {
        let mut prefixes = Prefixes::default();
        prefixes.join(b"a", 1, 1);
        prefixes.join(b"a", 2, 2);
        prefixes.join(b"b", 1, 1);
        assert_eq!(prefixes.len(), 2);
        for (prefix, id) in [("a", 1), ("b", 1), ("b", 1), ("none", 9)] {
            prefixes.leave(prefix.as_bytes(), id);
        }
        assert_eq!(prefixes.of(b"abc").collect::<Vec<_>>(), [(&b"a"[..], &2)]);
        prefixes.leave(b"a", 2);
        assert!(prefixes.is_empty() && prefixes.lengths.is_empty());
    }
}
