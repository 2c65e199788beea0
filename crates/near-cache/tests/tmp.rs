#[path = "../../../tests/cluster/near_cache.rs"]
mod near_cache;
#[allow(dead_code)]
#[path = "../../../tests/cluster/nodes.rs"]
mod nodes;
