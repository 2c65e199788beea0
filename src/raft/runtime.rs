//! The runtime openraft runs on: tokio, with two differences.
//!
//! It can be made to do the same again, for simulations: randomness can be seeded ([`seed`]) and watch channels wake
//! in order. And a sleep far below tokio's
//! millisecond yields once instead of waiting for the next tick of the timer: openraft's completion forwarder
//! sleeps one microsecond to gather completions, which on the timer is a thousand.

use std::cell::Cell;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::Either;
use openraft::async_runtime::AsyncRuntime;
use openraft::{OptionalSend, TokioRuntime};
use rand_for_openraft::SeedableRng;
use rand_for_openraft::rngs::SmallRng;

use crate::raft::watch::OrderedWatch;

/// Sleeps shorter than this only yield.
const YIELD_BELOW: Duration = Duration::from_micros(100);

thread_local! {
    /// The next seed on this thread; random to begin with.
    static SEED: Cell<u64> = Cell::new(RandomState::new().hash_one(0));
}

/// See [`crate::raft::groups::seed_elections`].
pub fn seed(seed: u64) {
    SEED.set(seed);
}

/// See the module.
#[derive(Debug)]
pub struct Runtime(TokioRuntime);

impl AsyncRuntime for Runtime {
    type JoinError = tokio::task::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = tokio::task::JoinHandle<T>;
    type Sleep = Either<tokio::time::Sleep, Yield>;
    type Instant = openraft::TokioInstant;
    type TimeoutError = tokio::time::error::Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = tokio::time::Timeout<T>;
    type ThreadLocalRng = SmallRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = OrderedWatch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        tokio::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        match duration < YIELD_BELOW {
            true => Either::Right(Yield(false)),
            false => Either::Left(tokio::time::sleep(duration)),
        }
    }

    /// Never early: whoever wakes before its deadline would only come back, again and again, until it is there.
    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        let now = <Self::Instant as openraft::Instant>::now();
        match deadline <= now {
            true => Either::Right(Yield(false)),
            false => Either::Left(tokio::time::sleep(deadline - now)),
        }
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        tokio::time::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        let now = <Self::Instant as openraft::Instant>::now();
        let left = if deadline <= now { Duration::ZERO } else { deadline - now };
        tokio::time::timeout(left, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        join_error.is_panic()
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        let seed = SEED.get();
        SEED.set(seed.wrapping_add(1));
        SmallRng::seed_from_u64(seed)
    }

    fn new(threads: usize) -> Self {
        Runtime(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

/// Lets the other tasks run once.
pub struct Yield(bool);

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_runtime_as_openraft_wants_one() {
        openraft_rt::testing::Suite::<Runtime>::test_all();
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleep_until_a_moment_close_by_does_not_end_before_it() {
        let now = <<Runtime as AsyncRuntime>::Instant as openraft::Instant>::now;
        let deadline = now() + YIELD_BELOW / 2;
        Runtime::sleep_until(deadline).await;
        assert!(now() >= deadline);
    }
}
