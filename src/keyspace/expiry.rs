//! Finding records whose time has come.
//!
//! A record past its deadline is absent for every command already; what is left is to give its memory back and to
//! let caches know. The walk is a cursor over slots with a budget of records per step, so a step's cost is bounded
//! whatever the keyspace's size; the finder only names keys, removing them is a write like any other.

use slotcast_wire::slot::SLOTS;

use crate::keyspace::Keyspace;
use crate::time::Millis;

/// Walks from `cursor` over at most `budget` records (finishing a slot it has begun), and names at most `most` keys
/// past their deadline. The cursor wraps after the last slot. Costs nothing while no key has a deadline.
pub fn lapsed(
    keyspace: &Keyspace,
    now: Millis,
    cursor: &mut u16,
    budget: usize,
    most: usize,
) -> Vec<Box<[u8]>> {
    let mut found = Vec::new();
    let mut left = budget;
    if keyspace.usage().volatile == 0 {
        return found;
    }
    for _ in 0..SLOTS {
        let slot = keyspace.lock(*cursor);
        for record in slot.iter().filter(|record| record.expires_at().is_some_and(|deadline| deadline <= now))
        {
            found.push(record.key().into());
            if found.len() >= most {
                return found;
            }
        }
        left = left.saturating_sub(slot.len());
        *cursor = (*cursor + 1) % SLOTS as u16;
        if left == 0 {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::effect::Nobody;
    use crate::keyspace::locked::{Deadline, Locked, Needs};

    #[test]
    fn names_lapsed_keys_once_their_time_has_come() {
        let keyspace = Keyspace::new();
        let mut locked = Locked::new(&keyspace, &Needs::Everything, 0, 0, &Nobody);
        locked.put_bytes(b"early", b"", Deadline::At(10));
        locked.put_bytes(b"late", b"", Deadline::At(20));
        locked.put_bytes(b"never", b"", Deadline::Never);
        drop(locked);
        let mut cursor = 77;
        assert!(lapsed(&keyspace, 9, &mut cursor, 100, 10).is_empty());
        assert_eq!(lapsed(&keyspace, 10, &mut cursor, 100, 10), [Box::from(*b"early")]);
        assert_eq!(lapsed(&keyspace, 20, &mut cursor, 100, 10).len(), 2);
        assert_eq!(lapsed(&keyspace, 20, &mut cursor, 100, 1).len(), 1);
    }
}
