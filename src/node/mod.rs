//! One node: starts all rooms, follows the topology, stops in order.

pub mod cluster;
