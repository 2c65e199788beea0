//! Rules broken on purpose, to prove that `scripts/verify` and the simulation notice. Compiled with the feature `broken` only, which no
//! build for use has; even then each has to be asked for, with `SLOTCAST_BROKEN=acknowledged-early,…`.

use std::sync::LazyLock;

static ASKED_FOR: LazyLock<Vec<String>> = LazyLock::new(|| {
    let rules = std::env::var("SLOTCAST_BROKEN").unwrap_or_default();
    rules.split(',').map(str::to_owned).collect()
});

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A SET is acknowledged when it has been proposed.
    AcknowledgedEarly,
    /// A read is answered although the lease has run out.
    ReadWithoutLease,
    /// A vote is kept in memory only.
    VoteForgotten,
    /// A change is left out of the invalidation log: those of every hundredth entry.
    ChangeLeftOut,
    /// A subscription to the invalidation log goes on from now instead of from where it stood.
    ResumedFromNow,
    /// A node vouches for its copies although no quorum stands behind it.
    VouchedAlone,
    /// A shard's history goes on although what was acknowledged in it may be lost.
    HistoryKept,
}

/// All of them, by the names to ask for them by.
pub const ALL: [(&str, Rule); 7] = [
    ("acknowledged-early", Rule::AcknowledgedEarly),
    ("read-without-lease", Rule::ReadWithoutLease),
    ("vote-forgotten", Rule::VoteForgotten),
    ("change-left-out", Rule::ChangeLeftOut),
    ("resumed-from-now", Rule::ResumedFromNow),
    ("vouched-alone", Rule::VouchedAlone),
    ("history-kept", Rule::HistoryKept),
];

/// Whether a rule is to be broken.
pub fn breaks(rule: Rule) -> bool {
    let named = |asked: &String| ALL.iter().any(|(name, known)| *known == rule && asked == name);
    ASKED_FOR.iter().any(named)
}
