//! Why a request has no response.

use std::error::Error;
use std::time::Duration;

use thiserror::Error as ThisError;

use super::dial::DialError;
use crate::api::cause::Cause;
use crate::api::duration::GoDuration;
use crate::api::text::root_cause;

/// Why a request has no response, or not a whole one.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum SendError {
    /// No connection could be made.
    #[error(transparent)]
    Connect(#[from] DialError),
    /// The endpoint and the path make no URL.
    #[error("the endpoint and the path make no URL: {0}")]
    Url(String),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Lost(String),
    /// The server closed each connection properly before it processed the request, as one does that is restarted or spreads
    /// its load.
    #[error("the API server closed the connection before it processed the request")]
    Closed,
    /// For so long no ping, or no request on another connection, was answered.
    #[error("no answer from the API server within {}", GoDuration::from(*.0))]
    NoAnswer(Duration),
}

/// Whether the server may have processed a request that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Processed {
    /// It has not, as the protocol says: the request may be sent again, whatever its method.
    No,
    /// The connection broke before a response, so nobody knows.
    Maybe,
    /// It has, or the request would fail again.
    Yes,
}

impl Processed {
    /// What an error says that came in place of a response (`canRetryError` of Go's `http2.Transport` and
    /// `shouldRetryRequest` of its `http.Transport`).
    pub(super) fn of(error: &hyper::Error) -> Self {
        // The connection ended before the request was sent on it.
        if error.is_canceled() {
            return Self::No;
        }
        let Some(error) = h2_error(error) else {
            let failed = error.is_timeout() || error.is_parse();
            return if failed { Self::Yes } else { Self::Maybe };
        };
        let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        // A GOAWAY of the server only fails the streams that it has not processed.
        if refused || (error.is_go_away() && error.is_remote()) {
            return Self::No;
        }
        if error.is_io() || error.is_go_away() { Self::Maybe } else { Self::Yes }
    }
}

impl SendError {
    /// Its name among all causes.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Connect(error) => error.cause(),
            Self::Url(_) => Cause::CredentialsMalformed,
            Self::Lost(_) => Cause::ConnectionLost,
            Self::Closed => Cause::ConnectionClosed,
            Self::NoAnswer(_) => Cause::NoAnswer,
        }
    }

    /// What broke a request on a connection that was made, on which a ping may be without an answer for `silence`.
    pub(super) fn of(error: &hyper::Error, silence: Duration) -> Self {
        if error.is_timeout() {
            return Self::NoAnswer(silence);
        }
        let is_proper = match h2_error(error) {
            Some(error) => {
                let reasons = [Some(h2::Reason::NO_ERROR), Some(h2::Reason::REFUSED_STREAM)];
                error.is_remote() && reasons.contains(&error.reason())
            }
            None => error.is_canceled(),
        };
        if is_proper { Self::Closed } else { Self::Lost(root_cause(error)) }
    }
}

fn h2_error(error: &hyper::Error) -> Option<&h2::Error> {
    error.source()?.downcast_ref()
}
