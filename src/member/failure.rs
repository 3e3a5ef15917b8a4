//! What can go wrong between this server and a member.

use std::error::Error;
use std::io;
use std::time::Duration;

use http::StatusCode;
use thiserror::Error as ThisError;

use super::health::Skip;
use crate::api::page::PageError;

/// Why a member gave no usable answer. The text says what an operator can look for; it never has a token in it.
#[derive(Debug, ThisError)]
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
    /// Nobody is at the other end of the connection any more: a ping, or a question on another connection, was not
    /// answered.
    #[error("its API server does not answer any more")]
    Silent,
    /// The answer did not come in time.
    #[error("no answer within {}", crate::api::duration::GoDuration::from(*.0))]
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

    /// What broke a request on a connection that was made.
    pub(super) fn lost(error: &hyper::Error) -> Self {
        if error.is_timeout() { Self::Silent } else { Self::Lost(root_cause(error)) }
    }

    /// Whether the API server itself could not be reached, as FederatedHPA would find it too; otherwise the API
    /// server is well and its metrics API is not.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::NotReady | Self::Connect(_) | Self::Silent => true,
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
            Self::Connect(_) => "Connect",
            Self::Lost(_) => "ConnectionLost",
            Self::Silent => "Silent",
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

/// How many characters of somebody else's text are passed on.
const TEXT: usize = 200;

/// One line that fits into a header and a log, whatever a member put into it.
pub fn shortened(text: &str) -> String {
    let words = text.split_whitespace().flat_map(|word| [" ", word]).skip(1);
    let mut line: String = words.flat_map(str::chars).filter(|c| !c.is_control()).take(TEXT + 1).collect();
    if let Some((end, _)) = line.char_indices().nth(TEXT) {
        line.truncate(end);
        line.push('…');
    }
    line
}

/// The innermost error: the layers above it say only that something failed.
pub(super) fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match cause.downcast_ref::<io::Error>() {
        Some(error) if error.kind() == io::ErrorKind::UnexpectedEof => "the other end closed it".to_owned(),
        _ => shortened(&cause.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_members_text_stays_on_one_short_line() {
        assert_eq!(shortened("  two\r\n words\u{7} "), "two words");
        let long = shortened(&"ä".repeat(1000));
        assert_eq!((long.chars().count(), long.ends_with('…')), (TEXT + 1, true));
    }
}
