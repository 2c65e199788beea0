//! What one connection has still to be told: keys that changed, or that everything may have.
//!
//! Kept as keys, not as frames, because how they are written depends on the protocol the connection speaks when it is
//! told. Keys that it has read are told one by one, since some clients look at the first key of a push only; broadcast
//! keys by prefix, each once, as Redis tells those of one turn.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use slotcast_wire::push;
use smallvec::SmallVec;

/// Bytes that may wait, in memory as well as on the wire; beyond it they give way to one "everything may have changed".
/// A client that takes nothing costs this twice: once here, and once as frames its socket has not taken.
pub const MAX_BYTES: usize = 3 << 20;

/// What a key costs besides its own bytes. Told alone, the most is its frame (as a message, the longest form); told
/// with others, its place in memory.
const ALONE: usize = 80;
const TOGETHER: usize = 48;
/// Bytes of frames that name no key, and of the head of one that names several.
const EMPTY_FRAMES: usize = 128;

/// How a connection is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// RESP3: pushes.
    Push,
    /// RESP2, in pub/sub mode: messages.
    Message,
    /// RESP2 otherwise: there is no way.
    Nothing,
}

/// From so many broadcast keys on they are found by their hashes.
const MANY_KEYS: usize = 16;

/// Keys one behind the other, each behind its length: one allocation, however many they are.
#[derive(Default)]
struct Keys(Vec<u8>);

impl Keys {
    /// Returns the key's place.
    fn push(&mut self, key: &[u8]) -> u32 {
        let at = self.0.len() as u32;
        self.0.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.0.extend_from_slice(key);
        at
    }

    /// The key at a place.
    fn at(&self, place: u32) -> Option<&[u8]> {
        let (length, rest) = self.0.get(place as usize..)?.split_first_chunk()?;
        rest.get(..u32::from_le_bytes(*length) as usize)
    }

    /// All, each with its place.
    fn iter(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let mut place = 0;
        std::iter::from_fn(move || {
            let key = self.at(place)?;
            let here = place;
            place += 4 + key.len() as u32;
            Some((here, key))
        })
    }
}

/// See the module's documentation.
#[derive(Default)]
pub struct Backlog {
    /// Everything may have changed: no key needs to be named.
    everything: bool,
    /// The connection that invalidations were redirected to is gone.
    broken: Option<u64>,
    alone: Keys,
    /// By prefix.
    together: Vec<(SmallVec<[u8; 31]>, Keys)>,
    /// How many keys are there.
    count: usize,
    /// Positions in `together` and places in the keys there, by key. Empty while they are few.
    seen: HashTable<(u32, u32)>,
    hasher: foldhash::fast::RandomState,
    bytes: usize,
}

impl Backlog {
    /// A key it has read has changed.
    pub fn tell(&mut self, key: &[u8]) {
        if self.has_room(key.len() + ALONE) {
            self.alone.push(key);
        }
    }

    /// A key with a prefix that it wants to hear of has changed.
    pub fn broadcast(&mut self, prefix: &[u8], key: &[u8]) {
        let group = self.together.iter().position(|(known, _)| **known == *prefix);
        let group = group.unwrap_or(self.together.len());
        if self.is_seen(group, key) || !self.has_room(key.len() + TOGETHER) {
            return;
        }
        if group == self.together.len() {
            self.together.push((SmallVec::from_slice(prefix), Keys::default()));
        }
        let place = self.together[group].1.push(key);
        self.count += 1;
        self.see(group as u32, place);
    }

    fn is_seen(&self, group: usize, key: &[u8]) -> bool {
        if self.count < MANY_KEYS {
            return self.together.get(group).is_some_and(|(_, keys)| keys.iter().any(|(_, one)| one == key));
        }
        let is_it = |at: &(u32, u32)| at.0 as usize == group && self.key_at(*at) == Some(key);
        self.seen.find(self.hasher.hash_one(key), is_it).is_some()
    }

    /// Lets the newest key be found.
    fn see(&mut self, group: u32, place: u32) {
        let mut seen = std::mem::take(&mut self.seen);
        let hash = |at: &(u32, u32)| self.hasher.hash_one(self.key_at(*at).unwrap_or_default());
        let mut see = |at| {
            seen.insert_unique(hash(&at), at, hash);
        };
        if self.count == MANY_KEYS {
            let groups = (0..).zip(&self.together);
            groups.for_each(|(group, (_, keys))| keys.iter().for_each(|(place, _)| see((group, place))));
        } else if self.count > MANY_KEYS {
            see((group, place));
        }
        self.seen = seen;
    }

    fn key_at(&self, (group, place): (u32, u32)) -> Option<&[u8]> {
        self.together.get(group as usize)?.1.at(place)
    }

    /// Everything may have changed, which makes the keys that wait needless.
    pub fn tell_everything(&mut self) {
        *self =
            Self { everything: true, broken: self.broken, hasher: self.hasher.clone(), ..Self::default() };
    }

    /// Nobody is told any more in its place: that connection is gone.
    pub fn tell_broken(&mut self, target: u64) {
        self.broken = Some(target);
    }

    /// Appends the frames that tell it, and is empty.
    pub fn write(&mut self, form: Form, out: &mut Vec<u8>) {
        let hasher = self.hasher.clone();
        let told = std::mem::replace(self, Self { hasher, ..Self::default() });
        // What is told is not longer than what was counted, but for the frames that name no key.
        out.reserve(if form == Form::Nothing { 0 } else { told.bytes + EMPTY_FRAMES });
        let together = told.together.iter().map(|(_, keys)| keys.iter().map(|(_, key)| key).collect());
        let together: Vec<Vec<&[u8]>> = together.collect();
        match form {
            Form::Push => {
                told.broken.into_iter().for_each(|target| push::redirect_broken(out, target as i64));
                told.alone.iter().for_each(|(_, key)| push::invalidate_keys(out, &[key]));
                together.iter().for_each(|keys| push::invalidate_keys(out, keys));
                if told.everything {
                    push::invalidate_all(out);
                }
            }
            Form::Message => {
                told.alone.iter().for_each(|(_, key)| push::message_keys(out, &[key]));
                together.iter().for_each(|keys| push::message_keys(out, keys));
                if told.everything {
                    push::message_all(out);
                }
            }
            Form::Nothing => {}
        }
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts further bytes; false if no key needs to be named (any more).
    fn has_room(&mut self, further: usize) -> bool {
        if !self.everything && self.bytes + further > MAX_BYTES {
            self.tell_everything();
        }
        if !self.everything {
            self.bytes += further;
        }
        !self.everything
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(backlog: &mut Backlog, form: Form) -> String {
        let mut out = Vec::new();
        backlog.write(form, &mut out);
        out.escape_ascii().to_string().replace(r"\r\n", " ")
    }

    #[test]
    fn read_keys_are_told_one_by_one_and_broadcast_keys_together_and_once() {
        let mut backlog = Backlog::default();
        backlog.tell(b"a");
        backlog.tell(b"b");
        ["x", "y", "x"].iter().for_each(|key| backlog.broadcast(b"", key.as_bytes()));
        backlog.broadcast(b"x", b"x");
        let one = |key: &str| format!(">2 $10 invalidate *1 $1 {key} ");
        let all = format!("{}{}>2 $10 invalidate *2 $1 x $1 y {}", one("a"), one("b"), one("x"));
        assert_eq!(written(&mut backlog, Form::Push), all);
        assert_eq!(written(&mut backlog, Form::Push), "", "told once");
        backlog.broadcast(b"", b"x");
        assert_eq!(written(&mut backlog, Form::Push), one("x"), "it has changed again since");
    }

    #[test]
    fn resp2_is_told_by_messages_or_not_at_all() {
        let mut backlog = Backlog::default();
        backlog.tell(b"a");
        backlog.broadcast(b"", b"x");
        let head = "*3 $7 message $20 __redis__:invalidate ";
        assert_eq!(written(&mut backlog, Form::Message), format!("{head}*1 $1 a {head}*1 $1 x "));
        backlog.tell_everything();
        assert_eq!(written(&mut backlog, Form::Message), format!("{head}$-1 "));
        backlog.tell(b"a");
        backlog.tell_broken(7);
        assert_eq!(written(&mut backlog, Form::Nothing), "");
        assert_eq!(written(&mut backlog, Form::Push), "");
    }

    #[test]
    fn everything_stands_for_all_keys_but_not_for_a_broken_redirection() {
        let mut backlog = Backlog::default();
        backlog.tell_broken(7);
        backlog.tell(b"a");
        backlog.tell_everything();
        backlog.tell(b"b");
        backlog.broadcast(b"", b"c");
        let told = written(&mut backlog, Form::Push);
        assert_eq!(told, ">2 $21 tracking-redir-broken :7 >2 $10 invalidate _ ");
    }

    #[test]
    fn too_many_keys_become_everything() {
        let mut backlog = Backlog::default();
        for n in 0..1_000_000 {
            match n % 2 {
                0 => backlog.tell(format!("some-key-of-a-cache:{n}").as_bytes()),
                _ => backlog.broadcast(b"some", format!("some-key-of-a-cache:{n}").as_bytes()),
            }
            assert!(backlog.bytes() <= MAX_BYTES);
        }
        assert_eq!(written(&mut backlog, Form::Push), ">2 $10 invalidate _ ");
    }

    #[test]
    fn what_waits_is_never_longer_on_the_wire_than_counted() {
        for form in [Form::Push, Form::Message] {
            let mut backlog = Backlog::default();
            for n in 0..20_000 {
                backlog.tell(n.to_string().as_bytes());
                backlog.broadcast(b"", n.to_string().as_bytes());
            }
            let (counted, mut out) = (backlog.bytes(), Vec::new());
            backlog.write(form, &mut out);
            assert!(out.len() <= counted + 100 && out.len() > 500_000, "{} {counted}", out.len());
        }
    }
}
