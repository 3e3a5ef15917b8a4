//! What each share of the requests to an API server may take, and which of its requests go first.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// How many requests may be in progress. Each share has some places of its own, and the rest is for all.
pub(super) struct RequestSlots {
    own: Vec<Arc<Semaphore>>,
    common: Arc<Semaphore>,
}

/// Requests that a server has not processed and that are about to be sent again. They go before others, so that none is
/// refused again and again by a server that closes each connection after so many.
#[derive(Default)]
pub(super) struct Resending {
    count: AtomicUsize,
    ended: Notify,
}

/// One of the requests that are about to be sent again.
pub(super) struct Resend(Arc<Resending>);

impl Resending {
    /// Begins one, which goes before others until it is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Resend {
        self.count.fetch_add(1, Ordering::Relaxed);
        Resend(self.clone())
    }

    /// Waits until there are none.
    pub(super) async fn ended(&self) {
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            ended.as_mut().enable();
            if self.count.load(Ordering::Relaxed) == 0 {
                return;
            }
            ended.await;
        }
    }
}

impl Drop for Resend {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.ended.notify_waiters();
        }
    }
}

impl RequestSlots {
    /// `limit` is one for each share at least.
    pub(super) fn new(limit: usize, shares: usize) -> Self {
        let own = (limit / 8).max(1);
        let common = limit - own * shares;
        Self {
            own: (0..shares).map(|_| Arc::new(Semaphore::new(own))).collect(),
            common: Arc::new(Semaphore::new(common)),
        }
    }

    pub(super) async fn take(&self, share: usize) -> OwnedSemaphorePermit {
        let own = self.own[share].clone().acquire_owned();
        let common = self.common.clone().acquire_owned();
        tokio::select! {
            biased;
            place = own => place,
            place = common => place,
        }
        .expect("no semaphore is ever closed")
    }
}
