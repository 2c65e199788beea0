//! How a node ends.

use std::process::Command;

use crate::node::Node;

#[test]
fn sigterm_ends_the_node_with_exit_code_zero() {
    let mut node = Node::start(&[]);
    let pid = node.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
    assert_eq!(node.child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn shutdown_ends_the_node_with_exit_code_zero() {
    let mut node = Node::start(&[]);
    let mut client = node.connect();
    client.send(b"SHUTDOWN NOSAVE\r\n");
    assert_eq!(node.child.wait().expect("it ends").code(), Some(0));
}
