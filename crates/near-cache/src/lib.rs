//! A near cache: values that an application has read from a slotcast cluster, kept in its own process.
//!
//! A hit costs no network. What keeps it right are streams of invalidations from a few nodes that together have all
//! shards. A stream has a *position* in each shard's history: after a lost connection, a failover or a restart of the node
//! the shard is followed from there, at whichever node has it, and only what has changed meanwhile is dropped. Every value
//! carries the position it was read at, so a value that arrives behind its own invalidation is recognised, whichever
//! connection was faster.
//!
//! **What is promised.** While the streams are well, an entry disappears within a round trip of the write that overtakes
//! it. When they are cut, entries are served for at most [`Options::max_staleness`] more, counted from when a quorum
//! of the shard last vouched for its stream; then reads go to the cluster and the entries wait until the stream has caught
//! up. A client reads its own writes, also when it waits for a fetch that another of its tasks began. A key's values are
//! never seen to go back. This is bounded staleness, not linearizability.
//!
//! ```no_run
//! # async fn example() -> Result<(), slotcast_near_cache::error::Error> {
//! use slotcast_near_cache::cache::NearCache;
//! use slotcast_near_cache::options::Options;
//!
//! let cache = NearCache::connect(Options::new(["127.0.0.1:7001", "127.0.0.1:7002"])).await?;
//! cache.set("product:42", "a chair", None).await?;
//! assert_eq!(cache.get("product:42").await?.as_deref(), Some(&b"a chair"[..])); // from this process
//! println!("{:?}", cache.stats());
//! cache.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! The rooms, from the bottom: [`l1`] decides, without I/O and without a clock, what may be served and kept (the four
//! rules), [`told`] takes in what a stream says, [`follow`] decides, likewise, which shard is followed at which node (with
//! `cover` and `pause`); `connection`, `cluster`, `stream` and `follower` are the network; `flights` lets those who want the
//! same share a fetch, `fetching` reads what isn't here; [`cache`] puts them together.
//!
//! [`Options::max_staleness`]: options::Options::max_staleness

pub mod cache;
mod cluster;
mod connection;
mod cover;
pub mod error;
mod fetching;
mod flights;
pub mod follow;
mod follower;
pub mod l1;
#[cfg(test)]
mod model;
#[cfg(test)]
mod network;
pub mod options;
mod pause;
mod stream;
mod stripe;
pub mod told;
#[cfg(test)]
mod world;
