//! What the node finds of its former lives: opens the write-ahead log and decides whether the last one goes on.

use std::collections::BTreeMap;
use std::io;

use crate::bus::Bus;
use crate::meta::memory::Memory;
use crate::meta::standing::Site;
use crate::node::cluster::options::Durable;
use crate::raft::groups::Groups;
use crate::wal::recovery::open;

/// What an earlier process left.
pub enum Former {
    /// Nothing.
    Nothing,
    /// Things of a life that is over: they must be removed.
    Remains,
    /// A life to go on with.
    Life(Memory),
    /// The same, but the end of the log may be missing.
    Doubted(Memory),
}

/// The directory of groups, with the members of the life that goes on, if one does.
pub fn open_groups(site: &Site, bus: &Bus, durable: Option<&Durable>) -> io::Result<(Groups, Former)> {
    let Some(durable) = durable else { return Ok((Groups::new(bus.clone()), Former::Nothing)) };
    let (wal, flusher, past) = open(durable.wal.clone())?;
    match durable.wal.disk.blocks() {
        true => flusher.spawn_thread()?,
        false => drop(tokio::spawn(flusher.run())),
    }
    let mut unfit = past.distrusted;
    let (members, former) = match past.note.map(|note| Memory::recall(&note, &site.node(0))) {
        Some(Ok(memory)) if past.doubted.is_some() => {
            let why = past.doubted.unwrap_or_default();
            tracing::warn!(
                "this node waits for the others before it goes on in cluster {}: {why}",
                memory.cluster
            );
            let groups = Groups::durable(bus.clone(), wal, past.members, true);
            return Ok((groups, Former::Doubted(memory)));
        }
        Some(Ok(memory)) => {
            tracing::info!("this node goes on where it stopped, in cluster {}", memory.cluster);
            (past.members, Former::Life(memory))
        }
        Some(Err(why)) => {
            unfit = Some(why);
            (BTreeMap::new(), Former::Remains)
        }
        None if past.members.is_empty() => (BTreeMap::new(), Former::Nothing),
        None => (BTreeMap::new(), Former::Remains),
    };
    if let Some(why) = unfit {
        tracing::warn!("this node begins a new life, empty, and is brought up by the others: {why}");
    }
    Ok((Groups::durable(bus.clone(), wal, members, false), former))
}
