//! Connections to one member, few and shared: one with HTTP/2, and with HTTP/1.1 as many as requests are in flight,
//! up to a bound.
//!
//! The protocol is settled by the first connection while all others wait for it: a client that negotiates for each
//! request by itself opens dozens under a burst. hyper-util's pooled client does not tell whether a request waited
//! for a connection or for an answer, nor whether a connection was used before; both are needed here.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::failure::{Failure, root_cause};
use super::route::Dialer;

/// How many requests one HTTP/2 connection carries at a time; Go's servers allow 250 streams.
const STREAMS: usize = 200;
const NEVER_CLOSED: &str = "the pool never closes its semaphores";
/// How long an idle HTTP/1.1 connection is used again; Go's servers close theirs after 90 s to 3 min.
const IDLE: Duration = Duration::from_secs(75);

/// The connections to one member.
pub(super) struct Pool {
    line: Arc<Line>,
    /// The attempt to settle the protocol that is under way, shared by all who wait for it.
    settling: Mutex<Option<Settling>>,
    streams: Semaphore,
    connections: Semaphore,
}

/// Goes on when those who wait for it leave, so that a slow member is settled for the next.
type Settling = Shared<BoxFuture<'static, Result<(), String>>>;

/// What it takes to make connections, and those that were made.
struct Line {
    dialer: Dialer,
    ping: Ping,
    state: Mutex<State>,
}

/// HTTP/2 pings, sent only while streams are open: a dead connection fails its streams, a slow API does not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ping {
    /// After how long without a frame one is sent.
    pub(super) after: Duration,
    /// How long its answer may take.
    pub(super) timeout: Duration,
}

/// A connection for one request.
pub(super) struct Lease<'a> {
    sender: Sender,
    /// Whether it carried a request before, so that it may have died since.
    pub(super) reused: bool,
    line: &'a Line,
    _permit: SemaphorePermit<'a>,
}

enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

enum State {
    /// No connection has been made, or the last one ended.
    Unsettled,
    Http2(http2::SendRequest<Empty<Bytes>>),
    /// The idle connections and since when they are.
    Http1(Vec<(Instant, http1::SendRequest<Empty<Bytes>>)>),
}

impl Pool {
    /// A pool without connections; at most `connections` are made with HTTP/1.1.
    pub(super) fn new(dialer: Dialer, connections: usize, ping: Ping) -> Self {
        Self {
            line: Arc::new(Line { dialer, ping, state: Mutex::new(State::Unsettled) }),
            settling: Mutex::new(None),
            streams: Semaphore::new(STREAMS),
            connections: Semaphore::new(connections),
        }
    }

    /// A connection for one request. `fresh` passes by those that were used before.
    pub(super) async fn lease(&self, fresh: bool) -> Result<Lease<'_>, Failure> {
        if !self.is_settled() {
            self.settle().await?;
        }
        if let Some(sender) = self.line.http2() {
            let permit = self.streams.acquire().await.expect(NEVER_CLOSED);
            return Ok(Lease {
                sender: Sender::Http2(sender),
                reused: true,
                line: &self.line,
                _permit: permit,
            });
        }
        let permit = self.connections.acquire().await.expect(NEVER_CLOSED);
        while !fresh && let Some(mut sender) = self.line.take_idle() {
            if sender.ready().await.is_ok() {
                let sender = Sender::Http1(sender);
                return Ok(Lease { sender, reused: true, line: &self.line, _permit: permit });
            }
        }
        let sender = self.line.connect().await?;
        Ok(Lease { sender, reused: false, line: &self.line, _permit: permit })
    }

    /// Whether the protocol is known and a connection of HTTP/2, if it is that, still there.
    pub(super) fn is_settled(&self) -> bool {
        self.line.is_settled()
    }

    /// Whether HTTP/1.1 is spoken, on which a connection does not tell whether the other end is alive.
    pub(super) fn speaks_http1(&self) -> bool {
        matches!(*self.line.state(), State::Http1(_))
    }

    /// Asks on a connection of its own, beside the bounds, to find out whether anybody answers.
    pub(super) async fn probe(&self, request: Request<Empty<Bytes>>) -> Result<Response<Incoming>, Failure> {
        let mut sender = self.line.make().await?;
        sender.send(request).await.map_err(|error| Failure::lost(&error))
    }

    /// Makes the first connection; who comes meanwhile waits and shares what comes of it.
    async fn settle(&self) -> Result<(), Failure> {
        let settling = {
            let mut current = self.settling.lock().expect("no holder panics");
            let ended = |settling: &Settling| settling.peek().is_some();
            match current.take().filter(|settling| !ended(settling)) {
                Some(settling) => current.insert(settling).clone(),
                None => current.insert(self.line.clone().settle()).clone(),
            }
        };
        settling.await.map_err(Failure::Connect)
    }
}

impl Line {
    fn settle(self: Arc<Self>) -> Settling {
        let task = tokio::spawn(async move {
            match self.connect().await {
                Ok(Sender::Http1(sender)) => self.put_idle(sender),
                Ok(Sender::Http2(_)) => {}
                Err(Failure::Connect(cause)) => return Err(cause),
                Err(failure) => return Err(failure.to_string()),
            }
            Ok(())
        });
        async move { task.await.unwrap_or_else(|_| Err("the attempt was given up".to_owned())) }
            .boxed()
            .shared()
    }

    /// A new connection. One of HTTP/2 is there for all at once, one of HTTP/1.1 when its first request has ended.
    async fn connect(&self) -> Result<Sender, Failure> {
        let made = self.make().await;
        let mut state = self.state();
        match (&made, &*state) {
            (Ok(Sender::Http2(sender)), _) => *state = State::Http2(sender.clone()),
            (Ok(Sender::Http1(_)), State::Http1(_)) => {}
            (Ok(Sender::Http1(_)), _) => *state = State::Http1(Vec::new()),
            // One that fails beside others that are there says nothing of those.
            (Err(_), State::Http1(idle)) if !idle.is_empty() => {}
            (Err(_), _) => *state = State::Unsettled,
        }
        drop(state);
        made
    }

    async fn make(&self) -> Result<Sender, Failure> {
        let dialled = self.dialer.dial().await;
        let (stream, http2) = dialled.map_err(|error| Failure::Connect(root_cause(error.as_ref())))?;
        if http2 {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(self.ping.after)
                .keep_alive_timeout(self.ping.timeout)
                .keep_alive_while_idle(false)
                .adaptive_window(true)
                .handshake(stream)
                .await
                .map_err(|error| Failure::Connect(root_cause(&error)))?;
            tokio::spawn(connection);
            return Ok(Sender::Http2(sender));
        }
        let handshake = http1::handshake(stream).await;
        let (sender, connection) = handshake.map_err(|error| Failure::Connect(root_cause(&error)))?;
        tokio::spawn(connection);
        Ok(Sender::Http1(sender))
    }

    fn is_settled(&self) -> bool {
        match &*self.state() {
            State::Unsettled => false,
            State::Http2(sender) => !sender.is_closed(),
            State::Http1(_) => true,
        }
    }

    fn http2(&self) -> Option<http2::SendRequest<Empty<Bytes>>> {
        if let State::Http2(sender) = &*self.state() { Some(sender.clone()) } else { None }
    }

    fn take_idle(&self) -> Option<http1::SendRequest<Empty<Bytes>>> {
        let State::Http1(idle) = &mut *self.state() else { return None };
        idle.retain(|(since, sender)| since.elapsed() < IDLE && !sender.is_closed());
        idle.pop().map(|(_, sender)| sender)
    }

    fn put_idle(&self, sender: http1::SendRequest<Empty<Bytes>>) {
        if let State::Http1(idle) = &mut *self.state() {
            idle.push((Instant::now(), sender));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

impl Lease<'_> {
    /// Sends the request, whose URI is absolute, on this connection.
    pub(super) async fn send(&mut self, request: Request<Empty<Bytes>>) -> hyper::Result<Response<Incoming>> {
        self.sender.send(request).await
    }

    /// Gives the connection back after a whole answer; one that is merely dropped is closed.
    pub(super) fn done(self) {
        if let Sender::Http1(sender) = self.sender {
            self.line.put_idle(sender);
        }
    }
}

impl Sender {
    /// HTTP/2 wants the absolute URI, HTTP/1.1 the path and the host apart.
    async fn send(&mut self, mut request: Request<Empty<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http2(sender) => sender.send_request(request).await,
            Self::Http1(sender) => {
                let uri = std::mem::take(request.uri_mut()).into_parts();
                if let Some(host) = uri.authority.and_then(|host| HeaderValue::from_str(host.as_str()).ok()) {
                    request.headers_mut().insert(HOST, host);
                }
                *request.uri_mut() = uri.path_and_query.map(Uri::from).unwrap_or_default();
                sender.send_request(request).await
            }
        }
    }
}
