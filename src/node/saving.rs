//! Saves at clients' request (SAVE, BGSAVE): the copies of all shards here, one after another, so that no more than one
//! competes with the log for the disk.

use std::sync::Arc;

use tracing::{info, warn};

use crate::server::Server;

/// Saves whenever it is asked to, for ever.
pub async fn save_when_asked(server: Arc<Server>) {
    let saves = &server.context.saves;
    loop {
        saves.asked().await;
        let result = save(&server).await;
        match &result {
            Ok(()) => info!("this node's copies are saved to disk"),
            Err(why) => warn!("this node's copies are not all saved to disk: {why}"),
        }
        saves.end(result, server.context.clock.now());
    }
}

async fn save(server: &Server) -> Result<(), String> {
    for (id, shard) in server.shards.load_full().iter() {
        let Some(proposer) = shard.proposer() else { return Err(format!("{id} is only being opened")) };
        proposer.group().save_snapshot().await.map_err(|error| format!("{id}: {error}"))?;
    }
    Ok(())
}
