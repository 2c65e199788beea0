//! Killed, stopped, damaged and started again, one and all: what was acknowledged is there.

use std::time::{Duration, Instant};

use crate::nodes::{Cluster, LIMIT, NODES, ask};

#[test]
fn all_killed_at_once_and_one_after_another_come_back_as_the_members_they_were() {
    let mut cluster = Cluster::start("kill", &[]);
    cluster.write(0..100);
    (0..NODES).for_each(|n| cluster.kill(n));
    (0..NODES).for_each(|n| cluster.run(n));
    cluster.serves();
    cluster.has(0..100);
    for n in 0..NODES {
        cluster.kill(n);
        cluster.write(100 + n * 50..150 + n * 50);
        cluster.run(n);
        cluster.serves();
        cluster.has(0..150 + n * 50);
    }
    for n in 0..NODES {
        let log = cluster.log(n);
        assert_eq!(log.matches("goes on where it stopped").count(), 2, "{log}");
        assert!(!log.contains("joins the cluster") && !log.contains("new life"), "{log}");
    }
}

#[test]
fn all_stopped_in_order_come_back() {
    let mut cluster = Cluster::start("stop", &["--durability", "quorum-fsync"]);
    cluster.write(0..50);
    for _ in 0..2 {
        (0..NODES).for_each(|n| cluster.stop(n));
        (0..NODES).for_each(|n| cluster.run(n));
        cluster.serves();
        cluster.has(0..50);
    }
}

#[test]
fn a_save_leaves_a_file_of_every_copy_and_a_restart_begins_with_it() {
    let mut cluster = Cluster::start("save", &[]);
    cluster.write(0..50);
    let last_save = |cluster: &Cluster| ask(cluster.ports[0], &["LASTSAVE"]).unwrap();
    let before = last_save(&cluster);
    let begun = Instant::now();
    // LASTSAVE counts seconds.
    while last_save(&cluster) == before {
        assert_eq!(ask(cluster.ports[0], &["SAVE"]).unwrap(), "+OK");
        assert_eq!(cluster.kept(0, ".snap"), 3);
        assert!(begun.elapsed() < LIMIT, "LASTSAVE stands still");
    }
    assert!(ask(cluster.ports[0], &["BGSAVE"]).unwrap().starts_with("+Background saving started"));
    let persistence = || ask(cluster.ports[0], &["INFO", "persistence"]).unwrap();
    while persistence().contains("rdb_bgsave_in_progress:1") {
        assert!(begun.elapsed() < LIMIT, "it does not end");
    }
    assert!(persistence().contains("rdb_last_bgsave_status:ok"));
    cluster.write(50..60);
    (0..NODES).for_each(|n| cluster.kill(n));
    (0..NODES).for_each(|n| cluster.run(n));
    cluster.serves();
    cluster.has(0..60);
}

#[test]
fn with_memory_nothing_is_on_the_disk_and_a_node_comes_back_anew() {
    let mut cluster = Cluster::start("memory", &["--durability", "memory"]);
    cluster.write(0..50);
    cluster.kill(1);
    cluster.run(1);
    cluster.serves();
    cluster.has(0..50);
    let refused = ask(cluster.ports[0], &["BGSAVE"]).unwrap();
    assert!(refused.starts_with("-ERR Nothing to save: durability is memory"), "{refused}");
    assert!((0..NODES).all(|n| cluster.kept(n, ".wal") + cluster.kept(n, ".snap") == 0));
    assert!(cluster.log(1).contains("durability memory") && cluster.log(1).contains("is let into cluster"));
}

#[test]
fn a_node_whose_log_is_damaged_or_gone_is_brought_up_by_the_others() {
    let mut cluster = Cluster::start("damage", &[]);
    cluster.write(0..50);
    for damage in [true, false] {
        cluster.kill(2);
        let folder = cluster.dir.join("2/wal");
        for file in std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()) {
            let mut bytes = std::fs::read(&file).unwrap();
            bytes[60] ^= 1;
            if damage { std::fs::write(&file, bytes).unwrap() } else { std::fs::remove_file(&file).unwrap() }
        }
        cluster.run(2);
        cluster.serves();
    }
    assert!(cluster.log(2).contains("begins a new life, empty"), "{}", cluster.log(2));
    // What it was brought up with is all it can show.
    let begun = Instant::now();
    while cluster.log(2).matches("shard-3: this node leads now").count() < 2 {
        assert!(begun.elapsed() < LIMIT, "leadership does not come home");
        std::thread::sleep(Duration::from_millis(50));
    }
    cluster.has(0..50);
}
