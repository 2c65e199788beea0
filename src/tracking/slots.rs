//! A set of slots.

use slotcast_wire::slot::SLOTS;

const WORDS: usize = SLOTS / 64;

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots(Box<[u64; WORDS]>);

impl Default for Slots {
    fn default() -> Self {
        Self(Box::new([0; WORDS]))
    }
}

impl Slots {
    /// Every slot.
    pub fn all() -> Self {
        Self(Box::new([u64::MAX; WORDS]))
    }

    /// Whether every slot is in.
    pub fn is_all(&self) -> bool {
        self.0.iter().all(|word| *word == u64::MAX)
    }

    /// Puts one in.
    pub fn insert(&mut self, slot: u16) {
        if let Some(word) = self.0.get_mut(usize::from(slot) / 64) {
            *word |= 1 << (slot % 64);
        }
    }

    /// Whether it is in.
    #[inline]
    pub fn contains(&self, slot: u16) -> bool {
        self.0.get(usize::from(slot) / 64).is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

    /// Those that are in both.
    pub fn and(&self, other: &Self) -> Self {
        let mut both = self.clone();
        both.0.iter_mut().zip(other.0.iter()).for_each(|(word, other)| *word &= other);
        both
    }

    /// As ranges, ascending: first and last, both included.
    pub fn ranges(&self) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for slot in (0..SLOTS as u16).filter(|slot| self.contains(*slot)) {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == slot => *last = slot,
                _ => ranges.push((slot, slot)),
            }
        }
        ranges
    }
}

impl FromIterator<u16> for Slots {
    fn from_iter<I: IntoIterator<Item = u16>>(slots: I) -> Self {
        let mut set = Self::default();
        slots.into_iter().for_each(|slot| set.insert(slot));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_as_ranges() {
        let slots: Slots = [5, 0, 1, 2, 63, 64, 65, 16383].into_iter().collect();
        assert_eq!(slots.ranges(), [(0, 2), (5, 5), (63, 65), (16383, 16383)]);
        assert!(slots.contains(64) && !slots.contains(66));
        let even: Slots = (0..SLOTS as u16).filter(|slot| slot % 2 == 0).collect();
        assert_eq!(slots.and(&even).ranges(), [(0, 0), (2, 2), (64, 64)]);
        assert_eq!(Slots::all().ranges(), [(0, 16383)]);
        assert_eq!(Slots::default().ranges(), []);
    }
}
