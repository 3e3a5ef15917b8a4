//! State that the health checks read.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// State that the health checks read.
pub struct HealthSources {
    /// Whether the watches of the control plane have synced.
    pub synced: watch::Receiver<bool>,
    /// Whether the first discovery of each member has finished or timed out.
    pub discovered: watch::Receiver<bool>,
    /// Cancelled when the process shuts down.
    pub shutdown: CancellationToken,
}
