//! What must hold for any bytes a client may send, and for any request. Shared by the property tests and the fuzz target.

use redis_protocol::resp2::decode::decode;
use redis_protocol::resp2::types::OwnedFrame;
use slotcast_wire::args::OwnedArgs;
use slotcast_wire::frame::{Frame, FrameDecoder};
use slotcast_wire::request::{Limits, Parsed, ProtocolError, Request, RequestParser};

/// Small, so that random bytes come upon them.
pub const LIMITS: Limits = Limits { max_bulk: 1500, max_args: 40, max_inline: 60, authenticated: true };

/// Bytes beyond which redis-protocol, which recurses, isn't asked about nested arrays.
const ORACLE_BYTES: usize = 4096;

/// What a connection makes of its bytes.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    requests: Vec<OwnedArgs>,
    consumed: usize,
    error: Option<ProtocolError>,
}

/// Parses as a connection does, the bytes coming in pieces of the lengths `cuts` names, again and again.
pub fn parse(bytes: &[u8], limits: &Limits, cuts: &[usize]) -> Outcome {
    let (mut parser, mut request) = (RequestParser::default(), Request::default());
    let mut outcome = Outcome { requests: Vec::new(), consumed: 0, error: None };
    let mut cuts = cuts.iter().cycle();
    let mut received = 0;
    while received < bytes.len() {
        received = (received + cuts.next().map_or(bytes.len(), |cut| cut + 1)).min(bytes.len());
        loop {
            let buf = &bytes[outcome.consumed..received];
            match parser.parse(buf, limits, &mut request) {
                Ok(Parsed::Incomplete) => break,
                Ok(Parsed::Blank(used)) => outcome.consumed += used,
                Ok(Parsed::Request(used)) => {
                    outcome.requests.push(request.args(buf).into());
                    outcome.consumed += used;
                    assert_eq!(
                        parse_whole(request.encoded(buf)),
                        vec![request.args(buf).into()],
                        "encoded form"
                    );
                }
                Err(error) => {
                    outcome.error = Some(error);
                    return outcome;
                }
            }
        }
    }
    outcome
}

/// The requests in `bytes`, which must be nothing else.
fn parse_whole(bytes: &[u8]) -> Vec<OwnedArgs> {
    let (mut parser, mut request) = (RequestParser::default(), Request::default());
    let mut requests = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let Ok(Parsed::Request(used)) = parser.parse(&bytes[at..], &Limits::TRUSTED, &mut request) else {
            panic!("no request at {at} of {}", bytes.escape_ascii());
        };
        requests.push(request.args(&bytes[at..]).into());
        at += used;
    }
    requests
}

/// For any bytes: no panic, the same however they are cut, the same as redis-protocol.
pub fn any_bytes(bytes: &[u8], cuts: &[usize]) {
    let whole = parse(bytes, &LIMITS, &[]);
    assert_eq!(whole, parse(bytes, &LIMITS, cuts), "in pieces");
    assert_eq!(whole, parse(bytes, &LIMITS, &[0]), "byte by byte");
    same_as_redis_protocol(bytes);
    frames(bytes, cuts);
}

/// Where redis-protocol sees a request in canonical form, we see the same one; and the other way round.
fn same_as_redis_protocol(bytes: &[u8]) {
    if bytes.first() != Some(&b'*') || bytes.len() > ORACLE_BYTES {
        return;
    }
    let theirs = decode(bytes).ok().flatten().and_then(|(frame, used)| Some((argv(frame)?, used)));
    let mut request = Request::default();
    let ours = match RequestParser::default().parse(bytes, &Limits::DEFAULT, &mut request) {
        Ok(Parsed::Request(used)) => Some((OwnedArgs::from(request.args(bytes)), used)),
        _ => None,
    };
    let canonical = |(args, used): &(OwnedArgs, usize)| args.encoded() == &bytes[..*used];
    if theirs.as_ref().is_some_and(canonical) || ours.as_ref().is_some_and(canonical) {
        assert_eq!(ours, theirs, "redis-protocol sees {}", bytes.escape_ascii());
    }
}

/// The arguments, if `frame` is an array of bulk strings with one element or more.
fn argv(frame: OwnedFrame) -> Option<OwnedArgs> {
    let OwnedFrame::Array(elements) = frame else { return None };
    if elements.is_empty() {
        return None;
    }
    let bulks = elements.into_iter().map(|element| match element {
        OwnedFrame::BulkString(bytes) => Some(bytes),
        _ => None,
    });
    Some(bulks.collect::<Option<Vec<_>>>()?.into_iter().collect())
}

/// For any bytes: the frames in them are the same however they are cut.
fn frames(bytes: &[u8], cuts: &[usize]) {
    let whole = decode_all(bytes, &[]);
    assert_eq!(whole, decode_all(bytes, cuts), "frames in pieces");
    assert_eq!(whole, decode_all(bytes, &[0]), "frames byte by byte");
}

/// The frames in `bytes`, displayed (a NaN is not equal to itself), and the error.
fn decode_all(bytes: &[u8], cuts: &[usize]) -> Vec<String> {
    let mut decoder = FrameDecoder::default();
    let mut seen = Vec::new();
    let mut cuts = cuts.iter().cycle();
    let (mut taken, mut received) = (0, 0);
    while received < bytes.len() {
        received = (received + cuts.next().map_or(bytes.len(), |cut| cut + 1)).min(bytes.len());
        loop {
            match decoder.decode(&bytes[taken..received]) {
                Ok((used, frame)) => {
                    taken += used;
                    let Some(frame) = frame else { break };
                    seen.push(format!("{frame:?} {frame}"));
                }
                Err(error) => {
                    seen.push(error.to_string());
                    return seen;
                }
            }
        }
    }
    seen
}

/// For any arguments: their encoding parses to the same, in any pieces; redis-protocol and our decoder read it as well.
pub fn any_args(requests: &[Vec<Vec<u8>>], cuts: &[usize]) {
    let requests: Vec<OwnedArgs> = requests.iter().map(|args| args.iter().collect()).collect();
    let bytes: Vec<u8> = requests.iter().flat_map(|args| args.encoded().to_vec()).collect();
    let parsed = parse(&bytes, &Limits::DEFAULT, cuts);
    assert_eq!(parsed, Outcome { requests: requests.clone(), consumed: bytes.len(), error: None });
    for args in &requests {
        let theirs = decode(args.encoded()).expect("canonical").expect("whole");
        assert_eq!((argv(theirs.0).as_ref(), theirs.1), (Some(args), args.encoded().len()));
        let frame = FrameDecoder::default().decode(args.encoded()).expect("canonical");
        let bulks = args.as_args().iter().map(|arg| Frame::Bulk(arg.to_vec())).collect();
        assert_eq!(frame, (args.encoded().len(), Some(Frame::Array(bulks))));
    }
}
