//! What two nodes write to each other: a greeting, then frames.
//!
//! A frame is `length u32 | kind u8 | call id u64 | …`, big endian; `length` counts what follows it. Requests add
//! a service byte and a body, answers a status byte and a body; ping and pong add nothing. Decoding never panics
//! and never trusts a length beyond [`MAX_FRAME`].

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::bus::call::Lane;
use crate::id::{NODE_ID_LEN, NodeId};

/// Bytes in a frame's body, at most. A frame that claims more ends the connection.
pub const MAX_FRAME: usize = 80 << 20;

/// Changes whenever nodes of two versions would misunderstand each other.
const VERSION: u16 = 1;
const MAGIC: &[u8; 8] = b"slotcast";
const LENGTH: usize = 4;
const HEAD: usize = 1 + 8;

const REQUEST: u8 = 1;
const ANSWER: u8 = 2;
const PING: u8 = 3;
const PONG: u8 = 4;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A call.
    Request {
        /// Names the call on this connection.
        id: u64,
        /// Who shall answer.
        service: u8,
        /// What to answer.
        body: Bytes,
    },
    /// Its answer.
    Answer {
        /// The call's name.
        id: u64,
        /// False if no such service is there.
        served: bool,
        /// The answer.
        body: Bytes,
    },
    /// Are you there?
    Ping,
    /// Yes.
    Pong,
}

/// Why a peer's bytes are no frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Longer than [`MAX_FRAME`], or shorter than a frame can be.
    Length(usize),
    /// An unknown kind of frame.
    Kind(u8),
    /// Not a slotcast node, or one of another version.
    Greeting(String),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Length(length) => write!(f, "a frame of {length} bytes"),
            FrameError::Kind(kind) => write!(f, "a frame of unknown kind {kind}"),
            FrameError::Greeting(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for FrameError {}

impl Frame {
    /// The frame without its body, into `out`: the caller writes the body after it.
    pub fn put_head(&self, out: &mut BytesMut) {
        let body = self.body().len();
        let mut head = |extra: usize, kind: u8, id: u64| {
            out.put_u32((HEAD + extra + body) as u32);
            out.put_u8(kind);
            out.put_u64(id);
        };
        match *self {
            Frame::Request { id, service, .. } => {
                head(1, REQUEST, id);
                out.put_u8(service);
            }
            Frame::Answer { id, served, .. } => {
                head(1, ANSWER, id);
                out.put_u8(served as u8);
            }
            Frame::Ping => head(0, PING, 0),
            Frame::Pong => head(0, PONG, 0),
        }
    }

    /// Its body.
    pub fn body(&self) -> &[u8] {
        match self {
            Frame::Request { body, .. } | Frame::Answer { body, .. } => body,
            Frame::Ping | Frame::Pong => &[],
        }
    }

    /// The next frame in `input`; `None` if it isn't complete yet. Bodies share `input`'s memory.
    pub fn take(input: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(length) = input.first_chunk::<LENGTH>().map(|bytes| u32::from_be_bytes(*bytes) as usize)
        else {
            return Ok(None);
        };
        if !(HEAD..=MAX_FRAME + HEAD + 1).contains(&length) {
            return Err(FrameError::Length(length));
        }
        if input.len() < LENGTH + length {
            return Ok(None);
        }
        let mut frame = input.split_to(LENGTH + length).freeze();
        frame.advance(LENGTH);
        let (kind, id) = (frame.get_u8(), frame.get_u64());
        match kind {
            PING => Ok(Some(Frame::Ping)),
            PONG => Ok(Some(Frame::Pong)),
            REQUEST | ANSWER if frame.is_empty() => Err(FrameError::Length(length)),
            REQUEST => Ok(Some(Frame::Request { id, service: frame.get_u8(), body: frame })),
            ANSWER => Ok(Some(Frame::Answer { id, served: frame.get_u8() != 0, body: frame })),
            kind => Err(FrameError::Kind(kind)),
        }
    }

    /// How many more bytes the frame at the head of `input` needs, as far as can be told.
    pub fn missing(input: &[u8]) -> usize {
        match input.first_chunk::<LENGTH>() {
            Some(bytes) => (LENGTH + u32::from_be_bytes(*bytes) as usize).saturating_sub(input.len()),
            None => LENGTH - input.len(),
        }
    }
}

/// What the dialling node says first, and the other one answers (with its own id; the lane repeated).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// Who speaks.
    pub node: NodeId,
    /// What the connection is for.
    pub lane: Lane,
}

impl Greeting {
    /// Bytes on the wire.
    pub const LEN: usize = MAGIC.len() + 2 + NODE_ID_LEN + 1;

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Greeting::LEN);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(self.node.as_bytes());
        out.push(self.lane as u8);
        out
    }

    /// From bytes.
    pub fn decode(bytes: &[u8; Greeting::LEN]) -> Result<Greeting, FrameError> {
        let mut bytes = &bytes[..];
        let mut magic = [0; MAGIC.len()];
        bytes.copy_to_slice(&mut magic);
        if &magic != MAGIC {
            return Err(FrameError::Greeting("what answers there is no slotcast node bus".into()));
        }
        let version = bytes.get_u16();
        if version != VERSION {
            let why =
                format!("that node speaks bus version {version}, this one {VERSION}: upgrade the older");
            return Err(FrameError::Greeting(why));
        }
        let mut node = [0; NODE_ID_LEN];
        bytes.copy_to_slice(&mut node);
        let lane = match bytes.get_u8() {
            0 => Lane::Control,
            1 => Lane::Bulk,
            _ => Lane::Messages,
        };
        Ok(Greeting { node: NodeId::from_bytes(node), lane })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(frames: &[Frame]) -> BytesMut {
        let mut out = BytesMut::new();
        for frame in frames {
            frame.put_head(&mut out);
            out.extend_from_slice(frame.body());
        }
        out
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        let body = proptest::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
        prop_oneof![
            (any::<u64>(), any::<u8>(), body.clone()).prop_map(|(id, service, body)| Frame::Request {
                id,
                service,
                body
            }),
            (any::<u64>(), any::<bool>(), body).prop_map(|(id, served, body)| Frame::Answer {
                id,
                served,
                body
            }),
            Just(Frame::Ping),
            Just(Frame::Pong),
        ]
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_the_bytes_are_cut(
            frames in proptest::collection::vec(any_frame(), 0..8), step in 1usize..40,
        ) {
            let bytes = encoded(&frames);
            let (mut input, mut seen) = (BytesMut::new(), Vec::new());
            for piece in bytes.chunks(step) {
                input.extend_from_slice(piece);
                while let Some(frame) = Frame::take(&mut input).unwrap() {
                    seen.push(frame);
                }
            }
            prop_assert_eq!(seen, frames);
            prop_assert!(input.is_empty());
        }

        #[test]
        fn any_bytes_are_a_frame_an_error_or_incomplete(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut input = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = Frame::take(&mut input) {}
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_anything_is_kept_for_it() {
        let mut input = BytesMut::from(&u32::MAX.to_be_bytes()[..]);
        assert_eq!(Frame::take(&mut input), Err(FrameError::Length(u32::MAX as usize)));
    }

    #[test]
    fn a_greeting_names_node_and_lane_and_refuses_strangers() {
        let greeting = Greeting { node: NodeId::from_bytes([7; 20]), lane: Lane::Bulk };
        let mut bytes: [u8; Greeting::LEN] = greeting.encode().try_into().unwrap();
        assert_eq!(Greeting::decode(&bytes), Ok(greeting));
        bytes[9] = 99;
        assert!(Greeting::decode(&bytes).unwrap_err().to_string().contains("version 99"));
        bytes[0] = b'H';
        assert!(Greeting::decode(&bytes).is_err());
    }
}
