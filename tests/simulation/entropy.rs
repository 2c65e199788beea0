//! The operating system's entropy, out of the seed.
//!
//! tokio draws the order in which a `select!` looks at its branches and the order in which a watch channel wakes its
//! receivers, the standard library draws the keys of its hash maps; both ask the C library's `getrandom` for the
//! beginning. This module takes that symbol's place in the test's executable: on a thread that was [`seed`]ed it
//! answers with a sequence out of the seed, elsewhere with the system's own entropy.

use std::cell::Cell;
use std::fs::File;
use std::io::Read;

thread_local! {
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Makes all entropy of this thread a function of `seed`. To be called first of all on a new thread.
pub fn seed(seed: u64) {
    STATE.set(Some(seed));
}

/// splitmix64: the state's next value, and what it gives.
fn next(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (state, z ^ (z >> 31))
}

fn fill(bytes: &mut [u8]) -> bool {
    let Ok(Some(mut state)) = STATE.try_with(Cell::get) else {
        return File::open("/dev/urandom").and_then(|mut file| file.read_exact(bytes)).is_ok();
    };
    for chunk in bytes.chunks_mut(8) {
        let (after, value) = next(state);
        state = after;
        chunk.copy_from_slice(&value.to_le_bytes()[..chunk.len()]);
    }
    STATE.set(Some(state));
    true
}

/// Stands in for the C library's function (getrandom(2)): fills all of the buffer, or fails.
///
/// # Safety
/// `buffer` points to `length` writable bytes, as the C library's contract says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    if length == 0 {
        return 0;
    }
    // SAFETY: the caller's promise, above; the bytes are initialised here, before the slice exists.
    let bytes = unsafe {
        std::ptr::write_bytes(buffer, 0, length);
        std::slice::from_raw_parts_mut(buffer, length)
    };
    if fill(bytes) { length as isize } else { -1 }
}

#[test]
fn a_seeded_threads_hash_maps_have_the_seeds_keys() {
    use std::hash::{BuildHasher, RandomState};
    let keys = |number: u64| {
        let drawn = std::thread::spawn(move || {
            seed(number);
            RandomState::new().hash_one(0)
        });
        drawn.join().unwrap()
    };
    assert_eq!(keys(1), keys(1));
    assert_ne!(keys(1), keys(2));
    assert_ne!(RandomState::new().hash_one(0), keys(1), "an unseeded thread draws its own");
}
