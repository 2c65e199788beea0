//! Redirects: the errors by which a cluster says "not here" or "not now".
//!
//! The server writes them with `Display`, the near cache reads them with [`Redirect::parse`]: one type, so that the two
//! can't drift apart. When to give which isn't decided here.

use std::fmt;

use crate::slot::SLOTS;

/// Why a request wasn't served by the node it was sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redirect {
    /// The slot belongs to the node at `host:port`: ask there, now and from now on. An empty host is that of the node that
    /// answered.
    Moved {
        /// Below [`SLOTS`].
        slot: u16,
        /// An address or a name.
        host: String,
        /// Its port for clients.
        port: u16,
    },
    /// The slot is on its way to the node at `host:port`: ask there with ASKING, this once.
    Ask {
        /// Below [`SLOTS`].
        slot: u16,
        /// An address or a name.
        host: String,
        /// Its port for clients.
        port: u16,
    },
    /// The slot is on its way and the request's keys are on both sides: again a little later.
    TryAgain,
    /// The request's keys have different slots. To repeat it is of no use.
    CrossSlot,
    /// Nobody serves the slot at present.
    ClusterDown(ClusterDown),
}

/// What is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterDown {
    /// The slot's shard has no leader, or the cluster no quorum.
    Cluster,
    /// No shard owns the slot.
    SlotNotServed,
}

const TRY_AGAIN: &str = "TRYAGAIN Multiple keys request during rehashing of slot";
const CROSS_SLOT: &str = "CROSSSLOT Keys in request don't hash to the same slot";
const CLUSTER_DOWN: &str = "CLUSTERDOWN The cluster is down";
const SLOT_NOT_SERVED: &str = "CLUSTERDOWN Hash slot not served";

impl fmt::Display for Redirect {
    /// The error's text, as Redis has it, without the `-` before and the line end behind.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Redirect::Moved { slot, host, port } => write!(f, "MOVED {slot} {host}:{port}"),
            Redirect::Ask { slot, host, port } => write!(f, "ASK {slot} {host}:{port}"),
            Redirect::TryAgain => f.write_str(TRY_AGAIN),
            Redirect::CrossSlot => f.write_str(CROSS_SLOT),
            Redirect::ClusterDown(ClusterDown::Cluster) => f.write_str(CLUSTER_DOWN),
            Redirect::ClusterDown(ClusterDown::SlotNotServed) => f.write_str(SLOT_NOT_SERVED),
        }
    }
}

impl Redirect {
    /// The redirect an error's text (without the `-`) is, if it is one. Only the code counts where no more is said.
    pub fn parse(error: &str) -> Option<Redirect> {
        let (code, rest) = error.split_once(' ').unwrap_or((error, ""));
        match code {
            "MOVED" => parse_target(rest).map(|(slot, host, port)| Redirect::Moved { slot, host, port }),
            "ASK" => parse_target(rest).map(|(slot, host, port)| Redirect::Ask { slot, host, port }),
            "TRYAGAIN" => Some(Redirect::TryAgain),
            "CROSSSLOT" => Some(Redirect::CrossSlot),
            "CLUSTERDOWN" if error == SLOT_NOT_SERVED => {
                Some(Redirect::ClusterDown(ClusterDown::SlotNotServed))
            }
            "CLUSTERDOWN" => Some(Redirect::ClusterDown(ClusterDown::Cluster)),
            _ => None,
        }
    }
}

/// `slot host:port`. The host may hold colons (IPv6) or be empty.
fn parse_target(text: &str) -> Option<(u16, String, u16)> {
    let (slot, address) = text.split_once(' ')?;
    let (host, port) = address.rsplit_once(':')?;
    let slot = slot.parse().ok().filter(|&slot| usize::from(slot) < SLOTS)?;
    Some((slot, host.to_owned(), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_writes_the_client_reads() {
        for (text, redirect) in [
            (
                "MOVED 12706 127.0.0.1:17813",
                Redirect::Moved { slot: 12706, host: "127.0.0.1".into(), port: 17813 },
            ),
            ("MOVED 0 :7001", Redirect::Moved { slot: 0, host: String::new(), port: 7001 }),
            ("ASK 16383 ::1:7002", Redirect::Ask { slot: 16383, host: "::1".into(), port: 7002 }),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Redirect::TryAgain),
            ("CROSSSLOT Keys in request don't hash to the same slot", Redirect::CrossSlot),
            ("CLUSTERDOWN The cluster is down", Redirect::ClusterDown(ClusterDown::Cluster)),
            ("CLUSTERDOWN Hash slot not served", Redirect::ClusterDown(ClusterDown::SlotNotServed)),
        ] {
            assert_eq!(redirect.to_string(), text);
            assert_eq!(Redirect::parse(text), Some(redirect));
        }
    }

    #[test]
    fn what_is_no_redirect_is_not_taken_for_one() {
        for text in [
            "",
            "ERR no",
            "MOVED",
            "MOVED 1",
            "MOVED 16384 a:1",
            "MOVED -1 a:1",
            "MOVED 1 a",
            "ASK 1 a:65536",
        ] {
            assert_eq!(Redirect::parse(text), None, "{text}");
        }
        let other = "CLUSTERDOWN The cluster is down and only accepts read commands";
        assert_eq!(Redirect::parse(other), Some(Redirect::ClusterDown(ClusterDown::Cluster)));
    }
}
