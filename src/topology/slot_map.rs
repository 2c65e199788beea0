//! Which shard owns which slot: ranges on the wire, a flat array in use.

use serde::{Deserialize, Serialize};
use slotcast_wire::slot::SLOTS;

use crate::id::GroupId;

/// Slot to shard; `None`: not assigned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Range>", into = "Vec<Range>")]
pub struct SlotMap(Box<[Option<GroupId>]>);

/// Consecutive slots of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// First slot.
    pub first: u16,
    /// Last slot, included.
    pub last: u16,
    /// Their owner.
    pub shard: GroupId,
}

impl Default for SlotMap {
    fn default() -> Self {
        Self(vec![None; SLOTS].into())
    }
}

impl SlotMap {
    /// Splits all slots evenly over `shards`, in order (as `redis-cli --cluster create` does).
    pub fn even(shards: &[GroupId]) -> Self {
        let mut map = Self::default();
        for (slot, owner) in map.0.iter_mut().enumerate() {
            *owner = shards.get(slot * shards.len() / SLOTS).copied();
        }
        map
    }

    /// The owner of a slot.
    pub fn owner(&self, slot: u16) -> Option<GroupId> {
        self.0.get(slot as usize).copied().flatten()
    }

    /// Gives a slot to a shard.
    pub fn assign(&mut self, slot: u16, shard: GroupId) {
        if let Some(owner) = self.0.get_mut(slot as usize) {
            *owner = Some(shard);
        }
    }

    /// All assigned slots as ranges, ascending.
    pub fn ranges(&self) -> Vec<Range> {
        let mut ranges: Vec<Range> = Vec::new();
        for (slot, owner) in self.0.iter().enumerate() {
            let (slot, Some(shard)) = (slot as u16, *owner) else { continue };
            match ranges.last_mut() {
                Some(range) if range.shard == shard && range.last + 1 == slot => range.last = slot,
                _ => ranges.push(Range { first: slot, last: slot, shard }),
            }
        }
        ranges
    }

    /// Number of assigned slots.
    pub fn assigned(&self) -> usize {
        self.0.iter().flatten().count()
    }
}

impl From<Vec<Range>> for SlotMap {
    fn from(ranges: Vec<Range>) -> Self {
        let mut map = Self::default();
        for range in ranges {
            (range.first..=range.last).for_each(|slot| map.assign(slot, range.shard));
        }
        map
    }
}

impl From<SlotMap> for Vec<Range> {
    fn from(map: SlotMap) -> Self {
        map.ranges()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_shards_split_as_redis_cli_splits() {
        let map = SlotMap::even(&[GroupId(1), GroupId(2), GroupId(3)]);
        let ranges: Vec<_> = map.ranges().iter().map(|range| (range.first, range.last)).collect();
        assert_eq!(ranges, [(0, 5461), (5462, 10922), (10923, 16383)]);
        assert_eq!(map.assigned(), SLOTS);
    }

    #[test]
    fn ranges_bring_the_map_back() {
        let mut map = SlotMap::even(&[GroupId(1), GroupId(2)]);
        map.assign(5, GroupId(2));
        assert_eq!(SlotMap::from(map.ranges()), map);
        assert_eq!(map.owner(5), Some(GroupId(2)));
        assert_eq!(SlotMap::default().owner(5), None);
    }
}
