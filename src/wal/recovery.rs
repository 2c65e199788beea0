//! Opens a log: reads what an earlier process left, decides whether to believe it, and begins the next segment.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::wal::Key;
use crate::wal::disk::Disk;
use crate::wal::log::{Flusher, Wal};
use crate::wal::scan::{Found, Scan};
use crate::wal::segment::{Header, name, number};
use crate::wal::trust::{Boot, End, Sync, trust};
use crate::wal::writer::{BALLAST, Sizes, UNFINISHED, Writer};

/// While this file is there, the log counts as gone: its removal was begun.
const GONE: &str = "gone";

/// How to open a log.
#[derive(Clone)]
pub struct WalOptions {
    /// Where it is.
    pub disk: Arc<dyn Disk>,
    /// When a record counts as kept.
    pub sync: Sync,
    /// The machine's present boot.
    pub boot: Option<Boot>,
    /// Names a log that is begun: random.
    pub draw: u64,
    /// How long its files are.
    pub sizes: Sizes,
}

/// What an earlier process left.
#[derive(Debug, Default)]
pub struct Past {
    /// The node's last note; `None`: it left none, or nothing to be believed.
    pub note: Option<Vec<u8>>,
    /// Members' logs and votes.
    pub members: BTreeMap<Key, Found>,
    /// Why a log that was there is of no use, and removed.
    pub distrusted: Option<String>,
    /// Why the end of the log may be missing: its members must not act until all others' logs were looked at, and then
    /// [`Wal::believe`] ends the doubt. A process that dies before leaves the log in doubt.
    pub doubted: Option<String>,
}

/// Opens the log, or begins one.
pub fn open(options: WalOptions) -> io::Result<(Wal, Flusher, Past)> {
    let disk = options.disk.clone();
    if disk.list()?.iter().any(|name| name == GONE) {
        remove(&*disk)?;
    }
    let mut numbers = numbers(&*disk)?;
    let (mut scan, distrusted) = match read(&*disk, &numbers, options.boot)? {
        Ok(scan) => (scan, None),
        Err(why) => {
            remove(&*disk)?;
            numbers.clear();
            (Scan::new(options.boot), Some(why))
        }
    };
    let doubted = scan.end.and_then(|end| trust(end, options.boot).err());
    let (boot, sync) = match scan.end.filter(|_| doubted.is_some()) {
        Some(End { boot, .. }) => (boot, Sync::Background),
        None => (options.boot, options.sync),
    };
    cut(&*disk, &mut scan, &mut numbers)?;
    let header = Header {
        number: numbers.last().map_or(1, |last| last + 1),
        wal: scan.wal.unwrap_or(options.draw),
        boot,
        sync,
    };
    let how = (header, options.sync, options.sizes);
    let writer = Writer::begin(disk.clone(), how, scan.ledger, &scan.members, scan.note.clone())?;
    let (wal, flusher) = Wal::new(disk, writer, options.boot, doubted.is_some());
    let doubted = doubted.map(str::to_owned);
    Ok((wal, flusher, Past { note: scan.note, members: scan.members, distrusted, doubted }))
}

/// Removes a log, if there is one; a crash on the way leaves none that is believed.
pub fn remove(disk: &dyn Disk) -> io::Result<()> {
    if disk.list()?.is_empty() {
        return Ok(());
    }
    disk.create(GONE)?.sync()?;
    disk.sync_names()?;
    let own = |name: &&String| number(name).is_some() || name.ends_with(UNFINISHED) || *name == BALLAST;
    for name in disk.list()?.iter().filter(own) {
        disk.remove(name)?;
    }
    disk.sync_names()?;
    disk.remove(GONE)
}

fn numbers(disk: &dyn Disk) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for name in disk.list()? {
        match number(&name) {
            Some(number) => numbers.push(number),
            None if name.ends_with(UNFINISHED) => disk.remove(&name)?,
            None => {}
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// `Err(why)`: it must not be believed.
fn read(disk: &dyn Disk, numbers: &[u64], boot: Option<Boot>) -> io::Result<Result<Scan, String>> {
    let mut scan = Scan::new(boot);
    for number in numbers {
        let bytes = disk.open(&name(*number))?.read()?;
        if let Err(corrupt) = scan.read(*number, &bytes) {
            return Ok(Err(corrupt.to_string()));
        }
    }
    match scan.end {
        None if !numbers.is_empty() => Ok(Err("its first segment is damaged".to_owned())),
        _ => Ok(Ok(scan)),
    }
}

/// Cuts a torn end off, and lets the disk have the rest: the next segment is written only after that.
fn cut(disk: &dyn Disk, scan: &mut Scan, numbers: &mut Vec<u64>) -> io::Result<()> {
    if let Some((segment, offset)) = scan.cut {
        tracing::info!(segment, offset, "the log ends in a torn record, which is cut off");
        let keep = if offset == 0 { segment } else { segment + 1 };
        for number in numbers.iter().rev().filter(|number| **number >= keep) {
            disk.remove(&name(*number))?;
        }
        numbers.retain(|number| *number < keep);
        if offset > 0 {
            disk.open(&name(segment))?.truncate(offset)?;
        }
    }
    let (segment, offset) = scan.synced;
    for number in numbers.iter().filter(|number| **number >= segment) {
        // Written again, not only synced: after a failed fsync the kernel takes for clean what is on no disk.
        let (file, from) = (disk.open(&name(*number))?, if *number == segment { offset as usize } else { 0 });
        if let Some(tail) = file.read()?.get(from..) {
            file.write_at(from as u64, tail)?;
        }
        file.sync()?;
    }
    disk.sync_names()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::id::GroupId;
    use crate::wal::flush::Condition;
    use crate::wal::record::{Kind, Record};
    use crate::wal::simulated::{Failure, SimulatedDisk};

    const A: Key = (GroupId(1), 11);
    const B: Key = (GroupId(2), 21);

    fn start(disk: &SimulatedDisk, sync: Sync, boot: u128) -> io::Result<(Wal, Flusher, Past)> {
        let boot = Some(Boot(boot));
        open(WalOptions { disk: Arc::new(disk.clone()), sync, boot, draw: 7, sizes: Sizes::default() })
    }

    fn append(index: u64, body: &[u8]) -> Record<'_> {
        Record { body: [&[], body], ..Record::new(Kind::Append, A, 1, index) }
    }

    fn vote(term: u64) -> Record<'static> {
        Record { body: [&[], &[0]], ..Record::new(Kind::Vote, A, term, 11) }
    }

    fn indexes(past: &Past, key: Key) -> Vec<u64> {
        past.members.get(&key).map_or(Vec::new(), |found| found.entries.iter().map(|e| e.index).collect())
    }

    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<(u64, bool)>>>);

    impl Heard {
        fn done(&self, what: u64) -> crate::wal::flush::Done {
            let heard = self.0.clone();
            Box::new(move |result| heard.lock().unwrap().push((what, result.is_ok())))
        }

        fn good(&self) -> Vec<u64> {
            self.0.lock().unwrap().iter().filter(|(_, good)| *good).map(|(what, _)| *what).collect()
        }
    }

    #[test]
    fn a_process_that_dies_finds_all_it_wrote_and_goes_on() {
        let disk = SimulatedDisk::default();
        for life in 0..3 {
            let (wal, _, past) = start(&disk, Sync::Background, 1).unwrap();
            assert_eq!(past.distrusted, None);
            assert_eq!(indexes(&past, A), (0..life * 2).collect::<Vec<_>>());
            assert_eq!(
                past.members.get(&A).and_then(|found| found.vote),
                (life > 0).then_some((life, 11, false))
            );
            if let Some(found) = past.members.get(&A) {
                let bodies: Vec<_> = found.entries.iter().map(|entry| wal.read(entry).unwrap()).collect();
                assert_eq!(bodies[0], &b"even"[..]);
            }
            let heard = Heard::default();
            wal.append([append(life * 2, b"even"), append(life * 2 + 1, b"odd")], heard.done(1));
            assert_eq!(heard.good(), [1], "the kernel has it");
            wal.append_durably([vote(life + 1)], heard.done(2));
            assert_eq!(heard.good(), [1], "the disk doesn't");
            disk.kill();
        }
    }

    #[test]
    fn a_machine_that_dies_takes_trust_away_unless_the_disk_was_waited_for_or_the_node_had_stopped() {
        for (sync, stop, trusted) in
            [(Sync::Background, false, false), (Sync::Background, true, true), (Sync::Always, false, true)]
        {
            let disk = SimulatedDisk::default();
            let (wal, flusher, _) = start(&disk, sync, 1).unwrap();
            let heard = Heard::default();
            wal.append([append(0, b"a")], heard.done(0));
            flusher.turn();
            assert_eq!(heard.good(), [0]);
            wal.append([append(1, b"b")], heard.done(1));
            if stop {
                wal.stop().unwrap();
            }
            disk.lose_power(&mut StdRng::seed_from_u64(3));
            let (_, _, past) = start(&disk, sync, 2).unwrap();
            assert_eq!(past.doubted.is_none(), trusted, "{sync:?}, stopped {stop}: {past:?}");
            assert!(indexes(&past, A).starts_with(&[0]), "it was synced");
            let (wal, flusher, again) = start(&disk, sync, 2).unwrap();
            assert_eq!(again.doubted.is_none(), trusted, "doubt outlasts a restart, until it is ended");
            wal.stop().unwrap();
            assert_eq!(start(&disk, sync, 2).unwrap().2.doubted.is_none(), trusted, "and an orderly stop");
            drop((wal, flusher));
            let (wal, flusher, _) = start(&disk, sync, 2).unwrap();
            wal.believe().unwrap();
            flusher.turn();
            let past = start(&disk, sync, 2).unwrap().2;
            assert_eq!((past.doubted.clone(), indexes(&past, A).first()), (None, Some(&0)));
        }
    }

    #[test]
    fn segments_follow_each_other_and_go_when_they_are_covered() {
        for sync in [Sync::Background, Sync::Always] {
            let disk = SimulatedDisk::default();
            let (wal, flusher, _) = start(&disk, sync, 1).unwrap();
            let body = vec![1; 100_000];
            let heard = Heard::default();
            wal.append([vote(4)], heard.done(0));
            wal.append([Record { key: B, ..append(0, b"cold") }], heard.done(0));
            for index in 0..200 {
                wal.append([append(index, &body)], heard.done(1));
                flusher.turn();
            }
            let segments =
                |disk: &SimulatedDisk| disk.list().unwrap().iter().filter(|n| number(n).is_some()).count();
            assert_eq!(segments(&disk), 3, "1, 4 and 16 MB");
            assert!(wal.behind(B) > 20_000_000);
            wal.release(A, 150);
            flusher.turn();
            assert_eq!(segments(&disk), 3);
            wal.release(B, 0);
            flusher.turn();
            assert_eq!(segments(&disk), 1);
            disk.kill();
            let (wal, _, past) = start(&disk, sync, 1).unwrap();
            let found = &past.members[&A];
            assert_eq!(
                (found.vote, found.entries.back().map(|last| last.index)),
                (Some((4, 11, false)), Some(199))
            );
            assert!(found.follows(Some(150)) && !found.follows(None));
            assert_eq!(wal.read(found.entries.back().unwrap()).unwrap(), body);
        }
    }

    #[test]
    fn a_full_disk_lets_everybody_wait_until_there_is_room() {
        let disk = SimulatedDisk::default();
        let (wal, flusher, _) = start(&disk, Sync::Background, 1).unwrap();
        let heard = Heard::default();
        wal.append([append(0, b"a")], heard.done(0));
        flusher.turn();
        disk.limit(Some(disk.used() + 10));
        wal.append([append(1, b"b")], heard.done(1));
        wal.append_durably([vote(2)], heard.done(2));
        flusher.turn();
        assert_eq!((heard.good(), wal.condition().borrow().clone()), (vec![0, 2], Condition::Full));
        disk.limit(None);
        flusher.turn();
        assert_eq!((heard.good(), wal.condition().borrow().clone()), (vec![0, 2, 1], Condition::Good));
        disk.kill();
        let past = start(&disk, Sync::Background, 1).unwrap().2;
        assert_eq!((indexes(&past, A), past.members[&A].vote), (vec![0, 1], Some((2, 11, false))));
    }

    #[test]
    fn after_a_failed_fsync_nothing_is_acknowledged_any_more() {
        let disk = SimulatedDisk::default();
        let (wal, flusher, _) = start(&disk, Sync::Always, 1).unwrap();
        flusher.turn();
        let heard = Heard::default();
        wal.append([append(0, b"a")], heard.done(0));
        let kind = io::ErrorKind::Other;
        disk.fail(Some(Failure { at: disk.operations() + 1, for_ever: false, kind, half: false }));
        flusher.turn();
        wal.append([append(1, b"b")], heard.done(1));
        flusher.turn();
        assert_eq!(*heard.0.lock().unwrap(), [(0, false), (1, false)]);
        assert!(matches!(&*wal.condition().borrow(), Condition::Failed(why) if why.contains("fdatasync")));
    }

    #[test]
    fn clearing_leaves_nothing_of_a_former_life() {
        let disk = SimulatedDisk::default();
        let (wal, flusher, _) = start(&disk, Sync::Background, 1).unwrap();
        wal.append([append(0, b"a"), vote(2)], Box::new(drop));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let flushed = async {
            tokio::task::yield_now().await;
            flusher.turn();
        };
        runtime.block_on(async { tokio::join!(wal.clear(), flushed).0 }).unwrap();
        wal.append([Record { key: B, ..append(0, b"new") }], Box::new(drop));
        disk.kill();
        let past = start(&disk, Sync::Background, 1).unwrap().2;
        assert_eq!((past.members.len(), indexes(&past, B)), (1, vec![0]));
    }

    #[test]
    fn a_bit_that_fell_in_the_middle_is_told_of() {
        let disk = SimulatedDisk::default();
        let (wal, ..) = start(&disk, Sync::Background, 1).unwrap();
        (0..5).for_each(|index| wal.append([append(index, b"some bytes")], Box::new(drop)));
        disk.kill();
        disk.damage(&name(1), 150);
        let past = start(&disk, Sync::Background, 1).unwrap().2;
        assert!(past.distrusted.is_some_and(|why| why.contains("good records follow")));
    }

    /// Writes until the disk fails it; what was acknowledged as (entries, votes).
    fn script(disk: &SimulatedDisk, sync: Sync) -> (u64, u64) {
        let heard = Heard::default();
        let votes = Heard::default();
        if let Ok((wal, flusher, past)) = start(disk, sync, 1) {
            let begin = indexes(&past, A).len() as u64;
            for index in begin..begin + 20 {
                let body = vec![index as u8; 60_000];
                wal.append([append(index, &body)], heard.done(index + 1));
                if index % 7 == 0 {
                    wal.append_durably([vote(index + 1)], votes.done(index + 1));
                }
                if index % 3 == 0 {
                    flusher.turn();
                }
            }
            flusher.turn();
        }
        let most = |heard: Heard| heard.good().into_iter().max().unwrap_or(0);
        (most(heard), most(votes))
    }

    #[test]
    fn whatever_operation_fails_or_is_the_last_nothing_acknowledged_is_missing() {
        for sync in [Sync::Background, Sync::Always] {
            let whole = SimulatedDisk::default();
            script(&whole, sync);
            for at in 1..=whole.operations() {
                for (kind, half, for_ever) in [
                    (io::ErrorKind::Other, true, true),
                    (io::ErrorKind::Other, false, false),
                    (io::ErrorKind::StorageFull, true, false),
                ] {
                    let disk = SimulatedDisk::default();
                    disk.fail(Some(Failure { at, for_ever, kind, half }));
                    let (entries, votes) = script(&disk, sync);
                    // A process that dies, or (if the disk was waited for) a machine.
                    match sync {
                        Sync::Background => disk.kill(),
                        Sync::Always => disk.lose_power(&mut StdRng::seed_from_u64(at)),
                    }
                    let (_, _, past) = start(&disk, sync, 1 + (sync == Sync::Always) as u128).unwrap();
                    let what = format!("{sync:?}, {kind:?} (half {half}) at operation {at}: {past:?}");
                    assert!(past.distrusted.is_none() && past.doubted.is_none() || entries == 0, "{what}");
                    let found = indexes(&past, A);
                    assert!(found.len() as u64 >= entries, "{entries} acknowledged; {what}");
                    assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>(), "{what}");
                    let vote = past.members.get(&A).and_then(|found| found.vote).map_or(0, |vote| vote.0);
                    assert!(vote >= votes, "vote {votes} acknowledged; {what}");
                }
            }
        }
    }
}
