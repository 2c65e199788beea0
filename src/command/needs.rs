//! Which slots a request needs: read off its keys, for the locks and for the router.

use slotcast_wire::args::Args;
use slotcast_wire::slot::slot_of;
use smallvec::SmallVec;

use crate::command::spec::{Command, Find, NoKeys};
use crate::keyspace::locked::Needs;

/// The slots of a request. One slot if all keys share it; several are ascending and distinct. Without keys: all slots
/// for a write (FLUSHALL), none for a read (it walks by itself, or looks at no key).
#[inline]
pub fn needs(command: &Command, args: Args<'_>) -> Result<Needs, NoKeys> {
    if let Some(position) = only_key(command) {
        return args.get(position).map(|key| Needs::Slot(slot_of(key))).ok_or(NoKeys);
    }
    several(command, args)
}

/// The position of a command's key, if it always has exactly one.
#[inline]
pub fn only_key(command: &Command) -> Option<usize> {
    match command.keys {
        [spec] if matches!(spec.find, Find::Range { last: 0, .. }) => Some(spec.begin),
        _ => None,
    }
}

fn several(command: &Command, args: Args<'_>) -> Result<Needs, NoKeys> {
    let positions = command.key_positions(args)?;
    let mut slots: SmallVec<[u16; 8]> = positions.iter().map(|at| slot_of(args.at(*at as usize))).collect();
    slots.sort_unstable();
    slots.dedup();
    Ok(match slots[..] {
        [] if command.is_write() => Needs::Everything,
        [] => Needs::Nothing,
        [slot] => Needs::Slot(slot),
        _ => Needs::Slots(slots),
    })
}

/// What two requests need together (MULTI). A walk beside others needs all slots: it would lock some while others are
/// held.
pub fn union(one: Needs, other: Needs) -> Needs {
    let slots = |needs| match needs {
        Needs::Slot(slot) => Some(SmallVec::from_slice(&[slot])),
        Needs::Slots(slots) => Some(slots),
        Needs::Nothing | Needs::Everything => None,
    };
    if let (Needs::Nothing, Needs::Nothing) = (&one, &other) {
        return Needs::Nothing;
    }
    let (Some(mut one), Some(other)): (Option<SmallVec<[u16; 8]>>, _) = (slots(one), slots(other)) else {
        return Needs::Everything;
    };
    one.extend(other);
    one.sort_unstable();
    one.dedup();
    if let [slot] = one[..] { Needs::Slot(slot) } else { Needs::Slots(one) }
}

#[cfg(test)]
mod tests {
    use slotcast_wire::args::OwnedArgs;

    use super::*;
    use crate::command::table::rows;

    fn of(line: &str) -> String {
        let args: OwnedArgs = line.split(' ').collect();
        let name = args.as_args().name();
        let command = rows().find(|row| row.name.as_bytes() == name).unwrap();
        format!("{:?}", needs(command.resolve(args.as_args()).unwrap(), args.as_args()))
    }

    #[test]
    fn slots_follow_from_the_keys() {
        assert_eq!(of("get foo"), "Ok(Slot(12182))");
        assert_eq!(of("mget foo {foo}1 foo"), "Ok(Slot(12182))");
        assert_eq!(of("mset foo v bar v"), "Ok(Slots([5061, 12182]))");
        assert_eq!(of("rename foo bar"), "Ok(Slots([5061, 12182]))");
        assert_eq!(of("object encoding foo"), "Ok(Slot(12182))");
        assert_eq!(of("scan 0"), "Ok(Nothing)");
        assert_eq!(of("flushall"), "Ok(Everything)");
    }

    #[test]
    fn a_union_holds_both() {
        let text = |one, other| format!("{:?}", union(one, other));
        let many = |slots: &[u16]| Needs::Slots(SmallVec::from_slice(slots));
        assert_eq!(text(Needs::Slot(3), Needs::Slot(3)), "Slot(3)");
        assert_eq!(text(many(&[3, 9]), Needs::Slot(5)), "Slots([3, 5, 9])");
        assert_eq!(text(Needs::Nothing, Needs::Slot(5)), "Everything");
        assert_eq!(text(Needs::Nothing, Needs::Nothing), "Nothing");
        assert_eq!(text(Needs::Slot(5), Needs::Everything), "Everything");
    }
}
