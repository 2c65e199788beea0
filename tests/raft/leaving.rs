//! A member that stops in order: the others must be able to go on at once, and one that can lead must lead.

use slotcast::bus::memory::Network;
use slotcast::id::MemberId;
use slotcast::raft::proposal::Outcome;
use slotcast::raft::state::Timing;
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, PATIENCE, becomes, host_of, network, write};

/// A leader, a follower that is cut off from it and lacks an entry, and one that isn't and does not.
async fn with_a_lagging_copy(cluster: &Cluster, network: &Network) -> [MemberId; 3] {
    let leader = cluster.leader(&[11, 12, 13]).await;
    let mut others = [11, 12, 13].into_iter().filter(|id| *id != leader.member());
    let (lagging, other) = (others.next().unwrap(), others.next().unwrap());
    assert!(matches!(write(&leader, "before").await, Outcome::Applied { .. }));
    for (from, to) in [(leader.member(), lagging), (lagging, leader.member())] {
        network.cut(host_of(from), host_of(to));
    }
    assert!(matches!(write(&leader, "behind the cut").await, Outcome::Applied { .. }));
    [leader.member(), lagging, other]
}

#[tokio::test(start_paused = true)]
async fn nobody_may_go_while_another_copy_lacks_what_a_majority_needs() {
    let network = network(3);
    let cluster = Cluster::start_on(Some(&network), 1 << 20).await;
    let [leader, lagging, other] = with_a_lagging_copy(&cluster, &network).await;
    assert!(!cluster.group(other).is_spared().await, "leader and lagging copy would be no majority");
    assert!(!cluster.group(leader).is_spared().await, "nor would the two followers");
    assert!(cluster.group(other).has_others(|_| true), "it is worth waiting");
    network.mend();
    let begun = Instant::now();
    for member in [other, leader, lagging] {
        while !cluster.group(member).is_spared().await {
            assert!(begun.elapsed() < PATIENCE, "{member} may not go");
        }
    }
    cluster.group(other).shutdown().await;
    assert!(matches!(write(cluster.group(leader), "after").await, Outcome::Applied { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_leadership_goes_to_the_heir_that_has_the_log() {
    let network = network(4);
    let cluster = Cluster::start_on(Some(&network), 1 << 20).await;
    let [leader, lagging, other] = with_a_lagging_copy(&cluster, &network).await;
    let begun = Instant::now();
    let heir = cluster.group(leader).transfer_to_first_of(&[lagging, other]).await;
    assert_eq!(heir, Ok(other));
    let took = begun.elapsed();
    assert!(took < Timing::default().election_min, "no waiting for the other: {took:?}");
    becomes(cluster.group(lagging), "all to follow", |state| {
        state.leader.is_some_and(|(member, _)| member == other)
    })
    .await;
    sleep(Timing::default().election_max).await;
    assert!(matches!(write(cluster.group(other), "after").await, Outcome::Applied { .. }));
}
