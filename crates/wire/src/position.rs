//! A place in a shard's history: where a cached value was read, how far a stream of invalidations has come.

use std::fmt;
use std::str::FromStr;

/// Which shard, in which of its histories, after which entry of its log. Written `shard:lineage:index`.
///
/// The *lineage* is another one only when a shard's history is no extension of the old one (what was acknowledged is
/// lost for good, or the cluster began anew): positions of different lineages cannot be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Number of the shard.
    pub shard: u32,
    /// Drawn at random when a history begins; fits an i64, as RESP integers do. 0: not known yet.
    pub lineage: u64,
    /// Log index.
    pub index: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.shard, self.lineage, self.index)
    }
}

impl FromStr for Position {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split(':');
        let mut next = || parts.next()?.parse::<u64>().ok().filter(|n| *n <= i64::MAX as u64);
        let (shard, lineage, index) = (next().ok_or(())?, next().ok_or(())?, next().ok_or(())?);
        match parts.next() {
            None => Ok(Self { shard: shard.try_into().map_err(|_| ())?, lineage, index }),
            Some(_) => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nonsense_refused() {
        let position = Position { shard: 3, lineage: i64::MAX as u64, index: 12 };
        assert_eq!(position.to_string().parse(), Ok(position));
        for nonsense in ["", "1:2", "1:2:3:4", "1:2:x", "-1:2:3", "4294967296:1:1", "1:9223372036854775808:1"]
        {
            assert_eq!(nonsense.parse::<Position>(), Err(()), "{nonsense}");
        }
    }
}
