//! What health checks look at.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What the checks look at.
pub struct HealthSources {
    /// Whether the watches have synced.
    pub synced: watch::Receiver<bool>,
    /// Whether the first discovery is over.
    pub discovered: watch::Receiver<bool>,
    /// Cancelled when the process ends.
    pub shutdown: CancellationToken,
}
