//! Where work on large inputs runs.

use std::sync::{Arc, LazyLock, Weak};
use std::thread::available_parallelism;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::sync::Semaphore;

use super::budget::Share;
use crate::api::memory::Stopped;

/// From how many bytes of input on work leaves the threads that serve requests.
const LARGE: usize = 256 * 1024;
/// As much at a time as there are processors; more would only take memory.
static BLOCKING_TASKS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(available_parallelism().map_or(1, usize::from)));

/// Whoever waits for the result of work.
#[derive(Debug)]
pub struct Caller(Weak<()>);

impl Caller {
    /// Takes so many bytes more for the work.
    ///
    /// # Errors
    /// If there is no memory left for it, or the caller does not wait any more.
    pub fn reserve(&self, share: &mut Share, bytes: usize) -> Result<(), Stopped> {
        if self.0.strong_count() == 0 {
            return Err(Stopped::CallerLeft);
        }
        Ok(share.grow(bytes)?)
    }
}

/// The result of shared work, or `None` while it is in progress. `Shared::peek` does not see a result that came after all
/// who waited for it had left.
pub fn result_of<T: Clone>(work: &Shared<BoxFuture<'static, T>>) -> Option<T> {
    work.clone().now_or_never()
}

/// Runs `work`, whose cost grows with `bytes` of input, where it blocks no other request. What runs there keeps its place
/// until it ends, also when its caller leaves.
pub async fn run<T: Send + 'static>(bytes: usize, work: impl FnOnce(&Caller) -> T + Send + 'static) -> T {
    let waiting = Arc::new(());
    let caller = Caller(Arc::downgrade(&waiting));
    if bytes <= LARGE {
        return work(&caller);
    }
    let place = BLOCKING_TASKS.acquire().await.expect("the semaphore is never closed");
    let working = tokio::task::spawn_blocking(move || {
        let _place = place;
        work(&caller)
    });
    match working.await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and whoever waits with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// All places, so that whatever comes waits.
#[cfg(test)]
pub async fn all_permits() -> tokio::sync::SemaphorePermit<'static> {
    let places = available_parallelism().map_or(1, usize::from);
    let places = u32::try_from(places).expect("few processors");
    BLOCKING_TASKS.acquire_many(places).await.expect("the semaphore is never closed")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::process::budget::Budget;

    #[tokio::test]
    async fn work_whose_caller_has_left_keeps_its_place_and_its_share_and_stops_when_it_asks_for_more() {
        let budget = Budget::new(0);
        let (told, stopped) = tokio::sync::oneshot::channel();
        let (go_on, left) = mpsc::channel::<()>();
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let places = available_parallelism().map_or(1, usize::from);
        let mut share = budget.share();
        let work = run(LARGE + 1, move |caller| {
            let first = caller.reserve(&mut share, 5);
            begun.send(()).expect("the test waits");
            left.recv().expect("the test goes on");
            told.send((first, caller.reserve(&mut share, 5))).expect("the test waits");
        });
        tokio::select! {
            () = work => panic!("it waits"),
            has_begun = has_begun => has_begun.expect("it begins"),
        }
        assert_eq!(budget.gauge().get(), 5);
        assert!(BLOCKING_TASKS.available_permits() < places);
        go_on.send(()).expect("it waits");
        assert_eq!(stopped.await.expect("it ends"), (Ok(()), Err(Stopped::CallerLeft)));
    }
}
