//! MULTI and WATCH over connections.

use crate::node::Node;

#[test]
fn a_transaction_fails_if_a_watched_key_changed_and_only_then() {
    let node = Node::start(&[]);
    let (mut one, mut other) = (node.connect(), node.connect());
    one.ask("SET k 1");
    assert_eq!(one.ask("WATCH k absent"), "OK");
    assert_eq!(one.ask("MULTI"), "OK");
    assert_eq!(one.ask("INCR k"), "QUEUED");
    other.ask("SET elsewhere 1");
    assert_eq!(one.ask("EXEC"), "1) (integer) 2");
    for change in ["SET k 9", "DEL k", "SET absent 1", "EXPIRE k 100"] {
        other.ask("SET k 1");
        other.ask("DEL absent");
        one.ask("WATCH k absent");
        other.ask(change);
        one.ask("MULTI");
        one.ask("PING");
        assert_eq!(one.ask("EXEC"), "(nil)", "after {change}");
    }
}

#[test]
fn increments_under_watch_by_many_connections_are_all_counted() {
    let node = Node::start(&[]);
    let rounds = 200;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = node.connect();
                let mut done = 0;
                while done < rounds {
                    client.ask("WATCH n");
                    let now: i64 = client.ask("GET n").trim_matches('"').parse().unwrap_or(0);
                    client.ask("MULTI");
                    client.ask(&format!("SET n {}", now + 1));
                    done += (client.ask("EXEC") != "(nil)") as i32;
                }
            });
        }
    });
    assert_eq!(node.connect().ask("GET n"), format!("\"{}\"", 4 * rounds));
}
