//! A cluster as an operator meets it: three real processes on a real disk.

mod disks;
mod failover;
mod invalidations;
mod near_cache;
mod near_cache_many;
mod near_cache_reads;
mod nodes;
mod notifications;
mod pubsub;
mod reads;
mod restart;
mod tracking;
