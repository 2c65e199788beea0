//! Choosing what to let go when memory is short.
//!
//! As in Redis, by sampling: the best of a few records drawn at random, which comes close to true LRU without a list
//! through all records. A policy is one comparison. The chooser only names a key; removing it is a write like any
//! other (the leader's proposal). It doesn't know how much memory there is.

use slotcast_wire::slot::SLOTS;

use crate::keyspace::Keyspace;
use crate::keyspace::record::Record;
use crate::time::Millis;

/// What may be let go (`maxmemory-policy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Nothing: writes that need memory are refused.
    NoEviction,
    /// Any key, the longest unused first.
    AllkeysLru,
    /// Keys with a deadline, the nearest first.
    VolatileTtl,
}

/// Names the best of `samples` records drawn with `random`, among the slots that `owned` admits; `None` if the
/// policy allows none that was drawn.
pub fn victim(
    keyspace: &Keyspace,
    policy: Policy,
    samples: usize,
    now: Millis,
    random: &mut dyn FnMut() -> u64,
) -> Option<Box<[u8]>> {
    let mut best: Option<(u64, Box<[u8]>)> = None;
    for _ in 0..samples {
        let Some((score, key)) = sample(keyspace, random, |record| score(policy, record, now)) else {
            continue;
        };
        if best.as_ref().is_none_or(|(other, _)| score > *other) {
            best = Some((score, key));
        }
    }
    best.map(|(_, key)| key)
}

/// Higher goes first; `None`: may not go.
fn score(policy: Policy, record: &Record, now: Millis) -> Option<u64> {
    match policy {
        Policy::NoEviction => None,
        Policy::AllkeysLru => Some(record.idle((now / 1000) as u32) as u64),
        Policy::VolatileTtl => record.expires_at().map(|deadline| u64::MAX - deadline),
    }
}

/// A random record of the first slot, from a random one on, that holds a record `f` admits.
fn sample<S>(
    keyspace: &Keyspace,
    random: &mut dyn FnMut() -> u64,
    f: impl Fn(&Record) -> Option<S>,
) -> Option<(S, Box<[u8]>)> {
    let first = random() as usize % SLOTS;
    for step in 0..SLOTS {
        let slot = keyspace.lock(((first + step) % SLOTS) as u16);
        if let Some(found) =
            slot.from_random(random()).find_map(|record| Some((f(record)?, record.key().into())))
        {
            return Some(found);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::effect::Nobody;
    use crate::keyspace::locked::{Deadline, Locked, Needs};

    fn filled() -> Keyspace {
        let keyspace = Keyspace::new();
        for (key, now, deadline) in [
            ("old", 1_000, Deadline::Never),
            ("new", 9_000, Deadline::Never),
            ("soon", 8_000, Deadline::At(20_000)),
            ("later", 8_000, Deadline::At(30_000)),
        ] {
            Locked::new(&keyspace, &Needs::Everything, now, 0, &Nobody).put_bytes(
                key.as_bytes(),
                b"",
                deadline,
            );
        }
        keyspace
    }

    fn counting() -> impl FnMut() -> u64 {
        let mut n = 0;
        move || {
            n += 977;
            n
        }
    }

    #[test]
    fn each_policy_names_its_victim() {
        let keyspace = filled();
        let choose = |policy| victim(&keyspace, policy, 400, 10_000, &mut counting());
        assert_eq!(choose(Policy::NoEviction), None);
        assert_eq!(choose(Policy::AllkeysLru).as_deref(), Some(&b"old"[..]));
        assert_eq!(choose(Policy::VolatileTtl).as_deref(), Some(&b"soon"[..]));
    }
}
