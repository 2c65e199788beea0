//! Input, good and bad.

use proptest::prelude::*;
use slotcast_wire::args::OwnedArgs;

use crate::node::Node;

/// The reply to bytes that are no request, and that the connection closes behind it.
fn refused(node: &Node, bytes: &[u8]) -> String {
    let mut client = node.connect();
    client.send(bytes);
    let reply = client.next().expect("a reply").to_string();
    assert_eq!(client.next(), None, "the connection closes after {reply}");
    reply
}

#[test]
fn protocol_errors_are_answered_as_redis_answers_them_and_close_the_connection() {
    let node = Node::start(&[]);
    let cases: [(&[u8], &str); 7] = [
        (b"*x\r\n", "ERR Protocol error: invalid multibulk length"),
        (b"*1048577\r\n", "ERR Protocol error: invalid multibulk length"),
        (b"*1\r\n:3\r\n", "ERR Protocol error: expected '$', got ':'"),
        (b"*1\r\n$-4\r\n", "ERR Protocol error: invalid bulk length"),
        (b"*1\r\n$536870913\r\n", "ERR Protocol error: invalid bulk length"),
        (b"SET a \"b\r\n", "ERR Protocol error: unbalanced quotes in request"),
        (&[b'a'; 70_000], "ERR Protocol error: too big inline request"),
    ];
    for (bytes, expected) in cases {
        let reply = refused(&node, bytes);
        assert!(reply.contains(expected), "{:?}: {reply}", bytes.escape_ascii().to_string());
    }
    assert!(node.connect().ask("PING").contains("PONG"), "other connections are not touched");
}

#[test]
fn before_authentication_requests_are_small() {
    let node = Node::start(&["--requirepass", "secret"]);
    assert!(refused(&node, b"*11\r\n").contains("unauthenticated multibulk length"));
    assert!(refused(&node, b"*1\r\n$16385\r\n").contains("unauthenticated bulk length"));
    let mut client = node.connect();
    assert!(client.ask("GET a").contains("NOAUTH Authentication required."));
    assert!(client.ask("AUTH wrong").contains("WRONGPASS"));
    assert!(client.ask("AUTH secret").contains("OK"));
    assert!(client.ask("SET a 1").contains("OK"));
}

#[test]
fn inline_commands_blank_lines_and_pipelines_mix() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    client.send(b"\r\nSET k 'a b'\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*0\r\nEXISTS k\nQUIT\r\nPING\r\n");
    let mut texts = Vec::new();
    while let Some(frame) = client.next() {
        texts.push(frame.to_string());
    }
    assert_eq!(texts, ["OK", "\"a b\"", "(integer) 1", "OK"], "and nothing behind QUIT");
}

#[test]
fn a_request_of_many_arguments_and_a_large_value_arrive_whole() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    let many: OwnedArgs =
        std::iter::once("MSET".to_owned()).chain((0..200_000).map(|n| format!("k{}", n / 2))).collect();
    client.send(many.encoded());
    assert_eq!(client.next().expect("a reply").to_string(), "OK");
    assert_eq!(client.ask("DBSIZE"), "(integer) 100000");
    let value = vec![b'x'; 8 << 20];
    let large: OwnedArgs = [&b"SET"[..], b"large", &value].into_iter().collect();
    client.send(large.encoded());
    assert_eq!(client.next().expect("a reply").to_string(), "OK");
    assert_eq!(client.ask("STRLEN large"), format!("(integer) {}", value.len()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn replies_do_not_depend_on_how_the_bytes_arrive(cuts in proptest::collection::vec(1usize..40, 1..60)) {
        let node = Node::start(&[]);
        let mut client = node.connect();
        let mut bytes = Vec::new();
        for n in 0..60 {
            bytes.extend(format!("*3\r\n$3\r\nSET\r\n$2\r\nk{}\r\n$2\r\n{n:02}\r\nGET k{}\r\n", n % 7, n % 7).into_bytes());
        }
        let mut rest = &bytes[..];
        for cut in cuts {
            let (head, tail) = rest.split_at(cut.min(rest.len()));
            client.send(head);
            rest = tail;
        }
        client.send(rest);
        for n in 0..60 {
            prop_assert_eq!(client.next().unwrap().to_string(), "OK");
            prop_assert_eq!(client.next().unwrap().to_string(), format!("\"{n:02}\""));
        }
    }

    #[test]
    fn no_bytes_break_the_node(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut node = Node::start(&[]);
        let mut client = node.connect();
        let _ = std::io::Write::write_all(&mut client.stream, &bytes);
        let _ = client.stream.shutdown(std::net::Shutdown::Write);
        let _ = std::io::Read::read_to_end(&mut client.stream, &mut Vec::new());
        prop_assert_eq!(node.connect().ask("PING"), "PONG");
        prop_assert!(node.child.try_wait().unwrap().is_none());
    }
}
