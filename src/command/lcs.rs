//! LCS: the longest common subsequence of two strings, by the textbook table of all prefixes' lengths.
//!
//! The table is the reason for the limit: it takes two bytes for each pair of prefixes, and as much time.

use slotcast_wire::args::Args;
use slotcast_wire::reply::Reply;

use crate::command::argument::{MAX_STRING, integer, is_word};
use crate::command::error::{CommandError, Outcome};
use crate::command::spec::{Command, Find, KeySpec};
use crate::keyspace::locked::Locked;

/// The rows of this file.
pub const ROWS: &[Command] = &[Command::read("lcs", -3, lcs)
    .keys(&[KeySpec { flags: "RO ACCESS", begin: 1, find: Find::Range { last: 1, step: 1 } }])
    .docs(
        "string",
        "7.0.0",
        "O(N*M) where N and M are the lengths of s1 and s2, respectively",
        "Finds the longest common substring.",
    )];

/// Pairs of prefixes of the largest table (Redis's limit, whose cells have four bytes). The shorter string then has less
/// than 2^16 bytes, so a length fits 16 bits.
const MAX_CELLS: usize = MAX_STRING / 4;

#[derive(Default)]
struct LcsOptions {
    len: bool,
    idx: bool,
    with_match_len: bool,
    min_match_len: usize,
}

impl LcsOptions {
    fn parse(words: Args<'_>) -> Result<Self, CommandError> {
        let mut options = LcsOptions::default();
        let mut at = 0;
        while let Some(word) = words.get(at) {
            at += 1;
            match word {
                _ if is_word(word, "idx") => options.idx = true,
                _ if is_word(word, "len") => options.len = true,
                _ if is_word(word, "withmatchlen") => options.with_match_len = true,
                _ if is_word(word, "minmatchlen") && at < words.len() => {
                    options.min_match_len = integer(words.at(at))?.max(0) as usize;
                    at += 1;
                }
                _ => return Err(CommandError::SYNTAX),
            }
        }
        if options.idx && options.len {
            return Err(CommandError::text(
                "ERR If you want both the length and indexes, please just use IDX.",
            ));
        }
        Ok(options)
    }
}

fn lcs(keys: &Locked<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let string = |at| keys.string(args.at(at)).map(Option::unwrap_or_default);
    let (Ok(a), Ok(b)) = (string(1), string(2)) else {
        return Err(CommandError::text("ERR The specified keys must contain string values"));
    };
    let options = LcsOptions::parse(args.from(3))?;
    let table = Table::new(a, b)?;
    if options.len {
        reply.integer(table.len(a.len(), b.len()) as i64);
    } else if options.idx {
        write_matches(&table.matches(a, b), &table, &options, reply);
    } else {
        let matches = table.matches(a, b);
        let text: Vec<&[u8]> = matches.iter().rev().map(|found| &a[found.a..found.a + found.len]).collect();
        reply.bulk(&text.concat());
    }
    Ok(())
}

fn write_matches(matches: &[Match], table: &Table, options: &LcsOptions, reply: &mut Reply<'_>) {
    reply.map(2);
    reply.bulk(b"matches");
    let shown: Vec<&Match> = matches.iter().filter(|found| found.len >= options.min_match_len).collect();
    reply.array(shown.len());
    for found in shown {
        reply.array(2 + usize::from(options.with_match_len));
        for start in [found.a, found.b] {
            reply.array(2);
            reply.integer(start as i64);
            reply.integer((start + found.len - 1) as i64);
        }
        if options.with_match_len {
            reply.integer(found.len as i64);
        }
    }
    reply.bulk(b"len");
    reply.integer(table.whole() as i64);
}

/// `len` equal bytes, from `a` and `b` on in the two strings.
struct Match {
    a: usize,
    b: usize,
    len: usize,
}

/// The LCS length of each pair of prefixes, those of `b` in a row.
struct Table {
    cells: Vec<u16>,
    row: usize,
}

impl Table {
    fn new(a: &[u8], b: &[u8]) -> Result<Self, CommandError> {
        let row = b.len() + 1;
        let cells = row.checked_mul(a.len() + 1).filter(|cells| *cells <= MAX_CELLS);
        let cells = cells.ok_or(CommandError::text(
            "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
        ))?;
        let mut table = Table { cells: vec![0; cells], row };
        for (i, byte) in a.iter().enumerate() {
            let (above, below) = table.cells.split_at_mut((i + 1) * row);
            let above = &above[i * row..];
            for (j, other) in b.iter().enumerate() {
                below[j + 1] = if byte == other { above[j] + 1 } else { above[j + 1].max(below[j]) };
            }
        }
        Ok(table)
    }

    /// The length for the first `i` bytes of `a` and the first `j` of `b`.
    fn len(&self, i: usize, j: usize) -> u16 {
        self.cells[i * self.row + j]
    }

    fn whole(&self) -> u16 {
        self.cells.last().copied().unwrap_or(0)
    }

    /// The runs of equal bytes that make up the subsequence, from the last to the first.
    fn matches(&self, a: &[u8], b: &[u8]) -> Vec<Match> {
        let (mut i, mut j) = (a.len(), b.len());
        let mut matches: Vec<Match> = Vec::new();
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                (i, j) = (i - 1, j - 1);
                match matches.last_mut() {
                    Some(last) if last.a == i + 1 && last.b == j + 1 => {
                        (last.a, last.b, last.len) = (i, j, last.len + 1);
                    }
                    _ => matches.push(Match { a: i, b: j, len: 1 }),
                }
            } else if self.len(i - 1, j) > self.len(i, j - 1) {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        matches
    }
}
