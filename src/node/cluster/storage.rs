//! What the node finds of its former lives: opens the write-ahead log and decides whether the last one goes on.

use std::io;

use crate::bus::Bus;
use crate::meta::memory::Memory;
use crate::meta::standing::Site;
use crate::node::cluster::options::Durable;
use crate::raft::groups::Groups;
use crate::wal::recovery::open;

/// The directory of groups, with what is left of their members; and the life to go on with, `None`: a new one begins,
/// and nothing of the log may be used.
pub fn open_groups(
    site: &Site,
    bus: &Bus,
    durable: Option<&Durable>,
) -> io::Result<(Groups, Option<Memory>)> {
    let Some(durable) = durable else { return Ok((Groups::new(bus.clone()), None)) };
    let (wal, flusher, past) = open(durable.wal.clone())?;
    match durable.threaded {
        true => flusher.spawn_thread()?,
        false => drop(tokio::spawn(flusher.run())),
    }
    if let Some(why) = past.distrusted {
        tracing::warn!("this node begins a new life, empty, and is brought up by the others: {why}");
        return Ok((Groups::durable(bus.clone(), wal, Default::default()), None));
    }
    let memory = past.note.map(|note| Memory::recall(&note, &site.node(0)));
    match memory {
        Some(Ok(memory)) => {
            let cluster = memory.cluster;
            tracing::info!("this node goes on where it stopped, in cluster {cluster}");
            Ok((Groups::durable(bus.clone(), wal, past.members), Some(memory)))
        }
        Some(Err(why)) => {
            tracing::warn!("this node begins a new life, empty, and is brought up by the others: {why}");
            Ok((Groups::durable(bus.clone(), wal, Default::default()), None))
        }
        None => Ok((Groups::durable(bus.clone(), wal, Default::default()), None)),
    }
}
