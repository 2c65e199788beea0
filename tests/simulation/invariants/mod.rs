//! What must hold, a file each: some of it in every millisecond of a run, the rest once all is mended and at rest.

pub mod acknowledged;
pub mod caches;
pub mod expiry;
pub mod health;
pub mod leaders;
pub mod linearizable;
pub mod near;
pub mod replicas;
pub mod staleness;
pub mod votes;
