//! Any bytes at all, to the request parser and the frame decoder: no panic, the same however they are cut, the same as
//! redis-protocol where it understands them.
//!
//! `cargo +nightly fuzz run request -- -dict=fuzz/resp.dict`

#![no_main]

#[path = "../../crates/wire/tests/oracle/checks.rs"]
mod checks;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u8>, &[u8])| {
    let (cuts, bytes) = input;
    let cuts: Vec<usize> = cuts.into_iter().map(usize::from).collect();
    checks::any_bytes(bytes, &cuts);
});
