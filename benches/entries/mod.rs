//! Log entries of SETs, as they are applied: what several benches have in common.

use bytes::Bytes;
use slotcast::shard::proposal;
use slotcast_wire::args::OwnedArgs;

const VALUE: &str = "a value of sixty-four bytes, as the comparison with others has it";

/// An entry that sets these keys.
pub fn entry(keys: impl Iterator<Item = usize>) -> Bytes {
    let mut bytes = Vec::new();
    proposal::begin(1, 2, &mut bytes);
    for key in keys {
        let request: OwnedArgs =
            ["SET".to_owned(), format!("key:{key:012}"), VALUE.to_owned()].into_iter().collect();
        proposal::put_request(request.encoded(), &mut bytes);
    }
    bytes.into()
}
