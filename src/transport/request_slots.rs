//! Limits for concurrent requests to one API server by share, and priority of retries.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Limits concurrent requests. Each share has some slots of its own. All shares can use the other slots.
pub(super) struct RequestSlots {
    reserved: Vec<Arc<Semaphore>>,
    common: Arc<Semaphore>,
}

/// Requests that the server did not process and that are about to be sent again. They have priority over other requests.
/// Otherwise a server that closes each connection after a few requests could refuse the same request again and again.
#[derive(Default)]
pub(super) struct PendingRetries {
    count: AtomicUsize,
    none_left: Notify,
}

/// One request that is about to be sent again. It has priority until this guard is dropped.
pub(super) struct PendingRetry(Arc<PendingRetries>);

impl PendingRetries {
    /// Adds a request, which has priority until the returned guard is dropped.
    pub(super) fn add(self: &Arc<Self>) -> PendingRetry {
        self.count.fetch_add(1, Ordering::Relaxed);
        PendingRetry(self.clone())
    }

    /// Waits until no request is about to be sent again.
    pub(super) async fn wait_until_none(&self) {
        loop {
            let mut none_left = std::pin::pin!(self.none_left.notified());
            none_left.as_mut().enable();
            if self.count.load(Ordering::Relaxed) == 0 {
                return;
            }
            none_left.await;
        }
    }
}

impl Drop for PendingRetry {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.none_left.notify_waiters();
        }
    }
}

impl RequestSlots {
    /// Creates slots for `limit` concurrent requests. `limit` must be at least `shares`.
    pub(super) fn new(limit: usize, shares: usize) -> Self {
        let reserved = (limit / 8).max(1);
        let common = limit - reserved * shares;
        Self {
            reserved: (0..shares).map(|_| Arc::new(Semaphore::new(reserved))).collect(),
            common: Arc::new(Semaphore::new(common)),
        }
    }

    pub(super) async fn take(&self, share: usize) -> OwnedSemaphorePermit {
        let reserved = self.reserved[share].clone().acquire_owned();
        let common = self.common.clone().acquire_owned();
        tokio::select! {
            biased;
            slot = reserved => slot,
            slot = common => slot,
        }
        .expect("the semaphores are never closed")
    }
}
