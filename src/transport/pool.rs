//! Connections to one API server, few and shared: one with HTTP/2, and with HTTP/1.1 as many as requests are in progress,
//! up to a bound.
//!
//! The protocol is settled by the first connection while all others wait for it: a client that negotiates for each
//! request by itself opens dozens under a burst. hyper-util's pooled client does not tell whether a request waited
//! for a connection or for a response, nor whether a connection was used before; both are needed here.

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
use super::request_slots::{RequestSlots, Resend, Resending};
use super::timer::GraceTimer;
use crate::api::text::root_cause;
use crate::process::work::result_of;

/// How many requests one HTTP/2 connection carries at a time; Go's servers allow 250 streams.
const STREAMS: usize = 200;
/// HTTP/2: how much of one response a server may send before it is read. 1 MiB in each round trip is 20 MB/s over 50 ms,
/// more than members far away send; windows that adapt begin at 64 KiB, and so does what h2 allows in small frames.
const STREAM_WINDOW: u32 = 1 << 20;
/// HTTP/2: the same for all responses of a connection. It is the most that a member can have buffered here, and h2 allows a
/// server that flushes after each item half of it in frames' overhead.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Most bytes of a response's headers: Go's client takes 10 MiB, proxies send up to 128 KiB.
const HEADERS: usize = 256 << 10;
/// HTTP/1.1: most headers of a response. hyper's 100 are fewer than some proxies add.
const HEADER_COUNT: usize = 1000;
/// HTTP/2: of how many cancelled requests the late frames are ignored. Frames of others count as errors of the server, of
/// which h2 takes 1024 in a connection's life.
const CANCELLED: usize = 1000;
/// How long an idle HTTP/1.1 connection is used again; Go's servers close theirs after 90 s to 3 min.
const IDLE: Duration = Duration::from_secs(75);
/// The shortest time between two HTTP/2 connections to a server that closes them.
const PACE: Duration = Duration::from_millis(100);

/// The connections to one API server.
pub(super) struct Pool {
    line: Arc<Connector>,
    /// The attempt to settle the protocol that is in progress, shared by all who wait for it.
    settling: Mutex<Option<ProtocolNegotiation>>,
    streams: RequestSlots,
    connections: RequestSlots,
    /// By share: the requests that are about to be sent again.
    resending: Vec<Arc<Resending>>,
}

/// Goes on when those who wait for it leave, so that a slow server is settled for the next.
#[derive(Clone)]
struct ProtocolNegotiation {
    /// It is its turn to shake hands.
    begun: Shared<oneshot::Receiver<()>>,
    ended: Shared<BoxFuture<'static, Result<(), SendError>>>,
}

/// What it takes to make connections, and those that were made.
struct Connector {
    dialer: Dialer,
    liveness: Liveness,
    state: Mutex<ConnectorState>,
    http1: Arc<Http1Connections>,
}

struct ConnectorState {
    protocol: PoolProtocol,
    /// When the last HTTP/2 connection was made.
    made: Option<Instant>,
}

enum PoolProtocol {
    /// No connection has been made, or the last one ended.
    Unsettled,
    Http2(Arc<Http2>),
    /// The idle connections and since when they are.
    Http1(Vec<(Instant, Http1)>),
}

type Http2 = http2::SendRequest<Full<Bytes>>;

struct Http1 {
    sender: http1::SendRequest<Full<Bytes>>,
    is_used: bool,
    _counted: Option<OpenConnection>,
}

/// A connection for one request, and the right to use it.
pub(super) struct Lease {
    connection: LeasedConnection,
    line: Arc<Connector>,
    _place: OwnedSemaphorePermit,
}

enum LeasedConnection {
    Http1(Http1),
    Http2(Arc<Http2>),
}

impl Pool {
    /// A pool without connections; at most `connections` are made with HTTP/1.1, and one for each share at least.
    pub(super) fn new(dialer: Dialer, connections: usize, shares: usize, liveness: Liveness) -> Self {
        let state = ConnectorState { protocol: PoolProtocol::Unsettled, made: None };
        // Each share has a place.
        let most = connections.max(shares);
        let http1 = Http1Connections::new(most);
        Self {
            line: Arc::new(Connector { dialer, liveness, state: Mutex::new(state), http1 }),
            settling: Mutex::new(None),
            streams: RequestSlots::new(STREAMS, shares),
            connections: RequestSlots::new(most, shares),
            resending: (0..shares).map(|_| Arc::default()).collect(),
        }
    }

    /// Lets a request of a share go before others until what is returned is dropped.
    pub(super) fn resend(&self, share: usize) -> Resend {
        self.resending[share].begin()
    }

    /// A connection for one request of a share. One that is sent again takes no idle HTTP/1.1 connection: the server may have
    /// closed them all.
    pub(super) async fn lease(
        &self,
        share: usize,
        resend: Option<&Resend>,
        progress: &Progress,
    ) -> Result<Lease, SendError> {
        if resend.is_some() {
            self.line.drop_idle();
        }
        loop {
            if !self.line.is_negotiated() {
                self.negotiate(progress).await?;
            }
            progress.set(Stage::Waiting);
            if resend.is_none() {
                self.resending[share].ended().await;
            }
            let is_http1 = self.speaks_http1();
            let place = if is_http1 { &self.connections } else { &self.streams }.take(share).await;
            // It may have ended meanwhile.
            let connection = if is_http1 {
                self.line.http1(progress).await?.map(LeasedConnection::Http1)
            } else {
                self.line.http2().map(LeasedConnection::Http2)
            };
            if let Some(connection) = connection {
                return Ok(Lease { connection, line: self.line.clone(), _place: place });
            }
        }
    }

    /// Whether HTTP/1.1 is spoken, on which a connection does not tell whether the other end is alive.
    pub(super) fn speaks_http1(&self) -> bool {
        self.line.speaks_http1()
    }

    /// The right to shake hands for a connection of its own.
    pub(super) async fn turn(&self) -> Option<HandshakePermit<'_>> {
        self.line.dialer.turn().await
    }

    /// The head of the response to a request on a connection of its own, beside the bounds.
    pub(super) async fn head(
        &self,
        turn: Option<HandshakePermit<'_>>,
        request: Request<Full<Bytes>>,
    ) -> Result<Parts, SendError> {
        let mut connection = self.line.make(turn, None).await?;
        let silence = self.line.liveness.silence();
        let response = connection.send(request).await.map_err(|error| SendError::of(&error, silence))?;
        Ok(response.into_parts().0)
    }

    /// Makes the first connection; whoever comes meanwhile waits and shares what comes of it.
    async fn negotiate(&self, progress: &Progress) -> Result<(), SendError> {
        let ProtocolNegotiation { begun, ended } = {
            let mut current = self.settling.lock().expect("no holder panics");
            match current.take().filter(|settling| result_of(&settling.ended).is_none()) {
                Some(settling) => current.insert(settling).clone(),
                None => current.insert(self.line.clone().settle()).clone(),
            }
        };
        progress.set(Stage::Waiting);
        let _ = begun.await;
        progress.set(Stage::Connecting);
        ended.await
    }
}

impl Connector {
    fn settle(self: Arc<Self>) -> ProtocolNegotiation {
        let (begin, begun) = oneshot::channel();
        let task = tokio::spawn(async move {
            let made = self.state().made;
            tokio::time::sleep(made.map_or(Duration::ZERO, |made| PACE.saturating_sub(made.elapsed()))).await;
            let counted = Http1Connections::count(&self.http1);
            let turn = self.dialer.turn().await;
            let _ = begin.send(());
            self.connect(turn, counted).await
        });
        let ended = async move { task.await.unwrap_or_else(|_| Err(given_up())) };
        ProtocolNegotiation { begun: begun.shared(), ended: ended.boxed().shared() }
    }

    /// An HTTP/1.1 connection: an idle one, or a new one; `None` once another protocol is spoken. While one is made it takes
    /// another that becomes idle. If none can be made beside others that are busy it waits for those, since that says
    /// nothing about them, and tries again meanwhile.
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
                connecting = Http1Connections::count(&self.http1).map(|counted| {
                    let line = self.clone();
                    tokio::spawn(async move {
                        let turn = line.dialer.turn().await;
                        line.connect(turn, Some(counted)).await
                    })
                });
            }
            let Some(making) = &mut connecting else {
                progress.set(Stage::Waiting);
                self.http1.change().await;
                continue;
            };
            progress.set(Stage::Connecting);
            let made = tokio::select! {
                biased;
                () = self.http1.freed() => continue,
                made = making => made,
            };
            connecting = None;
            if let Err(error) = made.unwrap_or_else(|_| Err(given_up())) {
                if self.http1.open() == 0 {
                    return Err(error);
                }
                progress.set(Stage::Waiting);
                self.http1.change().await;
            }
        }
    }

    /// Makes a connection. One of HTTP/2 is there for all at once, one of HTTP/1.1 is idle.
    async fn connect(
        &self,
        turn: Option<HandshakePermit<'_>>,
        counted: Option<OpenConnection>,
    ) -> Result<(), SendError> {
        let made = self.make(turn, counted).await;
        let mut state = self.state();
        match made {
            Ok(LeasedConnection::Http2(connection)) => {
                *state =
                    ConnectorState { protocol: PoolProtocol::Http2(connection), made: Some(Instant::now()) };
            }
            Ok(LeasedConnection::Http1(connection)) => {
                if !matches!(state.protocol, PoolProtocol::Http1(_)) {
                    state.protocol = PoolProtocol::Http1(Vec::new());
                }
                drop(state);
                self.put_idle(connection);
            }
            Err(error) => {
                if self.http1.open() == 0 && matches!(state.protocol, PoolProtocol::Http1(_)) {
                    state.protocol = PoolProtocol::Unsettled;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    async fn make(
        &self,
        turn: Option<HandshakePermit<'_>>,
        counted: Option<OpenConnection>,
    ) -> Result<LeasedConnection, SendError> {
        let (stream, is_http2) = self.dialer.dial(turn).await?;
        let failed = |error: hyper::Error| SendError::Lost(root_cause(&error));
        if is_http2 {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(GraceTimer)
                .keep_alive_interval(self.liveness.ping.0)
                .keep_alive_timeout(self.liveness.ping.1)
                .keep_alive_while_idle(false)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_header_list_size(HEADERS as u32)
                .max_concurrent_reset_streams(CANCELLED)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(failed)?;
            tokio::spawn(connection);
            return Ok(LeasedConnection::Http2(Arc::new(sender)));
        }
        let (sender, connection) = http1::Builder::new()
            .max_headers(HEADER_COUNT)
            .max_buf_size(HEADERS)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(failed)?;
        tokio::spawn(connection);
        Ok(LeasedConnection::Http1(Http1 { sender, is_used: false, _counted: counted }))
    }

    fn is_negotiated(&self) -> bool {
        match &self.state().protocol {
            PoolProtocol::Unsettled => false,
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

    /// Gives an HTTP/2 connection to no more requests; those in progress end on it.
    fn retire(&self, connection: &Arc<Http2>) {
        let mut state = self.state();
        if matches!(&state.protocol, PoolProtocol::Http2(current) if Arc::ptr_eq(current, connection)) {
            state.protocol = PoolProtocol::Unsettled;
        }
    }

    fn take_idle(&self) -> Option<Http1> {
        let PoolProtocol::Http1(idle) = &mut self.state().protocol else { return None };
        idle.retain(|(since, connection)| since.elapsed() < IDLE && !connection.sender.is_closed());
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
        self.state.lock().expect("no holder panics")
    }
}

impl Lease {
    /// Sends the request, whose URI is absolute, on this connection: it is on its way before the response is waited for.
    pub(super) fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> + use<> {
        self.connection.send(request)
    }

    /// Whether it carried a request before, so that it may have died since.
    pub(super) fn is_reused(&self) -> bool {
        match &self.connection {
            LeasedConnection::Http1(connection) => connection.is_used,
            LeasedConnection::Http2(_) => true,
        }
    }

    /// Gives the connection back after a whole response; one that is merely dropped is closed.
    pub(super) fn done(self) {
        if let LeasedConnection::Http1(connection) = self.connection {
            self.line.put_idle(Http1 { is_used: true, ..connection });
        }
    }

    /// Lets no other request use the connection.
    pub(super) fn retire(self) {
        if let LeasedConnection::Http2(connection) = &self.connection {
            self.line.retire(connection);
        }
    }
}

impl LeasedConnection {
    /// HTTP/2 wants the absolute URI, HTTP/1.1 the path and the host apart.
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

fn given_up() -> SendError {
    SendError::Lost("the attempt to connect was given up".to_owned())
}
