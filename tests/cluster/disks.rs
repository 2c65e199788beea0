//! Whose a directory is, and what is on which disk.

use std::process::Command;

use crate::nodes::{Cluster, Connection, NODES, ask, ports};

#[test]
fn waitaof_counts_the_disks_that_have_the_last_write() {
    let mut cluster = Cluster::start("waitaof", &[]);
    let writes =
        |n: &usize| ask(cluster.ports[*n], &["SET", "key", "value"]).is_ok_and(|reply| reply == "+OK");
    let leader = (0..NODES).find(writes).unwrap();
    let mut client = Connection::open(cluster.ports[leader]);
    assert_eq!(client.ask("SET key other"), "+OK");
    assert_eq!([client.ask("WAITAOF 1 2 20000"), client.line(), client.line()], ["*2", ":1", ":2"]);
    cluster.kill((leader + 1) % NODES);
    assert_eq!(client.ask("SET key another"), "+OK");
    assert_eq!([client.ask("WAITAOF 1 2 2000"), client.line(), client.line()], ["*2", ":1", ":1"]);
    let mut client = Connection::open(cluster.ports[leader]);
    assert_eq!(client.ask("SET key third"), "+OK");
    assert_eq!([client.ask("WAITAOF 1 1 20000"), client.line(), client.line()], ["*2", ":1", ":1"]);
}

#[test]
fn waitaof_waits_for_no_disk_where_there_is_none() {
    let cluster = Cluster::start("waitaof-memory", &["--durability", "memory"]);
    let refused = "-ERR WAITAOF cannot be used when numlocal is set but durability is memory.";
    assert_eq!(ask(cluster.ports[0], &["WAITAOF", "1", "0", "0"]).unwrap(), refused);
}

#[test]
fn a_directory_in_use_is_refused_to_a_second_process() {
    let cluster = Cluster::start("lock", &[]);
    let second = Command::new(env!("CARGO_BIN_EXE_slotcast"))
        .args(["--port", &ports(1)[0].to_string()])
        .args(["--dir", &cluster.dir.join("0").to_string_lossy(), "--cluster-enabled", "yes"])
        .args(["--cluster-seeds", &format!("127.0.0.1:{}", cluster.ports[0])])
        .output()
        .unwrap();
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stdout) + String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("another process uses this directory"), "{said}");
    assert_eq!(cluster.ask(&["SET", "key", "value"]), "+OK");
}
