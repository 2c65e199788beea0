//! Latencies in buckets of about 1.5 % width, from nanoseconds to minutes, in a fixed table.

const SUB_BITS: u32 = 6;
const SUB: usize = 1 << SUB_BITS;
const BUCKETS: usize = SUB * (64 - SUB_BITS as usize + 1);

/// Counts by latency. Adding costs a few instructions; percentiles are exact to the bucket.
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0 }
    }
}

impl Histogram {
    /// Notes `count` latencies of `nanos`.
    pub fn add(&mut self, nanos: u64, count: u64) {
        self.counts[bucket(nanos)] += count;
        self.total += count;
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(mine, theirs)| *mine += theirs);
        self.total += other.total;
    }

    /// The latency in µs that a share of `quantile` (0 to 1) stayed within; 0 when nothing was counted.
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        let rank = (self.total as f64 * quantile).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (i, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper_bound(i) as f64 / 1000.0;
            }
        }
        0.0
    }
}

fn bucket(nanos: u64) -> usize {
    let magnitude = (u64::BITS - nanos.leading_zeros()).saturating_sub(SUB_BITS + 1);
    magnitude as usize * SUB + (nanos >> magnitude) as usize
}

fn upper_bound(bucket: usize) -> u64 {
    let magnitude = (bucket / SUB).saturating_sub(1);
    let sub = bucket - magnitude * SUB;
    ((sub as u64 + 1) << magnitude) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_narrow_and_ordered() {
        let mut last = 0;
        for nanos in (0..10_000).chain((1..50).map(|i| i * 1_234_567_891)) {
            let at = bucket(nanos);
            assert!(at >= last && upper_bound(at) >= nanos, "{nanos} in {at}");
            assert!(upper_bound(at) <= nanos + nanos / 32, "{nanos} in a bucket up to {}", upper_bound(at));
            last = at;
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn quantiles_find_the_rank() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|us| histogram.add(us * 1000, 1));
        assert!((histogram.quantile_us(0.5) - 500.0).abs() < 10.0);
        assert!((histogram.quantile_us(0.999) - 999.0).abs() < 20.0);
        assert_eq!(Histogram::default().quantile_us(0.5), 0.0);
    }
}
