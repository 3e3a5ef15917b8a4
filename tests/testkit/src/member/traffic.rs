//! Record of a member's requests: which arrived, how many are in flight, and how many the client cancelled.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use tokio::sync::watch;

use crate::https::Body;

/// Maximum of recorded requests. A benchmark sends many requests to a hundred members.
const KEPT: usize = 2_000;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    /// The method.
    pub method: Method,
    /// Path and query as on the wire: percent-encoded and with the path prefix of the API server.
    pub path_and_query: String,
    /// The headers. `Authorization` prints as `Sensitive`.
    pub headers: HeaderMap,
}

/// Numbers of requests since the start or [`super::Member::reset_counters`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that arrived.
    pub requests: usize,
    /// Requests in flight: the response has not been sent completely. A reset does not change this number.
    pub in_flight: usize,
    /// Requests that the client cancelled: it closed the connection or reset the stream before the end of the response.
    pub cancelled: usize,
}

/// The member's record of its traffic.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    requests: Mutex<VecDeque<RecordedRequest>>,
    counters: watch::Sender<Counters>,
}

/// A request in flight. If it is dropped unfinished, it counts as cancelled.
pub(super) struct Flight {
    traffic: Arc<Traffic>,
    finished: bool,
}

/// The body of a response. The request is finished when the body ends.
struct FlyingBody {
    body: Body,
    flight: Flight,
}

impl Traffic {
    pub(super) fn arrive(self: &Arc<Self>, request: &Request<Incoming>) -> Flight {
        let mut headers = request.headers().clone();
        if let Some(credentials) = headers.get_mut(AUTHORIZATION) {
            credentials.set_sensitive(true);
        }
        let path_and_query = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let mut requests = self.requests();
        if requests.len() == KEPT {
            requests.pop_front();
        }
        requests.push_back(RecordedRequest { method: request.method().clone(), path_and_query, headers });
        drop(requests);
        self.counters.send_modify(|counters| {
            counters.requests += 1;
            counters.in_flight += 1;
        });
        Flight { traffic: self.clone(), finished: false }
    }

    pub(super) fn requests(&self) -> MutexGuard<'_, VecDeque<RecordedRequest>> {
        self.requests.lock().expect("not poisoned")
    }

    pub(super) fn counters(&self) -> watch::Receiver<Counters> {
        self.counters.subscribe()
    }

    pub(super) fn reset(&self) {
        self.requests().clear();
        self.counters.send_modify(|counters| {
            *counters = Counters { in_flight: counters.in_flight, ..Counters::default() }
        });
    }
}

impl Flight {
    /// The response with the request in flight attached to its body.
    pub(super) fn carry(mut self, response: Response<Body>) -> Response<Body> {
        // hyper does not poll an empty body for a frame.
        self.finished = response.body().is_end_stream();
        response.map(|body| FlyingBody { body, flight: self }.boxed())
    }

    /// Finishes the request without a response, by the member's own decision.
    pub(super) fn abort(mut self) {
        self.finished = true;
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.traffic.counters.send_modify(|counters| {
            counters.in_flight -= 1;
            counters.cancelled += usize::from(!self.finished);
        });
    }
}

impl hyper::body::Body for FlyingBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        // hyper need not poll again when the body reports its end.
        self.flight.finished = self.body.is_end_stream() || !matches!(frame, Some(Ok(_)));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
