//! Who brings a shard's group to life, and when.
//!
//! A group is initialised with the members the cluster was formed with, and with nothing else: then it does no harm
//! if several of them do it, and the group comes to life although its home has died meanwhile. A member that came
//! later is none of them and never does.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::sleep;

use crate::id::MemberId;
use crate::raft::group::Group;
use crate::raft::state::{GroupError, Member};
use crate::topology::Shard;

/// The home goes first, so that it leads at once; the others only if it has not by then.
const HOME_FIRST: Duration = Duration::from_secs(1);

/// Initialises a group that `group`'s member is a founder of, unless others have.
pub async fn found(group: Group, shard: Shard) {
    if !shard.founders.contains_key(&group.member()) {
        return;
    }
    if shard.copies.get(&shard.home) != Some(&group.member()) {
        let mut state = group.state();
        let begun = state.wait_for(|state| !state.voters.is_empty());
        if tokio::time::timeout(HOME_FIRST, begun).await.is_ok() {
            return;
        }
    }
    let members: BTreeMap<MemberId, Member> = shard
        .founders
        .iter()
        .map(|(id, founder)| (*id, Member { node: founder.node, addr: founder.bus }))
        .collect();
    loop {
        match group.initialize(members.clone()).await {
            Ok(()) | Err(GroupError::Refused(_) | GroupError::Stopped(_)) => return,
            Err(error) => tracing::warn!("{}: the group cannot begin yet: {error}", group.id()),
        }
        sleep(HOME_FIRST).await;
    }
}
