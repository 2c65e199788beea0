//! How long something that has failed is left alone: longer each time it fails again soon.

use std::time::Duration;

use rand::Rng;

/// After the first failure; each may be twice as long as the one before.
const FIRST: Duration = Duration::from_millis(20);

/// See the module's documentation. Times are durations since an origin of the caller's choice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pause {
    until: Duration,
    length: Duration,
}

impl Pause {
    /// Whether it is over.
    pub fn is_over(&self, now: Duration) -> bool {
        now >= self.until
    }

    /// It has failed: it is left alone, for between half the length and all of it, so that not everybody comes back
    /// at once. Who fails no sooner than twice `longest` after a pause begins anew.
    pub fn fail(&mut self, now: Duration, longest: Duration, random: &mut impl Rng) {
        let again = self.length > Duration::ZERO && now < self.until + longest * 2;
        self.length = if again { (self.length * 2).min(longest) } else { FIRST.min(longest) };
        self.until = now + self.length.mul_f64(random.random_range(0.5..=1.0));
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn it_grows_to_the_longest_and_is_forgiven() {
        let (mut pause, mut random) = (Pause::default(), SmallRng::seed_from_u64(1));
        let longest = Duration::from_millis(500);
        let mut now = Duration::from_secs(1);
        let mut lengths = Vec::new();
        for _ in 0..8 {
            assert!(pause.is_over(now));
            pause.fail(now, longest, &mut random);
            assert!(!pause.is_over(now));
            lengths.push(pause.length.as_millis());
            now = pause.until;
        }
        assert_eq!(lengths, [20, 40, 80, 160, 320, 500, 500, 500]);
        now += longest * 3;
        pause.fail(now, longest, &mut random);
        assert_eq!(pause.length, FIRST);
    }
}
