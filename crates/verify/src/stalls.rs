//! When the machine kept the campaign's processes waiting: what is not held against anybody while all is well.

/// Stretches of time, in the order in which they were noticed; nanoseconds of one clock.
#[derive(Clone, Debug, Default)]
pub struct Stalls(Vec<Stall>);

#[derive(Clone, Copy, Debug)]
struct Stall {
    from: u64,
    to: u64,
    lasted: u64,
}

impl Stalls {
    /// Between two looks, some thread waited for so long in all; a wait may have begun before, and is known at its end.
    pub fn note(&mut self, before: u64, now: u64, lasted: u64) {
        self.0.push(Stall { from: before.min(now.saturating_sub(lasted)), to: now, lasted });
    }

    /// How long somebody may have waited within a stretch of time.
    pub fn within(&self, from: u64, to: u64) -> u64 {
        let overlap = |stall: &Stall| stall.to.min(to).saturating_sub(stall.from.max(from)).min(stall.lasted);
        self.0.iter().map(overlap).sum()
    }

    /// How long it was in all.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|stall| stall.lasted).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_counts_where_it_may_have_been() {
        let mut stalls = Stalls::default();
        stalls.note(100, 120, 5);
        stalls.note(180, 200, 50);
        assert_eq!(stalls.total(), 55);
        assert_eq!(stalls.within(0, 1_000), 55);
        assert_eq!(stalls.within(0, 103), 3, "it may have been in these three");
        assert_eq!(stalls.within(110, 160), 5 + 10);
        assert_eq!(stalls.within(200, 300), 0);
    }
}
