//! What can go wrong between this server and a member.

use std::time::Duration;

use http::StatusCode;
use thiserror::Error;

use crate::api::page::PageError;

/// Why a member gave no usable answer. The text says what an operator can look for; it never has a token in it.
#[derive(Debug, Error)]
pub enum Failure {
    /// Karmada says that the cluster is not ready, so it was not asked.
    #[error("the cluster is not Ready")]
    NotReady,
    /// No connection could be made: name, route, proxy, TLS.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The connection broke before the answer was complete.
    #[error("the connection broke: {0}")]
    Lost(String),
    /// The answer did not come in time.
    #[error("no answer within {}", crate::api::duration::GoDuration::from(*.0))]
    Timeout(Duration),
    /// Too many requests wait for this member already.
    #[error("too many requests are waiting for it")]
    Busy,
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
    /// The answer is not what was asked for.
    #[error("the answer is malformed: {0}")]
    Malformed(#[from] PageError),
}

impl Failure {
    /// One word for metrics and for `Status.details.causes`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotReady => "NotReady",
            Self::Connect(_) => "Connect",
            Self::Lost(_) => "ConnectionLost",
            Self::Timeout(_) => "Timeout",
            Self::Busy => "Busy",
            Self::Status { status: StatusCode::UNAUTHORIZED, .. } => "Unauthorized",
            Self::Status { status: StatusCode::FORBIDDEN, .. } => "Forbidden",
            Self::Status { .. } => "HTTPStatus",
            Self::TooLarge(_) => "TooLarge",
            Self::Malformed(_) => "Malformed",
        }
    }
}

fn colon(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}
