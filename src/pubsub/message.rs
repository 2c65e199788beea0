//! A message, as subscribers get it and as nodes hand it to each other.
//!
//! In RESP3 a message is a push, in RESP2 an array of the same elements: the two differ in their first byte. So a
//! message is written once, as a [`Push`], however many subscribers it has and whatever they speak.

use slotcast_wire::reply::{Proto, Reply};

use crate::codec::{Malformed, put_bytes, read_bytes, take};

/// What somebody published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// SPUBLISH: for the subscribers of a shard channel.
    pub sharded: bool,
    /// Where.
    pub channel: &'a [u8],
    /// What.
    pub payload: &'a [u8],
}

/// Bytes that every message takes between nodes, beside its channel and payload.
const OVERHEAD: usize = 1 + 4 + 4;

impl<'a> Message<'a> {
    /// Bytes between nodes.
    pub fn encoded_len(&self) -> usize {
        OVERHEAD + self.channel.len() + self.payload.len()
    }

    /// Appends it for another node.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.sharded));
        put_bytes(out, self.channel);
        put_bytes(out, self.payload);
    }

    /// The next message of those another node has put together.
    pub fn read(from: &mut &'a [u8]) -> Result<Message<'a>, Malformed> {
        let [sharded] = take(from)?;
        Ok(Message { sharded: sharded != 0, channel: read_bytes(from)?, payload: read_bytes(from)? })
    }

    /// `message` or `smessage`: for subscribers of the channel.
    pub fn push(&self) -> Push {
        Push::new(&[if self.sharded { b"smessage" } else { b"message" }, self.channel, self.payload])
    }

    /// `pmessage`: for subscribers of a pattern.
    pub fn push_by(&self, pattern: &[u8]) -> Push {
        Push::new(&[b"pmessage", pattern, self.channel, self.payload])
    }
}

/// A frame nobody asked for, in either protocol.
pub struct Push(Vec<u8>);

impl Push {
    fn new(elements: &[&[u8]]) -> Self {
        const HEADER: usize = 24;
        let len = elements.iter().map(|element| element.len() + HEADER).sum::<usize>();
        let mut bytes = Vec::with_capacity(HEADER + len);
        let mut reply = Reply::new(&mut bytes, Proto::Resp3);
        reply.push(elements.len());
        elements.iter().for_each(|element| reply.bulk(element));
        Push(bytes)
    }

    /// Appends it: `>3 …` in RESP3, `*3 …` in RESP2.
    pub fn write(&self, proto: Proto, out: &mut Vec<u8>) {
        let at = out.len();
        out.extend_from_slice(&self.0);
        if let (Proto::Resp2, Some(first)) = (proto, out.get_mut(at)) {
            *first = b'*';
        }
    }

    /// Bytes in either protocol.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_differs_between_protocols_in_its_first_byte() {
        let message = Message { sharded: false, channel: b"news", payload: b"hi" };
        let text = |push: Push, proto| {
            let mut out = b"+OK\r\n".to_vec();
            push.write(proto, &mut out);
            out.escape_ascii().to_string()
        };
        let rest = r"3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\nhi\r\n";
        assert_eq!(text(message.push(), Proto::Resp2), format!(r"+OK\r\n*{rest}"));
        assert_eq!(text(message.push(), Proto::Resp3), format!(r"+OK\r\n>{rest}"));
        let rest = r"4\r\n$8\r\npmessage\r\n$2\r\nn*\r\n$4\r\nnews\r\n$2\r\nhi\r\n";
        assert_eq!(text(message.push_by(b"n*"), Proto::Resp3), format!(r"+OK\r\n>{rest}"));
        let sharded = Message { sharded: true, ..message };
        assert!(text(sharded.push(), Proto::Resp3).contains("smessage"));
    }

    #[test]
    fn nodes_read_what_nodes_put_and_notice_a_cut() {
        let messages = [
            Message { sharded: false, channel: b"", payload: b"" },
            Message { sharded: true, channel: b"c", payload: b"\r\n\0" },
        ];
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| message.put(&mut bytes));
        assert_eq!(bytes.len(), messages.iter().map(Message::encoded_len).sum::<usize>());
        let mut from = &bytes[..];
        assert_eq!(messages.map(|_| Message::read(&mut from).unwrap()), messages);
        assert!(from.is_empty());
        for cut in 1..bytes.len() {
            let mut from = &bytes[..cut];
            let read = std::iter::from_fn(|| Message::read(&mut from).ok()).count();
            assert!(read < 2, "cut at {cut}");
        }
    }
}
