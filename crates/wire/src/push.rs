//! Frames of client-side caching that nobody asked for: "drop these keys".
//!
//! On a RESP3 connection they are pushes. A RESP2 client names another connection of its own (`CLIENT TRACKING ...
//! REDIRECT`), subscribed to [`CHANNEL`], and gets them there as pub/sub messages. Who is to be told isn't known here.
//!
//! Some clients read only the first key of a push, so the default tracking mode sends one key a push.

use crate::reply::{Proto, Reply};

/// The pub/sub channel of invalidations on RESP2.
pub const CHANNEL: &str = "__redis__:invalidate";

/// Appends the RESP3 push "drop `keys`": `>2 invalidate [key, ...]`.
pub fn invalidate_keys<K: AsRef<[u8]>>(out: &mut Vec<u8>, keys: &[K]) {
    let mut push = invalidate(out);
    write_keys(&mut push, keys);
}

/// Appends the RESP3 push "drop everything": `>2 invalidate null`.
pub fn invalidate_all(out: &mut Vec<u8>) {
    invalidate(out).null();
}

/// Appends the RESP2 message "drop `keys`" on [`CHANNEL`].
pub fn message_keys<K: AsRef<[u8]>>(out: &mut Vec<u8>, keys: &[K]) {
    let mut message = message(out);
    write_keys(&mut message, keys);
}

/// Appends the RESP2 message "drop everything" on [`CHANNEL`]: its payload is the null bulk string.
pub fn message_all(out: &mut Vec<u8>) {
    message(out).null();
}

/// Appends the RESP3 push that tells a client that the connection its invalidations were redirected to is gone.
pub fn redirect_broken(out: &mut Vec<u8>, client_id: i64) {
    let mut push = Reply::new(out, Proto::Resp3);
    push.push(2);
    push.bulk(b"tracking-redir-broken");
    push.integer(client_id);
}

fn invalidate(out: &mut Vec<u8>) -> Reply<'_> {
    let mut push = Reply::new(out, Proto::Resp3);
    push.push(2);
    push.bulk(b"invalidate");
    push
}

fn message(out: &mut Vec<u8>) -> Reply<'_> {
    let mut message = Reply::new(out, Proto::Resp2);
    message.push(3);
    message.bulk(b"message");
    message.bulk(CHANNEL.as_bytes());
    message
}

fn write_keys<K: AsRef<[u8]>>(reply: &mut Reply<'_>, keys: &[K]) {
    reply.array(keys.len());
    for key in keys {
        reply.bulk(key.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        out.escape_ascii().to_string()
    }

    #[test]
    fn a_push_names_its_keys_or_none_for_all() {
        assert_eq!(
            written(|out| invalidate_keys(out, &["a", "bc"])),
            r">2\r\n$10\r\ninvalidate\r\n*2\r\n$1\r\na\r\n$2\r\nbc\r\n"
        );
        assert_eq!(written(invalidate_all), r">2\r\n$10\r\ninvalidate\r\n_\r\n");
        assert_eq!(written(|out| redirect_broken(out, 42)), r">2\r\n$21\r\ntracking-redir-broken\r\n:42\r\n");
    }

    #[test]
    fn resp2_has_them_as_messages() {
        assert_eq!(
            written(|out| message_keys(out, &[b"a"])),
            r"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n*1\r\n$1\r\na\r\n"
        );
        assert_eq!(written(message_all), r"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n$-1\r\n");
    }
}
