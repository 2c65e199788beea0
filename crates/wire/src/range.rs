//! One entry of the reply to CLUSTER SLOTS, as a client reads it.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use crate::frame::Frame;
use crate::slot::SLOTS;

/// The slots and the master's address out of `[first, last, [ip, port, ...], ...]` (cluster spec); an empty ip means
/// the one that was `asked`. `None`: it is no such entry, or its master has a name instead of an address.
pub fn slot_range(entry: &Frame, asked: SocketAddr) -> Option<(RangeInclusive<u16>, SocketAddr)> {
    let Frame::Array(parts) = entry else { return None };
    let [Frame::Integer(first), Frame::Integer(last), Frame::Array(master), ..] = parts.as_slice() else {
        return None;
    };
    let [ip, Frame::Integer(port), ..] = master.as_slice() else { return None };
    let ip = std::str::from_utf8(ip.as_bytes()?).ok()?;
    let ip = if ip.is_empty() { asked.ip() } else { ip.parse().ok()? };
    let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
    let fits = first <= last && usize::from(last) < SLOTS;
    fits.then_some((first..=last, SocketAddr::new(ip, u16::try_from(*port).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FrameDecoder;

    fn read(reply: &str) -> Option<(RangeInclusive<u16>, SocketAddr)> {
        let (_, frame) = FrameDecoder::default().decode(reply.as_bytes()).unwrap();
        slot_range(&frame.unwrap(), ([127, 0, 0, 9], 1).into())
    }

    #[test]
    fn an_entry_is_read_and_nonsense_is_refused() {
        let entry = |last: &str, ip: &str| {
            format!("*3\r\n:0\r\n:{last}\r\n*3\r\n${}\r\n{ip}\r\n:7001\r\n$1\r\nx\r\n", ip.len())
        };
        assert_eq!(read(&entry("5", "10.0.0.1")), Some((0..=5, ([10, 0, 0, 1], 7001).into())));
        assert_eq!(read(&entry("16383", "")), Some((0..=16383, ([127, 0, 0, 9], 7001).into())));
        for nonsense in [entry("16384", ""), entry("-1", ""), entry("5", "no address"), "*0\r\n".to_owned()] {
            assert_eq!(read(&nonsense), None, "{nonsense:?}");
        }
    }
}
