//! The newest frames of a ring, for the subscribers who need the same bytes.
//!
//! Whoever wants to hear of every key and stands where another one stood is told the same. So the first of them leaves
//! its frame here, and the others copy it: with a thousand subscribers a change is looked up and encoded once. The frames
//! join each other, and a subscriber goes along them as far as they reach.
//!
//! What is in a frame, and what a position in the ring is besides its index, is not known here.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// Bytes kept of each ring: a few frames are enough, as subscribers are woken together. Longer frames are not kept.
const KEPT_BYTES: usize = 16 << 10;

/// What a subscriber of everything was told of the changes in (from, to]. `P`: where the ring is read on after it.
#[derive(Clone, Debug)]
pub struct Encoded<P> {
    /// In which history.
    pub lineage: u64,
    /// See above.
    pub from: u64,
    /// See above.
    pub to: u64,
    /// Keys it names.
    pub keys: usize,
    /// The frame.
    pub bytes: Vec<u8>,
    /// Where to read on.
    pub after: P,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Frames<P>(Mutex<Kept<P>>);

#[derive(Debug)]
struct Kept<P> {
    frames: VecDeque<Encoded<P>>,
    /// Bytes in all of them.
    bytes: usize,
}

impl<P> Default for Frames<P> {
    fn default() -> Self {
        Self(Mutex::new(Kept { frames: VecDeque::new(), bytes: 0 }))
    }
}

impl<P: Clone> Frames<P> {
    /// Appends what a subscriber who was told everything up to `from` is to be told next, as far as it is here and no
    /// frame names more than `max_keys`; up to where that reaches, and where to read on.
    pub fn copy(&self, lineage: u64, from: u64, max_keys: usize, out: &mut Vec<u8>) -> Option<(u64, P)> {
        let frames = &self.0.lock().frames;
        // Almost everybody stands at the last one.
        let begin = frames.iter().rposition(|frame| frame.from <= from)?;
        if frames.get(begin)?.from != from {
            return None;
        }
        let fits = |frame: &&Encoded<P>| frame.lineage == lineage && frame.keys <= max_keys;
        let mut last = None;
        for frame in frames.range(begin..).take_while(fits) {
            out.extend_from_slice(&frame.bytes);
            last = Some(frame);
        }
        last.map(|frame| (frame.to, frame.after.clone()))
    }

    /// Leaves a frame for others. It goes on from the last one, or takes the place of all if it reaches further.
    pub fn leave(&self, frame: Encoded<P>) {
        let mut kept = self.0.lock();
        let Kept { frames, bytes } = &mut *kept;
        match frames.back() {
            Some(last) if last.lineage == frame.lineage && last.to >= frame.to => return,
            Some(last) if last.lineage == frame.lineage && last.to == frame.from => {}
            _ => {
                frames.clear();
                *bytes = 0;
            }
        }
        *bytes += frame.bytes.len();
        frames.push_back(frame);
        while *bytes > KEPT_BYTES
            && let Some(first) = frames.pop_front()
        {
            *bytes -= first.bytes.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(lineage: u64, from: u64, to: u64, len: usize) -> Encoded<u64> {
        Encoded { lineage, from, to, keys: 1, bytes: vec![to as u8; len], after: to * 10 }
    }

    fn copied(
        frames: &Frames<u64>,
        lineage: u64,
        from: u64,
        max_keys: usize,
    ) -> (Vec<u8>, Option<(u64, u64)>) {
        let mut out = Vec::new();
        let end = frames.copy(lineage, from, max_keys, &mut out);
        (out, end)
    }

    #[test]
    fn whoever_stands_where_another_stood_is_told_the_same() {
        let frames = Frames::default();
        assert_eq!(copied(&frames, 9, 0, 10), (vec![], None));
        for (from, to) in [(0, 3), (3, 5), (1, 4)] {
            frames.leave(frame(9, from, to, 2));
        }
        assert_eq!(copied(&frames, 9, 0, 10), (vec![3, 3, 5, 5], Some((5, 50))));
        assert_eq!(copied(&frames, 9, 3, 10), (vec![5, 5], Some((5, 50))));
        for (lineage, from, max_keys) in [(9, 5, 10), (9, 1, 10), (8, 0, 10), (9, 0, 0)] {
            assert_eq!(copied(&frames, lineage, from, max_keys), (vec![], None));
        }
        frames.leave(frame(9, 1, 7, 2));
        assert_eq!(copied(&frames, 9, 1, 10), (vec![7, 7], Some((7, 70))));
        assert_eq!(copied(&frames, 9, 3, 10), (vec![], None), "what doesn't join is gone");
        frames.leave(frame(10, 1, 2, 2));
        assert_eq!(copied(&frames, 10, 1, 10), (vec![2, 2], Some((2, 20))), "another history");
    }

    #[test]
    fn old_and_long_frames_are_not_kept() {
        let frames = Frames::default();
        (0..100).for_each(|n| frames.leave(frame(9, n, n + 1, 1000)));
        assert_eq!(copied(&frames, 9, 0, 10).1, None);
        assert_eq!(copied(&frames, 9, 90, 10).0.len(), 10_000);
        frames.leave(frame(9, 100, 101, KEPT_BYTES + 1));
        assert_eq!(copied(&frames, 9, 99, 10).1, None);
        assert_eq!(copied(&frames, 9, 100, 10).1, None);
    }
}
