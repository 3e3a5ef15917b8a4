//! Limit for the open HTTP/1.1 connections to one API server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// How long a request waits for a busy connection before it tries again to open another connection.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Counts the open HTTP/1.1 connections: busy connections, idle connections and connections that are being established.
pub(super) struct Http1Connections {
    limit: usize,
    open: AtomicUsize,
    /// Notified when a connection becomes idle or is closed.
    freed: Notify,
}

/// Counts one open connection until it is dropped.
pub(super) struct OpenConnection(Arc<Http1Connections>);

impl Http1Connections {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, open: AtomicUsize::new(0), freed: Notify::new() })
    }

    /// Counts a new connection. `None` means that the limit is reached.
    pub(super) fn try_reserve(this: &Arc<Self>) -> Option<OpenConnection> {
        let increment = |open| (open < this.limit).then_some(open + 1);
        this.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, increment).ok()?;
        Some(OpenConnection(this.clone()))
    }

    /// Reports that a connection became idle.
    pub(super) fn note_idle(&self) {
        self.freed.notify_one();
    }

    /// Waits until a connection becomes idle or is closed.
    pub(super) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Waits until a connection becomes idle or is closed, for 1 s at most.
    pub(super) async fn freed_or_timeout(&self) {
        let _ = tokio::time::timeout(RETRY_AFTER, self.freed()).await;
    }

    pub(super) fn open_count(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.freed.notify_one();
    }
}
