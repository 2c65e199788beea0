//! The near cache in front of more nodes than a shard has copies: no node has all, so it listens to several.

use std::time::{Duration, Instant};

use slotcast_near_cache::cache::Stats;

use crate::near_cache::{CHANGED, Scene, play};
use crate::nodes::{Cluster, LIMIT};

const NODES: usize = 5;

/// Few nodes are listened to, and together they have all shards.
fn assert_covered(stats: &Stats) {
    assert_eq!(stats.shards, NODES as u64, "{stats:?}");
    assert!((2..=3).contains(&stats.streams), "no node has all, and two or three have: {stats:?}");
}

#[test]
fn all_shards_are_cached_and_stay_so_when_nodes_are_killed() {
    play(async {
        let mut scene = Scene::of(Cluster::of(NODES, "near-many", &[])).await;
        assert_covered(&scene.cache.stats());
        for dead in 0..NODES {
            let value = format!("after node {dead} has died");
            let before = scene.cache.stats();
            scene.cluster.kill(dead);
            let killed = Instant::now();
            scene.write(scene.some(), &value).await;
            scene.in_step().await;
            let in_step = killed.elapsed();
            let (again, after) = (scene.read_all().await, scene.cache.stats());
            println!("node {dead} killed: in step {in_step:?} later, {again} read again, 0 stale; {after:?}");
            assert_eq!(again, CHANGED, "only what has changed is read again: {before:?}\n{after:?}");
            assert_eq!(after.flushed, before.flushed, "nothing is thrown away");
            assert_eq!(after.invalidated_slots, before.invalidated_slots);
            assert_eq!(after.entries, scene.size.keys, "all is cached again");
            scene.cluster.run(dead);
            scene.cluster.serves();
        }
        assert!(scene.cache.stats().resumed >= 2, "some of them were listened to");
    });
}

/// The shards of a node that has died are followed elsewhere before anybody notices.
#[test]
fn a_node_that_dies_interrupts_nothing() {
    play(async {
        let mut scene = Scene::of(Cluster::of(NODES, "near-many-dies", &[])).await;
        let begun = Instant::now();
        for dead in 0..NODES {
            let before = scene.cache.stats();
            scene.cluster.kill(dead);
            // Reads go on all the while: all from here.
            let killed = Instant::now();
            while killed.elapsed() < Duration::from_millis(1500) {
                assert_eq!(scene.read_all().await, 0, "nothing has changed");
            }
            let after = scene.cache.stats();
            let bypassed = after.bypassed - before.bypassed;
            println!("node {dead} killed: {} hits, {bypassed} reads bypassed", after.hits - before.hits);
            assert_eq!(after.invalidated_slots, before.invalidated_slots);
            scene.cluster.run(dead);
            scene.cluster.serves();
            scene.in_step().await;
            assert!(begun.elapsed() < LIMIT);
        }
    });
}

/// A node that comes back empty has new copies, which remember nothing of the time before: what was with it goes on at
/// others, and it is listened to again.
#[test]
fn a_node_that_comes_back_empty_costs_nothing() {
    play(async {
        let cluster = Cluster::of(NODES, "near-many-anew", &["--durability", "memory"]);
        let mut scene = Scene::of(cluster).await;
        for dead in [0, 3, 1] {
            let before = scene.cache.stats();
            let leads = format!("shard-{}: this node leads now", dead + 1);
            let led = scene.cluster.log(dead).matches(&leads).count();
            scene.cluster.kill(dead);
            scene.write(scene.some(), &format!("without node {dead}")).await;
            scene.cluster.run(dead);
            let begun = Instant::now();
            while scene.cluster.log(dead).matches(&leads).count() == led {
                assert!(begun.elapsed() < LIMIT, "leadership does not come home");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            scene.cluster.serves();
            scene.in_step().await;
            let (again, after) = (scene.read_all().await, scene.cache.stats());
            println!("node {dead} is another: {again} read again; {after:?}");
            assert_eq!(again, CHANGED, "only what has changed is read again: {before:?}\n{after:?}");
            assert_eq!((after.flushed, after.invalidated_slots), (before.flushed, before.invalidated_slots));
            assert_eq!(after.shards, NODES as u64);
        }
    });
}
