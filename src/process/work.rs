//! Runs work on large inputs on separate threads.

use std::sync::{Arc, LazyLock, Weak};
use std::thread::available_parallelism;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::sync::Semaphore;

use super::budget::Share;
use crate::api::memory::Stopped;

/// Work on more bytes of input than this does not run on the threads that serve requests.
const LARGE: usize = 256 * 1024;
/// Limits concurrent work to the number of processors. More would only use more memory.
static BLOCKING_TASKS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(available_parallelism().map_or(1, usize::from)));

/// The caller that waits for the result of the work.
#[derive(Debug)]
pub struct Caller(Weak<()>);

impl Caller {
    /// Reserves `bytes` more of the memory budget for the work.
    ///
    /// # Errors
    /// If the budget is exhausted, or the caller no longer waits.
    pub fn reserve(&self, share: &mut Share, bytes: usize) -> Result<(), Stopped> {
        if self.0.strong_count() == 0 {
            return Err(Stopped::CallerGone);
        }
        Ok(share.grow(bytes)?)
    }
}

/// The result of shared work, or `None` while the work runs. `Shared::peek` does not return a result that came after all
/// waiting callers were dropped.
pub fn result_of<T: Clone>(work: &Shared<BoxFuture<'static, T>>) -> Option<T> {
    work.clone().now_or_never()
}

/// Runs `work` so that it blocks no other request. Its cost grows with `bytes`, the size of the input. `work` holds its slot
/// until it ends, even if the caller is dropped.
pub async fn run<T: Send + 'static>(bytes: usize, work: impl FnOnce(&Caller) -> T + Send + 'static) -> T {
    let waiting = Arc::new(());
    let caller = Caller(Arc::downgrade(&waiting));
    if bytes <= LARGE {
        return work(&caller);
    }
    let slot = BLOCKING_TASKS.acquire().await.expect("the semaphore is never closed");
    let working = tokio::task::spawn_blocking(move || {
        let _slot = slot;
        work(&caller)
    });
    match working.await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime shuts down, and the caller with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Takes all slots, so that later work waits.
#[cfg(test)]
pub async fn all_permits() -> tokio::sync::SemaphorePermit<'static> {
    let slots = available_parallelism().map_or(1, usize::from);
    let slots = u32::try_from(slots).expect("few processors");
    BLOCKING_TASKS.acquire_many(slots).await.expect("the semaphore is never closed")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::process::budget::Budget;

    #[tokio::test]
    async fn work_of_a_dropped_caller_keeps_its_slot_until_it_reserves_more() {
        let budget = Budget::new(0);
        let (results, stopped) = tokio::sync::oneshot::channel();
        let (drop_caller, dropped) = mpsc::channel::<()>();
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let slots = available_parallelism().map_or(1, usize::from);
        let mut share = budget.share();
        let work = run(LARGE + 1, move |caller| {
            let first = caller.reserve(&mut share, 5);
            begun.send(()).expect("the test waits");
            dropped.recv().expect("the test sends");
            results.send((first, caller.reserve(&mut share, 5))).expect("the test waits");
        });
        tokio::select! {
            () = work => panic!("the work waits"),
            has_begun = has_begun => has_begun.expect("the work begins"),
        }
        assert_eq!(budget.gauge().get(), 5);
        assert!(BLOCKING_TASKS.available_permits() < slots);
        drop_caller.send(()).expect("the work waits");
        assert_eq!(stopped.await.expect("the work ends"), (Ok(()), Err(Stopped::CallerGone)));
    }
}
