//! Failures of requests to a member.

use std::time::Duration;

use http::StatusCode;
use thiserror::Error as ThisError;

use crate::api::cause::Cause;
use crate::api::duration::GoDuration;
use crate::api::memory::Stopped;
use crate::api::page::PageError;
use crate::api::text::shorten;
use crate::transport::{Progress, SendError, Stage};

/// Why a member gave no usable response. The text is for operators and never contains a token.
#[derive(Debug, ThisError)]
pub enum Failure {
    /// Karmada reports the cluster as not Ready, so it was not queried.
    #[error("the cluster is not Ready")]
    NotReady,
    /// There was no connection, or it ended before the response was complete.
    #[error(transparent)]
    Send(#[from] SendError),
    /// There was no connection at the deadline.
    #[error("no connection to the API server within {}", GoDuration::from(*.0))]
    NotConnected(Duration),
    /// All connections, streams or TLS handshakes were in use until the deadline.
    #[error(
        "not queried within {}: other requests use all connections to it (--member-connections) or all TLS handshakes",
        GoDuration::from(*.0)
    )]
    Busy(Duration),
    /// The response came, but all processors were busy until the deadline.
    #[error("the response was not read within {}: other responses use all processors", GoDuration::from(*.0))]
    Unread(Duration),
    /// The API server is reachable, but its metrics API did not respond in time.
    #[error("no response from the metrics API within {}", GoDuration::from(*.0))]
    Timeout(Duration),
    /// The circuit breaker is open. The member is not queried until it responds to a background request.
    #[error("skipped after repeated failures: {} ({})", .0.message, .0.cause.name())]
    Skipped(Skip),
    /// The rate limit allowed no request before the deadline.
    #[error("not queried: the rate limit is used up (--cluster-api-qps)")]
    Throttled,
    /// A response that is neither a success nor a 404.
    #[error("HTTP {}{}", .status.as_u16(), colon(.message))]
    Status {
        /// The HTTP status.
        status: StatusCode,
        /// The message of the body, shortened.
        message: String,
    },
    /// The response is longer than allowed.
    #[error("the response has more than {0} bytes (--member-body-bytes)")]
    TooLarge(usize),
    /// The response takes more memory than one response may.
    #[error("the response takes more than half of the memory for all queries (--inflight-bytes)")]
    TooMuchMemory,
    /// The member's catalog takes more than half of the memory for all catalogs, or more than is left.
    #[error(
        "its list of metrics takes more than half of the memory for all lists, or more than is left (--discovery-bytes); it is not \
         used"
    )]
    TooManyMetrics,
    /// Queries have used up the memory budget.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The response is not the expected object.
    #[error("the response is malformed: {0}")]
    Malformed(String),
}

/// Why a circuit breaker is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    /// Whether the API server is unreachable; otherwise only its metrics API failed.
    pub unreachable: bool,
    /// The cause of the last failure.
    pub cause: Cause,
    /// The message of the last failure.
    pub message: String,
}

/// Queries have used up the memory budget. This is a limit of this server, not a failure of a member.
#[derive(Clone, Copy, Debug, ThisError)]
#[error(
    "queries use all memory that they may use (--inflight-bytes); try again later, or use a selector to request less"
)]
pub struct NoRoom;

/// Work that stopped early. If it stopped because its caller left, no client sees the failure.
impl From<Stopped> for Failure {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::LimitExceeded => Self::TooMuchMemory,
            Stopped::NoMemory | Stopped::CallerGone => NoRoom.into(),
        }
    }
}

impl Failure {
    /// A malformed response.
    pub fn malformed(error: &PageError) -> Self {
        Self::Malformed(shorten(&error.to_string()))
    }

    /// The failure of a request without a response within `timeout`, by its stage. A request that waited for its rate limit or for a
    /// connection for half of that time does not count against the member.
    pub fn late(progress: &Progress, timeout: Duration) -> Self {
        match progress.stage() {
            Stage::Throttled => Self::Throttled,
            _ if progress.throttled() >= timeout / 2 => Self::Throttled,
            _ if progress.waited() >= timeout / 2 => Self::Busy(timeout),
            Stage::Waiting => Self::Busy(timeout),
            Stage::Connecting => Self::NotConnected(timeout),
            Stage::Sent | Stage::Reading => Self::Timeout(timeout),
            Stage::Received => Self::Unread(timeout),
            Stage::WaitingForCredentials => Self::Status {
                status: StatusCode::UNAUTHORIZED,
                message: "no newer credentials arrived in time".to_owned(),
            },
        }
    }

    /// Whether the API server is unreachable, as it is for FederatedHPA too. Otherwise only its metrics API failed.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::NotReady | Self::NotConnected(_) => true,
            Self::Send(SendError::Connect(_) | SendError::NoAnswer(_)) => true,
            Self::Skipped(skip) => skip.unreachable,
            _ => false,
        }
    }

    /// Whether the metrics API has responded, although the response cannot be used.
    pub fn is_response(&self) -> bool {
        match self {
            Self::Status { .. }
            | Self::TooLarge(_)
            | Self::TooMuchMemory
            | Self::TooManyMetrics
            | Self::Malformed(_) => true,
            Self::NotReady
            | Self::Send(_)
            | Self::NotConnected(_)
            | Self::Busy(_)
            | Self::Unread(_)
            | Self::Timeout(_)
            | Self::Skipped(_)
            | Self::Throttled
            | Self::NoRoom(_) => false,
        }
    }

    /// Whether last-known values may be used: the API server is reachable, or the failure is a limit of this server other
    /// than memory.
    pub fn is_metrics_api_failure(&self) -> bool {
        !self.is_unreachable() && !matches!(self, Self::NoRoom(_))
    }

    pub fn cause(&self) -> Cause {
        match self {
            Self::NotReady => Cause::NotReady,
            Self::Send(error) => error.cause(),
            Self::NotConnected(_) => Cause::NoConnection,
            Self::Busy(_) | Self::Unread(_) => Cause::Busy,
            Self::Timeout(_) => Cause::Timeout,
            Self::Skipped(_) => Cause::Skipped,
            Self::Throttled => Cause::Throttled,
            Self::Status { status: StatusCode::UNAUTHORIZED, .. } => Cause::Unauthorized,
            Self::Status { status: StatusCode::FORBIDDEN, .. } => Cause::Forbidden,
            // Sent by the member's aggregation layer.
            Self::Status { status: StatusCode::SERVICE_UNAVAILABLE, .. } => Cause::APIUnavailable,
            Self::Status { status, .. } if status.is_redirection() => Cause::NotAPIServer,
            Self::Status { .. } => Cause::APIFailing,
            Self::TooLarge(_) | Self::TooMuchMemory | Self::TooManyMetrics => Cause::TooLarge,
            Self::NoRoom(_) => Cause::NoRoom,
            Self::Malformed(_) => Cause::Malformed,
        }
    }
}

fn colon(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_that_waited_mostly_for_its_rate_limit_is_throttled() {
        let progress = Progress::default();
        progress.set(Stage::Throttled);
        assert_eq!(Failure::late(&progress, Duration::from_secs(1)).cause(), Cause::Throttled);
        std::thread::sleep(Duration::from_millis(20));
        progress.set(Stage::Waiting);
        progress.set(Stage::Sent);
        assert_eq!(Failure::late(&progress, Duration::from_millis(20)).cause(), Cause::Throttled);
        assert_eq!(Failure::late(&progress, Duration::from_secs(60)).cause(), Cause::Timeout);
    }
}
