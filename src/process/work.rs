//! Where work on large inputs runs.

use std::sync::LazyLock;
use std::thread::available_parallelism;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::sync::Semaphore;

/// From how many bytes of input on work leaves the threads that serve requests.
const LARGE: usize = 256 * 1024;
/// As much at a time as there are processors; more would only take memory.
static PLACES: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(available_parallelism().map_or(1, usize::from)));

/// The result of shared work, or `None` while it is in progress. `Shared::peek` does not see a result that came after all
/// who waited for it had left.
pub fn result_of<T: Clone>(work: &Shared<BoxFuture<'static, T>>) -> Option<T> {
    work.clone().now_or_never()
}

/// Runs `work`, whose cost grows with `bytes` of input, where it blocks no other request.
pub async fn run<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if bytes <= LARGE {
        return work();
    }
    let _place = PLACES.acquire().await.expect("the semaphore is never closed");
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and whoever waits with it.
            Err(_) => std::future::pending().await,
        },
    }
}
