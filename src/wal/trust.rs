//! May a node that starts again believe its log? Pure: what was found, and where we are now.
//!
//! A process that dies loses nothing it has written: the kernel has it. A machine that dies loses what was not synced
//! yet, and with it entries this node has acknowledged. Such a log must never vote again under its member's id: it
//! could elect a leader that lacks what was committed.

use std::fs;

/// The machine's boot: another one means that the page cache is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot(pub u128);

impl Boot {
    /// The present one; `None` where the system does not tell.
    pub fn present() -> Option<Boot> {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
        u128::from_str_radix(&digits, 16).ok().filter(|boot| *boot != 0).map(Boot)
    }
}

/// When a record counts as kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Sync {
    /// When the kernel has it; the disk has it within a second.
    Background = 1,
    /// When the disk has it.
    Always = 2,
}

/// What the end of a log says about how it was written, and ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// During this boot of the machine.
    pub boot: Option<Boot>,
    /// In this way.
    pub sync: Sync,
    /// The node stopped in order, and wrote nothing after that.
    pub stopped: bool,
}

/// `Err`: something acknowledged may be missing; why, for the log.
pub fn trust(end: End, now: Option<Boot>) -> Result<(), &'static str> {
    match end {
        End { stopped: true, .. } | End { sync: Sync::Always, .. } => Ok(()),
        End { boot: Some(then), .. } if Some(then) == now => Ok(()),
        End { boot: Some(_), .. } if now.is_some() => Err(
            "the machine was started anew without the node having been stopped in order, and durability was \
                 quorum: the last second before may be missing",
        ),
        _ => Err(
            "the node was not stopped in order, durability was quorum, and the system does not tell whether \
                  the machine was started anew",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_dead_machine_takes_trust_away_and_only_if_the_disk_was_not_waited_for() {
        let (then, now) = (Some(Boot(1)), Some(Boot(2)));
        let table = [
            // written, now, synced, stopped in order, trusted
            (now, now, Sync::Background, false, true),
            (now, now, Sync::Background, true, true),
            (now, now, Sync::Always, false, true),
            (then, now, Sync::Background, false, false),
            (then, now, Sync::Background, true, true),
            (then, now, Sync::Always, false, true),
            (None, now, Sync::Background, false, false),
            (now, None, Sync::Background, false, false),
            (None, None, Sync::Background, false, false),
            (None, None, Sync::Background, true, true),
            (None, None, Sync::Always, false, true),
        ];
        for row @ (boot, now, sync, stopped, trusted) in table {
            assert_eq!(trust(End { boot, sync, stopped }, now).is_ok(), trusted, "{row:?}");
        }
    }

    #[test]
    fn the_present_boot_stays_the_same() {
        assert_eq!(Boot::present(), Boot::present());
    }
}
