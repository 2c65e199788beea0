//! Pub/Sub between connections of one node.

use std::time::Instant;

use slotcast_wire::args::OwnedArgs;
use slotcast_wire::frame::Frame;

use crate::node::{Client, LIMIT, Node};

/// A connection in this protocol, subscribed by these commands of one name each.
fn subscriber(node: &Node, resp3: bool, commands: &[&str]) -> Client {
    let mut client = node.connect();
    if resp3 {
        client.ask("HELLO 3");
    }
    for command in commands {
        assert!(client.ask(command).contains("subscribe"), "{command}");
    }
    client
}

/// The strings of a message; whether it came as a push.
fn message(client: &mut Client) -> (bool, Vec<String>) {
    let (pushed, elements) = match client.next().expect("a message") {
        Frame::Push(elements) => (true, elements),
        Frame::Array(elements) => (false, elements),
        other => panic!("no message: {other}"),
    };
    (pushed, elements.iter().map(|element| element.to_string().trim_matches('"').to_owned()).collect())
}

#[test]
fn a_message_reaches_every_subscription_in_its_protocol() {
    let node = Node::start(&[]);
    let mut plain = subscriber(&node, false, &["SUBSCRIBE news", "PSUBSCRIBE n*"]);
    let mut modern = subscriber(&node, true, &["SUBSCRIBE news", "SSUBSCRIBE news"]);
    let mut publisher = node.connect();
    assert_eq!(publisher.ask("PUBLISH news hello"), "(integer) 3");
    assert_eq!(publisher.ask("PUBLISH other hello"), "(integer) 0");
    assert_eq!(publisher.ask("SPUBLISH news sharded"), "(integer) 1");
    let words = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
    assert_eq!(message(&mut plain), (false, words(&["message", "news", "hello"])));
    assert_eq!(message(&mut plain), (false, words(&["pmessage", "n*", "news", "hello"])));
    assert_eq!(message(&mut modern), (true, words(&["message", "news", "hello"])));
    assert_eq!(message(&mut modern), (true, words(&["smessage", "news", "sharded"])));
    assert_eq!(modern.ask("GET x"), "(nil)", "in RESP3 a subscriber may do anything");
    let stats = publisher.ask("INFO stats");
    assert!(stats.contains("pubsub_channels:1") && stats.contains("pubsub_patterns:1"), "{stats}");
    assert!(stats.contains("pubsubshard_channels:1"), "{stats}");
    drop((plain, modern));
    let since = Instant::now();
    while publisher.ask("PUBLISH news gone") != "(integer) 0" {
        assert!(since.elapsed() < LIMIT, "subscribers that have left are still counted");
    }
}

#[test]
fn a_resp2_subscriber_may_do_nothing_else_until_it_has_left() {
    let node = Node::start(&[]);
    let mut client = subscriber(&node, false, &["SUBSCRIBE a"]);
    for (command, name) in
        [("GET x", "get"), ("CLIENT LIST", "client|list"), ("MULTI", "multi"), ("PUBLISH a b", "publish")]
    {
        let refused = format!(
            "(error) ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
        );
        assert_eq!(client.ask(command), refused);
    }
    assert!(client.ask("PING").contains("pong"));
    client.ask("UNSUBSCRIBE");
    assert_eq!(client.ask("GET x"), "(nil)");
    client.ask("SSUBSCRIBE a");
    assert!(client.ask("GET x").contains("Can't execute"));
    assert_eq!(client.ask("RESET"), "RESET");
    assert_eq!(client.ask("PUBSUB SHARDCHANNELS"), "(empty array)");
    assert_eq!(client.ask("MULTI"), "OK");
    assert_eq!(client.ask("SUBSCRIBE a"), "QUEUED");
    assert_eq!(client.ask("PUBLISH a b"), "QUEUED");
    let ran = client.ask("EXEC");
    assert!(ran.contains("\"subscribe\"") && ran.contains("(integer) 1"), "{ran}");
    assert_eq!(message(&mut client).1, ["message", "a", "b"], "behind the reply of EXEC");
}

#[test]
fn no_message_comes_behind_the_confirmation_that_ends_it() {
    let node = Node::start(&["--io-threads", "4"]);
    let mut publisher = node.connect();
    std::thread::scope(|scope| {
        let node = &node;
        let publishing = scope.spawn(move || {
            let message: OwnedArgs = ["PUBLISH", "c", "m"].into_iter().collect();
            (0..20_000).for_each(|_| {
                publisher.send(message.encoded());
                publisher.next().expect("a reply");
            });
        });
        let mut client = node.connect();
        let mut messages = 0;
        while !publishing.is_finished() {
            client.ask("SUBSCRIBE c");
            client.send(b"UNSUBSCRIBE c\r\n");
            loop {
                let (_, words) = message(&mut client);
                assert_eq!(words[1], "c");
                match words[0].as_str() {
                    "message" => messages += 1,
                    "unsubscribe" => break,
                    other => panic!("{other}"),
                }
            }
            assert_eq!(client.ask("PING"), "PONG", "nothing is left of the subscription");
        }
        assert!(messages > 0, "nothing was tested");
    });
}

#[test]
fn a_thousand_subscribers_get_every_message_in_order() {
    const SUBSCRIBERS: usize = 1000;
    const MESSAGES: usize = 20;
    let node = Node::start(&[]);
    let mut subscribers: Vec<Client> =
        (0..SUBSCRIBERS).map(|n| subscriber(&node, n % 2 == 0, &["SUBSCRIBE c"])).collect();
    let mut publisher = node.connect();
    for n in 0..MESSAGES {
        assert_eq!(publisher.ask(&format!("PUBLISH c {n}")), format!("(integer) {SUBSCRIBERS}"));
    }
    for client in &mut subscribers {
        for n in 0..MESSAGES {
            assert_eq!(message(client).1, ["message", "c", &n.to_string()]);
        }
    }
}

#[test]
fn a_subscriber_that_does_not_read_is_closed_at_its_limit_and_costs_no_more() {
    let node = Node::start(&["--client-output-buffer-limit", "pubsub 4mb 0 0"]);
    let _silent = subscriber(&node, true, &["SUBSCRIBE c"]);
    let mut publisher = node.connect();
    let before = node.resident();
    let payload = vec![b'x'; 100 << 10];
    let publish: OwnedArgs = [&b"PUBLISH"[..], b"c", &payload].into_iter().collect();
    let since = Instant::now();
    let mut published = 0;
    loop {
        publisher.send(publish.encoded());
        published += 1;
        if publisher.next().expect("a reply").to_string() == "(integer) 0" {
            break;
        }
        assert!(since.elapsed() < LIMIT, "it is still there after {published} messages");
    }
    assert!(published > 30, "{published} messages are no 4 MB");
    let grown = node.resident().saturating_sub(before);
    assert!(grown < 48 << 20, "{grown} bytes for a limit of 4 MB");
    assert!(publisher.ask("INFO stats").contains("client_output_buffer_limit_disconnections:1"));
}

#[test]
fn a_subscriber_beyond_the_soft_limit_for_its_time_is_closed() {
    let node = Node::start(&["--client-output-buffer-limit", "pubsub 0 1mb 1"]);
    let _silent = subscriber(&node, true, &["SUBSCRIBE c"]);
    let mut publisher = node.connect();
    let payload = vec![b'x'; 1 << 20];
    let publish: OwnedArgs = [&b"PUBLISH"[..], b"c", &payload].into_iter().collect();
    for _ in 0..20 {
        publisher.send(publish.encoded());
        assert_eq!(publisher.next().expect("a reply").to_string(), "(integer) 1", "there is no hard limit");
    }
    let since = Instant::now();
    while publisher.ask("PUBLISH c m") != "(integer) 0" {
        assert!(since.elapsed() < LIMIT, "it is still there");
    }
}

#[test]
fn confirmations_are_no_replies_that_a_client_can_switch_off() {
    let node = Node::start(&[]);
    let mut client = subscriber(&node, true, &[]);
    client.send(
        b"CLIENT REPLY OFF\r\nSUBSCRIBE c\r\nPING\r\nPUBLISH c m\r\nUNSUBSCRIBE c\r\nCLIENT REPLY ON\r\n",
    );
    for expected in ["subscribe", "message", "unsubscribe"] {
        assert_eq!(message(&mut client).1[0], expected);
    }
    assert_eq!(client.next().expect("a reply").to_string(), "OK");
}

#[test]
fn idle_subscribers_stay_and_can_be_killed_by_type() {
    let node = Node::start(&["--timeout", "1"]);
    // The first request of all takes long where nothing is optimized: not the one that is timed.
    assert_eq!(node.connect().ask("PING"), "PONG");
    let mut waiting = subscriber(&node, false, &["SUBSCRIBE c"]);
    let mut idle = node.connect();
    assert_eq!(idle.ask("PING"), "PONG");
    assert_eq!(idle.next(), None, "an idle connection is closed");
    let mut other = node.connect();
    assert_eq!(other.ask("PUBLISH c m"), "(integer) 1");
    assert_eq!(message(&mut waiting).1, ["message", "c", "m"]);
    assert_eq!(other.ask("CLIENT KILL TYPE pubsub"), "(integer) 1");
    assert_eq!(waiting.next(), None);
}
