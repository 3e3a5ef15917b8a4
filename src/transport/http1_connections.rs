//! The HTTP/1.1 connections to one API server that are open, which have a bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// HTTP/1.1: how long a request waits for a busy connection before it tries again to make another.
const RETRY: Duration = Duration::from_secs(1);

/// The HTTP/1.1 connections that are open: busy ones, idle ones and those that are being made.
pub(super) struct Http1Connections {
    most: usize,
    open: AtomicUsize,
    /// One has become idle or was closed.
    freed: Notify,
}

/// One of the open connections.
pub(super) struct OpenConnection(Arc<Http1Connections>);

impl Http1Connections {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, open: AtomicUsize::new(0), freed: Notify::new() })
    }

    /// Counts one more; `None` if there are as many as there may be.
    pub(super) fn count(this: &Arc<Self>) -> Option<OpenConnection> {
        let more = |open| (open < this.most).then_some(open + 1);
        this.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(OpenConnection(this.clone()))
    }

    /// Notes that one has become idle.
    pub(super) fn note_idle(&self) {
        self.freed.notify_one();
    }

    /// Waits until one has become idle or was closed.
    pub(super) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// The same, for a while only.
    pub(super) async fn change(&self) {
        let _ = tokio::time::timeout(RETRY, self.freed()).await;
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.freed.notify_one();
    }
}
