//! A few futures at once.

use std::future::poll_fn;
use std::task::Poll;

/// What each of them gives, in their order. All are polled when any is woken: fit for as many as there are nodes.
pub async fn together<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    poll_fn(|context| {
        for (future, output) in waiting.iter_mut().filter(|(_, output)| output.is_none()) {
            if let Poll::Ready(ready) = future.as_mut().poll(context) {
                *output = Some(ready);
            }
        }
        match waiting.iter().all(|(_, output)| output.is_some()) {
            true => Poll::Ready(waiting.iter_mut().filter_map(|(_, output)| output.take()).collect()),
            false => Poll::Pending,
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn they_wait_for_each_other_and_keep_their_order() {
        let slow = |n: u64| async move {
            tokio::time::sleep(Duration::from_millis(20 - n)).await;
            n
        };
        assert_eq!(together((0..5).map(slow)).await, [0, 1, 2, 3, 4]);
        assert_eq!(together((0..0).map(slow)).await, []);
    }
}
