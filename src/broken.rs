//! Rules broken on purpose, to prove that `scripts/verify` notices. Compiled with the feature `broken` only, which no
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
}

/// Whether a rule is to be broken.
pub fn breaks(rule: Rule) -> bool {
    let name = match rule {
        Rule::AcknowledgedEarly => "acknowledged-early",
        Rule::ReadWithoutLease => "read-without-lease",
        Rule::VoteForgotten => "vote-forgotten",
    };
    ASKED_FOR.iter().any(|asked| asked == name)
}
