//! What one connection has still to be told: keys that changed, or that everything may have.
//!
//! Kept as keys, not as frames, because how they are written depends on the protocol the connection speaks when it is
//! told. Keys that it has read are told one by one, since some clients look at the first key of a push only; broadcast
//! keys by prefix, each once, as Redis tells those of one turn.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use slotcast_wire::push;

/// Bytes that may wait, in memory as well as on the wire; beyond it they give way to one "everything may have changed".
/// A client that takes nothing costs this twice: once here, and once as frames its socket has not taken.
pub const MAX_BYTES: usize = 3 << 20;

/// What a key costs besides its own bytes. Told alone, the most is its frame (as a message, the longest form); told
/// with others, its place in memory.
const ALONE: usize = 80;
const TOGETHER: usize = 48;

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

type Keys = Vec<Box<[u8]>>;

/// See the module's documentation.
#[derive(Default)]
pub struct Backlog {
    /// Everything may have changed: no key needs to be named.
    everything: bool,
    /// The connection that invalidations were redirected to is gone.
    broken: Option<u64>,
    alone: Vec<Box<[u8]>>,
    /// By prefix.
    together: Vec<(Box<[u8]>, Keys)>,
    /// Positions in `together` and in the keys there, by key.
    seen: HashTable<(u32, u32)>,
    hasher: foldhash::fast::RandomState,
    bytes: usize,
}

impl Backlog {
    /// A key it has read has changed.
    pub fn tell(&mut self, key: &[u8]) {
        if self.has_room(key.len() + ALONE) {
            self.alone.push(key.into());
        }
    }

    /// A key with a prefix that it wants to hear of has changed.
    pub fn broadcast(&mut self, prefix: &[u8], key: &[u8]) {
        let hash = self.hasher.hash_one(key);
        let group = self.together.iter().position(|(known, _)| **known == *prefix);
        let group = group.unwrap_or(self.together.len());
        let is_it = |at: &(u32, u32)| at.0 as usize == group && self.key_at(*at) == Some(key);
        if self.seen.find(hash, is_it).is_some() || !self.has_room(key.len() + TOGETHER) {
            return;
        }
        if group == self.together.len() {
            self.together.push((prefix.into(), Vec::new()));
        }
        let at = (group as u32, self.together[group].1.len() as u32);
        self.together[group].1.push(key.into());
        let mut seen = std::mem::take(&mut self.seen);
        seen.insert_unique(hash, at, |at| self.hasher.hash_one(self.key_at(*at).unwrap_or_default()));
        self.seen = seen;
    }

    fn key_at(&self, (group, at): (u32, u32)) -> Option<&[u8]> {
        Some(self.together.get(group as usize)?.1.get(at as usize)?)
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
        match form {
            Form::Push => {
                told.broken.into_iter().for_each(|target| push::redirect_broken(out, target as i64));
                told.alone.iter().for_each(|key| push::invalidate_keys(out, &[key]));
                told.together.iter().for_each(|(_, keys)| push::invalidate_keys(out, keys));
                if told.everything {
                    push::invalidate_all(out);
                }
            }
            Form::Message => {
                told.alone.iter().for_each(|key| push::message_keys(out, &[key]));
                told.together.iter().for_each(|(_, keys)| push::message_keys(out, keys));
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
