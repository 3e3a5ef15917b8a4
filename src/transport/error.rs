//! Errors of requests to an API server.

use std::error::Error;
use std::time::Duration;

use thiserror::Error as ThisError;

use super::dial::DialError;
use crate::api::cause::Cause;
use crate::api::duration::GoDuration;
use crate::api::text::root_cause;

/// Why a request has no response, or only an incomplete response.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum SendError {
    /// The connection could not be established.
    #[error(transparent)]
    Connect(#[from] DialError),
    /// The endpoint and the path are not a valid URL.
    #[error("the endpoint and the path are not a valid URL: {0}")]
    Url(String),
    /// The connection broke before the response was complete.
    #[error("the connection broke: {0}")]
    Lost(String),
    /// The server closed each connection properly before it processed the request. A server does this when it restarts, or to
    /// distribute its load.
    #[error("the API server closed the connection before it processed the request")]
    Closed,
    /// No response to a ping, or to a request on another connection, within this time.
    #[error("no response from the API server within {}", GoDuration::from(*.0))]
    NoAnswer(Duration),
}

/// Whether the server may have processed a request that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Processed {
    /// No, according to the protocol. The request may be sent again, with any method.
    No,
    /// Unknown: the connection broke before a response.
    Maybe,
    /// Yes, or the request would fail again.
    Yes,
}

impl Processed {
    /// Classifies an error that came instead of a response (`canRetryError` of Go's `http2.Transport` and
    /// `shouldRetryRequest` of its `http.Transport`).
    pub(super) fn of(error: &hyper::Error) -> Self {
        // The connection was closed before the request was sent on it.
        if error.is_canceled() {
            return Self::No;
        }
        let Some(error) = h2_error(error) else {
            let failed = error.is_timeout() || error.is_parse();
            return if failed { Self::Yes } else { Self::Maybe };
        };
        let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        // A GOAWAY of the server fails only the streams that the server has not processed.
        if refused || (error.is_go_away() && error.is_remote()) {
            return Self::No;
        }
        if error.is_io() || error.is_go_away() { Self::Maybe } else { Self::Yes }
    }
}

impl SendError {
    /// The cause of this error.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Connect(error) => error.cause(),
            Self::Url(_) => Cause::CredentialsMalformed,
            Self::Lost(_) => Cause::ConnectionLost,
            Self::Closed => Cause::ConnectionClosed,
            Self::NoAnswer(_) => Cause::NoAnswer,
        }
    }

    /// Classifies an error of a request on an established connection. `max_silence` is the time after which a ping without a
    /// response closes the connection.
    pub(super) fn of(error: &hyper::Error, max_silence: Duration) -> Self {
        if error.is_timeout() {
            return Self::NoAnswer(max_silence);
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
