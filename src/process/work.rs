//! Where work on large inputs runs.

/// From how many bytes of input on work leaves the threads that serve requests.
const LARGE: usize = 256 * 1024;

/// Runs `work`, whose cost grows with `bytes` of input, where it blocks no other request.
pub async fn run<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if bytes <= LARGE {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
