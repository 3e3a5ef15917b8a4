//! What can go wrong between this server and a member.

use std::time::Duration;

use http::StatusCode;
use thiserror::Error as ThisError;

use crate::api::duration::GoDuration;
use crate::api::page::PageError;
use crate::api::text::shortened;
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
    /// All connections or streams that there may be were taken by other requests.
    #[error(
        "not asked within {}, since other requests take all connections to it (--member-connections)",
        GoDuration::from(*.0)
    )]
    Busy(Duration),
    /// The answer did not come in time.
    #[error("no answer within {}", GoDuration::from(*.0))]
    Timeout(Duration),
    /// It failed again and again and is not asked until it answers in the background.
    #[error("not asked, since it failed again and again: {}", .0.cause)]
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
    /// Other answers take all the room that there is.
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
    pub cause: String,
}

/// Members' answers take all the room that there is for them. That is this server's trouble and no member's.
#[derive(Clone, Copy, Debug, ThisError)]
#[error(
    "members' answers take more memory than they may at a time, please try again later (--inflight-bytes)"
)]
pub struct NoRoom;

impl Failure {
    /// What is wrong with a page.
    pub fn malformed(error: &PageError) -> Self {
        Self::Malformed(shortened(&error.to_string()))
    }

    /// What it means that no answer came within `timeout`, by how far the request had come. One that waited for its turn for
    /// half of the time says nothing of the member.
    pub fn late(progress: &Progress, timeout: Duration) -> Self {
        match progress.stage() {
            _ if progress.waited() >= timeout / 2 => Self::Busy(timeout),
            Stage::Waiting => Self::Busy(timeout),
            Stage::Connecting => {
                SendError::Connect(format!("no connection within {}", GoDuration::from(timeout))).into()
            }
            Stage::Sent | Stage::Reading => Self::Timeout(timeout),
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
            Self::NotReady | Self::Send(SendError::Connect(_) | SendError::Silent) => true,
            Self::Skipped(skip) => skip.unreachable,
            _ => false,
        }
    }

    /// Whether the member is at fault, and only with its metrics API: what its last reply can stand in for.
    pub fn is_ill(&self) -> bool {
        !self.is_unreachable() && !matches!(self, Self::NoRoom(_))
    }

    /// One word for metrics and for `Status.details.causes`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotReady => "NotReady",
            Self::Send(SendError::Connect(_)) => "Connect",
            Self::Send(SendError::Lost(_)) => "ConnectionLost",
            Self::Send(SendError::Closed) => "ConnectionClosed",
            Self::Send(SendError::Silent) => "Silent",
            Self::Busy(_) => "Busy",
            Self::Timeout(_) => "Timeout",
            Self::Skipped(_) => "Skipped",
            Self::Throttled => "Throttled",
            Self::Status { status: StatusCode::UNAUTHORIZED, .. } => "Unauthorized",
            Self::Status { status: StatusCode::FORBIDDEN, .. } => "Forbidden",
            Self::Status { .. } => "HTTPStatus",
            Self::TooLarge(_) => "TooLarge",
            Self::NoRoom(_) => "NoRoom",
            Self::Malformed(_) => "Malformed",
        }
    }
}

fn colon(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}
