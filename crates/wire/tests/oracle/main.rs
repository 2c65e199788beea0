//! Properties of the parsers and writers, with redis-protocol as the oracle: where both understand bytes, they must agree.

mod checks;
mod replies;

use proptest::collection::vec;
use proptest::prelude::*;

/// Bytes that look like requests: the protocol's own tokens, in any order.
fn request_like() -> impl Strategy<Value = Vec<u8>> {
    let tokens = prop_oneof![
        Just(b"\r\n".to_vec()),
        Just(b"*1\r\n$4\r\nPING\r\n".to_vec()),
        Just(b"$3\r\nabc\r\n".to_vec()),
        Just([b"$1234\r\n".as_slice(), &[b'v'; 1234], b"\r\n"].concat()),
        (-2i64..60).prop_map(|n| format!("*{n}\r\n").into_bytes()),
        (-2i64..2000).prop_map(|n| format!("${n}\r\n").into_bytes()),
        "[-+:,_#(!=~%>|*$][0-9tfx]{0,2}\r\n".prop_map(String::into_bytes),
        "[a-c '\"\\\\x]{0,9}\r?\n".prop_map(String::into_bytes),
        vec(any::<u8>(), 0..8),
        Just(vec![b'7'; 70]),
    ];
    vec(tokens, 0..12).prop_map(|tokens| tokens.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_parsed_alike_in_any_pieces(bytes in vec(any::<u8>(), 0..200), cuts in vec(0..9usize, 1..9)) {
        checks::any_bytes(&bytes, &cuts);
    }

    #[test]
    fn broken_requests_are_parsed_alike_in_any_pieces(bytes in request_like(), cuts in vec(0..9usize, 1..9)) {
        checks::any_bytes(&bytes, &cuts);
    }

    #[test]
    fn any_arguments_survive_the_wire(
        requests in vec(vec(vec(any::<u8>(), 0..40), 1..12), 1..4),
        cuts in vec(0..30usize, 1..9),
    ) {
        checks::any_args(&requests, &cuts);
    }
}
