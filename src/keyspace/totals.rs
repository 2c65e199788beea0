//! Running totals of a keyspace: keys, bytes, keys with a deadline.
//!
//! Every write on every thread moves them, so a single counter would bounce one cache line between cores. Each
//! thread adds to a stripe of its own; a reader sums the stripes. A single stripe may be negative (one thread
//! inserts, another removes), the sum is not.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};

/// Stripes; threads beyond that share.
const STRIPES: usize = 8;

#[derive(Default)]
#[repr(align(128))]
struct Stripe {
    keys: AtomicI64,
    bytes: AtomicI64,
    volatile: AtomicI64,
}

/// Counters that threads move without waiting for one another.
#[derive(Default)]
pub struct Totals([Stripe; STRIPES]);

/// A sum of the stripes (or, to [`Totals::add`], a difference).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Keys.
    pub keys: i64,
    /// Bytes of records, values and tables, as asked of the allocator.
    pub bytes: i64,
    /// Keys with a deadline.
    pub volatile: i64,
}

impl Totals {
    /// Adds a difference.
    pub fn add(&self, by: Usage) {
        let stripe = &self.0[stripe_of_this_thread()];
        for (counter, by) in
            [(&stripe.keys, by.keys), (&stripe.bytes, by.bytes), (&stripe.volatile, by.volatile)]
        {
            if by != 0 {
                counter.fetch_add(by, Relaxed);
            }
        }
    }

    /// The sum over all threads.
    pub fn sum(&self) -> Usage {
        self.0.iter().fold(Usage::default(), |sum, stripe| Usage {
            keys: sum.keys + stripe.keys.load(Relaxed),
            bytes: sum.bytes + stripe.bytes.load(Relaxed),
            volatile: sum.volatile + stripe.volatile.load(Relaxed),
        })
    }
}

fn stripe_of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static STRIPE: usize = NEXT.fetch_add(1, Relaxed) % STRIPES);
    STRIPE.with(|stripe| *stripe)
}
