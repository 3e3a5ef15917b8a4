//! What can go wrong between this server and a member.

use std::time::Duration;

use http::StatusCode;
use thiserror::Error as ThisError;

use crate::api::cause::Cause;
use crate::api::duration::GoDuration;
use crate::api::memory::Stopped;
use crate::api::page::PageError;
use crate::api::text::shorten;
use crate::transport::{Progress, SendError, Stage};

/// Why a member gave no usable answer. The text says what an operator can look for; it never has a token in it.
#[derive(Debug, ThisError)]
pub enum Failure {
    /// Karmada says that the cluster is not ready, so it was not asked.
    #[error("the cluster is not Ready")]
    NotReady,
    /// No connection could be made, or it ended before the answer was complete.
    #[error(transparent)]
    Send(#[from] SendError),
    /// There was no connection when the time was over.
    #[error("no connection to the API server within {}", GoDuration::from(*.0))]
    NotConnected(Duration),
    /// All connections, streams or TLS handshakes that there may be at a time were taken.
    #[error(
        "not asked within {}, since other requests take all connections to it (--member-connections) or all TLS handshakes",
        GoDuration::from(*.0)
    )]
    Busy(Duration),
    /// The answer came, and the processors were too busy to read it in time.
    #[error("the answer was not read within {}, since other answers take all processors", GoDuration::from(*.0))]
    Unread(Duration),
    /// The API server is there, and no answer came in time from what is behind it.
    #[error("no answer from the metrics API within {}", GoDuration::from(*.0))]
    Timeout(Duration),
    /// It failed again and again and is not asked until it answers in the background.
    #[error("not asked, since it failed again and again: {} ({})", .0.message, .0.cause.name())]
    Skipped(Skip),
    /// It was not asked, since it is asked as often as it may be.
    #[error("not asked, since it is asked as often as it may be (--cluster-api-qps)")]
    Throttled,
    /// An answer that is neither a success nor a 404.
    #[error("HTTP {}{}", .status.as_u16(), colon(.message))]
    Status {
        /// The HTTP status.
        status: StatusCode,
        /// What the body says, shortened.
        message: String,
    },
    /// The answer is longer than allowed.
    #[error("the answer has more than {0} bytes (--member-body-bytes)")]
    TooLarge(usize),
    /// What is read of the answer takes more memory than one member's may.
    #[error("the answer takes more than half of the memory for all queries (--inflight-bytes)")]
    TooMuchMemory,
    /// What it lists takes more than half of the memory for the lists of all members, or than is left of it.
    #[error(
        "its metrics take more than half of the memory for what all members list, or than is left of it (--discovery-bytes), \
         and are not listed"
    )]
    TooManyMetrics,
    /// Other queries take all the memory that there is.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The answer is not what was asked for.
    #[error("the answer is malformed: {0}")]
    Malformed(String),
}

/// Why a member is not asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    /// Whether its API server could not be reached, or only its metrics API failed.
    pub unreachable: bool,
    /// The failure that led to it.
    pub cause: Cause,
    /// What that said.
    pub message: String,
}

/// Queries take all the memory that there is for them. That is this server's trouble and no member's.
#[derive(Clone, Copy, Debug, ThisError)]
#[error(
    "queries take more memory than they may at a time (--inflight-bytes), please try again later, or ask for less by a selector"
)]
pub struct NoRoom;

/// Why the answer was not read to its end; nobody sees the failure of work that stopped because they left.
impl From<Stopped> for Failure {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::TooMuch => Self::TooMuchMemory,
            Stopped::NoMemory | Stopped::CallerLeft => NoRoom.into(),
        }
    }
}

impl Failure {
    /// What is wrong with a page.
    pub fn malformed(error: &PageError) -> Self {
        Self::Malformed(shorten(&error.to_string()))
    }

    /// What it means that no answer came within `timeout`, by how far the request had come. One that waited for its turn for
    /// half of the time says nothing of the member.
    pub fn late(progress: &Progress, timeout: Duration) -> Self {
        match progress.stage() {
            _ if progress.waited() >= timeout / 2 => Self::Busy(timeout),
            Stage::Waiting => Self::Busy(timeout),
            Stage::Connecting => Self::NotConnected(timeout),
            Stage::Sent | Stage::Reading => Self::Timeout(timeout),
            Stage::Received => Self::Unread(timeout),
            Stage::Refused => Self::Status {
                status: StatusCode::UNAUTHORIZED,
                message: "no newer credentials have come in time".to_owned(),
            },
        }
    }

    /// Whether the API server itself could not be reached, as FederatedHPA would find it too; otherwise the API
    /// server is well and its metrics API is not.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::NotReady | Self::NotConnected(_) => true,
            Self::Send(SendError::Connect(_) | SendError::NoAnswer(_)) => true,
            Self::Skipped(skip) => skip.unreachable,
            _ => false,
        }
    }

    /// Whether the member is at fault, and only with its metrics API: what its last reply can stand in for.
    pub fn is_metrics_api_failure(&self) -> bool {
        !self.is_unreachable() && !matches!(self, Self::NoRoom(_))
    }

    /// Its name among all causes.
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
            // The aggregation layer of the member says so.
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
