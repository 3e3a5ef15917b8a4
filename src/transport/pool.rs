//! Connections to one API server: one shared HTTP/2 connection, or with HTTP/1.1 one connection for each request in flight, up
//! to a limit.
//!
//! The first connection negotiates the protocol, and all requests wait for it. A client that negotiates separately for each
//! request opens dozens of connections under a burst. hyper-util's pooled client does not report whether a request waited for a
//! connection or for a response, and not whether a connection was used before. This pool needs both.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Either, Shared};
use http::header::HOST;
use http::response::Parts;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::task::JoinHandle;

use super::Liveness;
use super::dial::{Dialer, HandshakePermit};
use super::error::SendError;
use super::http1_connections::{Http1Connections, OpenConnection};
use super::progress::{Progress, Stage};
use super::request_slots::{PendingRetries, PendingRetry, RequestSlots};
use super::timer::GraceTimer;
use crate::api::text::root_cause;
use crate::process::work::result_of;

/// Maximum concurrent requests on one HTTP/2 connection. Go's servers allow 250 streams.
const MAX_STREAMS: usize = 200;
/// HTTP/2: how many bytes of one response a server may send before they are read. 1 MiB in each round trip is 20 MB/s at 50 ms,
/// more than distant members send. Adaptive windows start at 64 KiB, and then h2's limit for small frames also starts there.
const STREAM_WINDOW: u32 = 1 << 20;
/// HTTP/2: the same limit for all responses of a connection together. A member can have at most this many bytes buffered here.
/// If a server flushes after each item, h2 allows half of the window for the overhead of the frames.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Maximum bytes of a response's headers. Go's client accepts 10 MiB; proxies send up to 128 KiB.
const MAX_HEADER_BYTES: usize = 256 << 10;
/// HTTP/1.1: maximum number of headers of a response. Some proxies add more than hyper's default of 100.
const MAX_HEADERS: usize = 1000;
/// HTTP/2: late frames are ignored for at most this many cancelled requests. Late frames of other cancelled requests count as
/// server errors, and h2 accepts 1024 of them in the life of a connection.
const MAX_RESET_STREAMS: usize = 1000;
/// After this time, an idle HTTP/1.1 connection is not used again. Go's servers close idle connections after 90 s to 3 min.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Minimum time between two HTTP/2 connections to a server that closes them.
const MIN_RECONNECT_INTERVAL: Duration = Duration::from_millis(100);

/// The connections to one API server.
pub(super) struct Pool {
    connector: Arc<Connector>,
    /// The running attempt to negotiate the protocol. All waiting requests share it.
    negotiation: Mutex<Option<ProtocolNegotiation>>,
    streams: RequestSlots,
    connections: RequestSlots,
    /// For each share, the requests that are about to be sent again.
    retries: Vec<Arc<PendingRetries>>,
}

/// An attempt to negotiate the protocol. It continues when the waiting requests are cancelled, so that the next request can use
/// the connection to a slow server.
#[derive(Clone)]
struct ProtocolNegotiation {
    /// Resolves when the attempt has the permit to begin its handshake.
    begun: Shared<oneshot::Receiver<()>>,
    result: Shared<BoxFuture<'static, Result<(), SendError>>>,
}

/// Opens connections and keeps them.
struct Connector {
    dialer: Dialer,
    liveness: Liveness,
    state: Mutex<ConnectorState>,
    http1: Arc<Http1Connections>,
}

struct ConnectorState {
    protocol: PoolProtocol,
    /// When the last HTTP/2 connection was opened.
    last_http2: Option<Instant>,
}

enum PoolProtocol {
    /// No connection was opened yet, or the last connection was closed.
    NotNegotiated,
    Http2(Arc<Http2>),
    /// The idle connections, each with the time when it became idle.
    Http1(Vec<(Instant, Http1)>),
}

type Http2 = http2::SendRequest<Full<Bytes>>;

struct Http1 {
    sender: http1::SendRequest<Full<Bytes>>,
    is_used: bool,
    _open: Option<OpenConnection>,
}

/// A connection for one request, and its slot.
pub(super) struct Lease {
    connection: LeasedConnection,
    connector: Arc<Connector>,
    _slot: OwnedSemaphorePermit,
}

enum LeasedConnection {
    Http1(Http1),
    Http2(Arc<Http2>),
}

impl Pool {
    /// Creates a pool without connections. `connections` is the limit for HTTP/1.1; each share has at least one connection.
    pub(super) fn new(dialer: Dialer, connections: usize, shares: usize, liveness: Liveness) -> Self {
        let state = ConnectorState { protocol: PoolProtocol::NotNegotiated, last_http2: None };
        // Each share has a slot.
        let limit = connections.max(shares);
        let http1 = Http1Connections::new(limit);
        Self {
            connector: Arc::new(Connector { dialer, liveness, state: Mutex::new(state), http1 }),
            negotiation: Mutex::new(None),
            streams: RequestSlots::new(MAX_STREAMS, shares),
            connections: RequestSlots::new(limit, shares),
            retries: (0..shares).map(|_| Arc::default()).collect(),
        }
    }

    /// Gives the retry of a request priority in its share until the returned guard is dropped.
    pub(super) fn prioritize_retry(&self, share: usize) -> PendingRetry {
        self.retries[share].add()
    }

    /// Leases a connection for one request of a share. A retry does not use an idle HTTP/1.1 connection, because the server may
    /// have closed all of them.
    pub(super) async fn lease(
        &self,
        share: usize,
        retry: Option<&PendingRetry>,
        progress: &Progress,
    ) -> Result<Lease, SendError> {
        if retry.is_some() {
            self.connector.drop_idle();
        }
        loop {
            if !self.connector.is_negotiated() {
                self.negotiate(progress).await?;
            }
            progress.set(Stage::Waiting);
            if retry.is_none() {
                self.retries[share].wait_until_none().await;
            }
            let is_http1 = self.speaks_http1();
            let slot = if is_http1 { &self.connections } else { &self.streams }.take(share).await;
            // The connection may have been closed in the meantime.
            let connection = if is_http1 {
                self.connector.http1(progress).await?.map(LeasedConnection::Http1)
            } else {
                self.connector.http2().map(LeasedConnection::Http2)
            };
            if let Some(connection) = connection {
                return Ok(Lease { connection, connector: self.connector.clone(), _slot: slot });
            }
        }
    }

    /// Whether the connections use HTTP/1.1, which cannot detect a dead peer.
    pub(super) fn speaks_http1(&self) -> bool {
        self.connector.speaks_http1()
    }

    /// Waits for the permit to begin a handshake on a separate connection.
    pub(super) async fn handshake_permit(&self) -> Option<HandshakePermit<'_>> {
        self.connector.dialer.handshake_permit().await
    }

    /// Sends a request on a separate connection and returns the head of the response. The limits for connections and requests
    /// do not apply.
    pub(super) async fn head(
        &self,
        permit: Option<HandshakePermit<'_>>,
        request: Request<Full<Bytes>>,
    ) -> Result<Parts, SendError> {
        let mut connection = self.connector.make(permit, None).await?;
        let max_silence = self.connector.liveness.max_silence();
        let response = connection.send(request).await.map_err(|error| SendError::of(&error, max_silence))?;
        Ok(response.into_parts().0)
    }

    /// Opens the first connection. Requests that come in the meantime wait for the same attempt and share its result.
    async fn negotiate(&self, progress: &Progress) -> Result<(), SendError> {
        let ProtocolNegotiation { begun, result } = {
            let mut current = self.negotiation.lock().expect("not poisoned");
            match current.take().filter(|running| result_of(&running.result).is_none()) {
                Some(running) => current.insert(running).clone(),
                None => current.insert(self.connector.clone().start_negotiation()).clone(),
            }
        };
        progress.set(Stage::Waiting);
        let _ = begun.await;
        progress.set(Stage::Connecting);
        result.await
    }
}

impl Connector {
    fn start_negotiation(self: Arc<Self>) -> ProtocolNegotiation {
        let (begin, begun) = oneshot::channel();
        let task = tokio::spawn(async move {
            let last_http2 = self.state().last_http2;
            let pause = |last: Instant| MIN_RECONNECT_INTERVAL.saturating_sub(last.elapsed());
            tokio::time::sleep(last_http2.map_or(Duration::ZERO, pause)).await;
            let open = Http1Connections::try_reserve(&self.http1);
            let permit = self.dialer.handshake_permit().await;
            let _ = begin.send(());
            self.connect(permit, open).await
        });
        let result = async move { task.await.unwrap_or_else(|_| Err(cancelled())) };
        ProtocolNegotiation { begun: begun.shared(), result: result.boxed().shared() }
    }

    /// An idle or a new HTTP/1.1 connection. `None` means that the server uses another protocol now. While a new connection is
    /// being opened, the request takes another connection if one becomes idle. If no connection can be opened while others are
    /// busy, the request waits for those and tries again to connect: the failure does not mean that the busy connections fail.
    async fn http1(self: &Arc<Self>, progress: &Progress) -> Result<Option<Http1>, SendError> {
        let mut connecting: Option<JoinHandle<Result<(), SendError>>> = None;
        loop {
            while let Some(mut idle) = self.take_idle() {
                if idle.sender.ready().await.is_ok() {
                    return Ok(Some(idle));
                }
            }
            if !self.speaks_http1() {
                return Ok(None);
            }
            if connecting.is_none() {
                connecting = Http1Connections::try_reserve(&self.http1).map(|open| {
                    let connector = self.clone();
                    tokio::spawn(async move {
                        let permit = connector.dialer.handshake_permit().await;
                        connector.connect(permit, Some(open)).await
                    })
                });
            }
            let Some(attempt) = &mut connecting else {
                progress.set(Stage::Waiting);
                self.http1.freed_or_timeout().await;
                continue;
            };
            progress.set(Stage::Connecting);
            let made = tokio::select! {
                biased;
                () = self.http1.freed() => continue,
                made = attempt => made,
            };
            connecting = None;
            if let Err(error) = made.unwrap_or_else(|_| Err(cancelled())) {
                if self.http1.open_count() == 0 {
                    return Err(error);
                }
                progress.set(Stage::Waiting);
                self.http1.freed_or_timeout().await;
            }
        }
    }

    /// Opens a connection. All requests share an HTTP/2 connection at once. An HTTP/1.1 connection becomes idle.
    async fn connect(
        &self,
        permit: Option<HandshakePermit<'_>>,
        open: Option<OpenConnection>,
    ) -> Result<(), SendError> {
        let made = self.make(permit, open).await;
        let mut state = self.state();
        match made {
            Ok(LeasedConnection::Http2(connection)) => {
                *state = ConnectorState {
                    protocol: PoolProtocol::Http2(connection),
                    last_http2: Some(Instant::now()),
                };
            }
            Ok(LeasedConnection::Http1(connection)) => {
                if !matches!(state.protocol, PoolProtocol::Http1(_)) {
                    state.protocol = PoolProtocol::Http1(Vec::new());
                }
                drop(state);
                self.put_idle(connection);
            }
            Err(error) => {
                if self.http1.open_count() == 0 && matches!(state.protocol, PoolProtocol::Http1(_)) {
                    state.protocol = PoolProtocol::NotNegotiated;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    async fn make(
        &self,
        permit: Option<HandshakePermit<'_>>,
        open: Option<OpenConnection>,
    ) -> Result<LeasedConnection, SendError> {
        let (stream, is_http2) = self.dialer.dial(permit).await?;
        let failed = |error: hyper::Error| SendError::Lost(root_cause(&error));
        if is_http2 {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(GraceTimer)
                .keep_alive_interval(self.liveness.ping.0)
                .keep_alive_timeout(self.liveness.ping.1)
                .keep_alive_while_idle(false)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_header_list_size(MAX_HEADER_BYTES as u32)
                .max_concurrent_reset_streams(MAX_RESET_STREAMS)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(failed)?;
            tokio::spawn(connection);
            return Ok(LeasedConnection::Http2(Arc::new(sender)));
        }
        let (sender, connection) = http1::Builder::new()
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEADER_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(failed)?;
        tokio::spawn(connection);
        Ok(LeasedConnection::Http1(Http1 { sender, is_used: false, _open: open }))
    }

    fn is_negotiated(&self) -> bool {
        match &self.state().protocol {
            PoolProtocol::NotNegotiated => false,
            PoolProtocol::Http2(connection) => !connection.is_closed(),
            PoolProtocol::Http1(_) => true,
        }
    }

    fn speaks_http1(&self) -> bool {
        matches!(self.state().protocol, PoolProtocol::Http1(_))
    }

    fn http2(&self) -> Option<Arc<Http2>> {
        match &self.state().protocol {
            PoolProtocol::Http2(connection) if !connection.is_closed() => Some(connection.clone()),
            _ => None,
        }
    }

    /// Uses an HTTP/2 connection for no further requests. Requests in flight complete on it.
    fn retire(&self, connection: &Arc<Http2>) {
        let mut state = self.state();
        if matches!(&state.protocol, PoolProtocol::Http2(current) if Arc::ptr_eq(current, connection)) {
            state.protocol = PoolProtocol::NotNegotiated;
        }
    }

    fn take_idle(&self) -> Option<Http1> {
        let PoolProtocol::Http1(idle) = &mut self.state().protocol else { return None };
        idle.retain(|(since, connection)| since.elapsed() < IDLE_TIMEOUT && !connection.sender.is_closed());
        idle.pop().map(|(_, connection)| connection)
    }

    fn put_idle(&self, connection: Http1) {
        if let PoolProtocol::Http1(idle) = &mut self.state().protocol {
            idle.push((Instant::now(), connection));
        }
        self.http1.note_idle();
    }

    fn drop_idle(&self) {
        if let PoolProtocol::Http1(idle) = &mut self.state().protocol {
            idle.clear();
        }
    }

    fn state(&self) -> MutexGuard<'_, ConnectorState> {
        self.state.lock().expect("not poisoned")
    }
}

impl Lease {
    /// Sends the request on this connection. The URI of the request must be absolute. Sending starts at once, before the
    /// returned future is polled.
    pub(super) fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> + use<> {
        self.connection.send(request)
    }

    /// Whether the connection was used before. Such a connection may be dead.
    pub(super) fn is_reused(&self) -> bool {
        match &self.connection {
            LeasedConnection::Http1(connection) => connection.is_used,
            LeasedConnection::Http2(_) => true,
        }
    }

    /// Returns the connection to the pool after a complete response. Dropping the lease instead closes an HTTP/1.1 connection.
    pub(super) fn release(self) {
        if let LeasedConnection::Http1(connection) = self.connection {
            self.connector.put_idle(Http1 { is_used: true, ..connection });
        }
    }

    /// Uses the connection for no further requests.
    pub(super) fn retire(self) {
        if let LeasedConnection::Http2(connection) = &self.connection {
            self.connector.retire(connection);
        }
    }
}

impl LeasedConnection {
    /// HTTP/2 needs the absolute URI. HTTP/1.1 needs the path, and the host in a header.
    fn send(
        &mut self,
        mut request: Request<Full<Bytes>>,
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> + use<> {
        match self {
            Self::Http2(connection) => Either::Left(Http2::clone(connection).send_request(request)),
            Self::Http1(connection) => {
                let uri = std::mem::take(request.uri_mut()).into_parts();
                if let Some(host) = uri.authority.and_then(|host| HeaderValue::from_str(host.as_str()).ok()) {
                    request.headers_mut().insert(HOST, host);
                }
                *request.uri_mut() = uri.path_and_query.map(Uri::from).unwrap_or_default();
                Either::Right(connection.sender.send_request(request))
            }
        }
    }
}

fn cancelled() -> SendError {
    SendError::Lost("the attempt to connect was cancelled".to_owned())
}
