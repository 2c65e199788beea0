//! A near cache: values that an application has read from a slotcast cluster, kept in its own process.
//!
//! A hit costs no network. What keeps it right is one stream of invalidations from any node of the cluster, which has a
//! *position* in each shard's history: after a lost connection, a failover or a restart of the node it resumes there, and
//! only what has changed meanwhile is dropped. Every value carries the position it was read at, so a value that arrives
//! behind its own invalidation is recognised, whichever connection was faster.
//!
//! **What is promised.** While the stream is well, an entry disappears within a round trip of the write that overtakes
//! it. When the stream is cut, entries are served for at most [`Options::max_staleness`] more, counted from when a quorum
//! of the shard last vouched for the stream; then reads go to the cluster and the entries wait until the stream has caught
//! up. A client reads its own writes. This is bounded staleness, not linearizability.
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
//! rules), [`told`] takes in what the stream says; `connection`, `cluster` and `stream` are the network; [`cache`] puts them together.
//!
//! [`Options::max_staleness`]: options::Options::max_staleness

pub mod cache;
mod cluster;
mod connection;
mod cover;
pub mod error;
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
