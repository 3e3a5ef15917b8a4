//! Serves one connection: handles its requests, and closes it if the client is too slow.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use super::connection_limit::{ActiveRequest, ConnectionSlot, Phase, PhaseLimits};
use super::response_body::ResponseBody;
use crate::access::certificate::ClientChain;
use crate::config;

/// Maximum size of a request's head, in bytes. Go servers accept 1 MiB; kube-apiserver sends a few KiB.
const MAX_HEAD_BYTES: u32 = 64 * 1024;
/// Maximum number of headers of an HTTP/1.1 request. The front proxy sends one header for each group of a user.
const MAX_HEADERS: usize = 1024;
/// HTTP/2: initial flow-control window of a stream, in bytes. Request bodies are never read.
const STREAM_WINDOW: u32 = 16 * 1024;
/// HTTP/2: initial flow-control window of a connection, in bytes. This is the minimum of the protocol.
const CONNECTION_WINDOW: u32 = 65_535;
/// HTTP/2: limit of streams that the client has reset before the server accepted them, as a multiple of the maximum number of
/// concurrent streams. If a client exceeds the limit, its connection is closed (CVE-2023-44487). Go's server queues the same
/// multiple of requests for its handlers. The default of h2 (20 streams) is too low: a few clients of kube-apiserver that
/// disconnect at the same time exceed it, and closing the connection affects all clients.
const PENDING_RESETS_FACTOR: usize = 4;
/// HTTP/2: maximum size of the send buffer of one response, in bytes.
const SEND_BUFFER: usize = 64 * 1024;
/// HTTP/2: a ping is sent after this time without a frame from the client.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// HTTP/2: the connection is closed if the client does not respond to a ping for this long.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long an idle connection stays open after graceful shutdown was signalled.
const GRACE: Duration = Duration::from_secs(1);

/// Timeouts and limits of a connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionTimeouts {
    /// Timeout of a TLS handshake, of a request's head, and of each write to the client.
    pub client: Duration,
    pub idle: Duration,
    /// Timeout from a request's head to the last byte of its response.
    pub request: Duration,
    /// Maximum number of concurrent requests on one HTTP/2 connection.
    pub streams: u32,
}

/// HTTP version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientProtocol {
    Http1,
    Http2,
}

/// An accepted connection: protocol, client certificate and slot.
pub(super) struct ClientConnection {
    pub(super) protocol: ClientProtocol,
    pub(super) client_chain: Option<Arc<ClientChain>>,
    pub(super) slot: ConnectionSlot,
}

impl ConnectionTimeouts {
    /// The timeouts and limits from the configuration. `request` is `--request-timeout` plus the client timeout.
    pub fn new(config: &config::Serving) -> Self {
        let config::RequestLimits { client_timeout, idle_timeout, streams, .. } = config.limits;
        let request = config.request_timeout.saturating_add(client_timeout);
        Self { client: client_timeout, idle: idle_timeout, request, streams }
    }
}

/// Serves requests until the client closes the connection, a limit is exceeded, or `closing` is cancelled.
pub(super) async fn serve_connection<S>(
    stream: S,
    client: ClientConnection,
    router: Router,
    timeouts: ConnectionTimeouts,
    closing: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let ClientConnection { protocol, client_chain, slot } = client;
    let slot = Arc::new(slot);
    let request_slot = slot.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let active = request_slot.begin_request();
        // No handler needs a request body, so the body is not read.
        let mut request = request.map(|_| Body::empty());
        if let Some(chain) = &client_chain {
            request.extensions_mut().insert(chain.clone());
        }
        handle(router.clone(), request, active)
    });
    let read_slot = (protocol == ClientProtocol::Http1).then(|| slot.clone());
    let stream = TokioIo::new(WriteTimeout { stream, read_slot, limit: timeouts.client, timer: None });
    let limits = PhaseLimits { idle: timeouts.idle, head: timeouts.client, busy: Some(timeouts.request) };
    match protocol {
        ClientProtocol::Http1 => {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                // `drive` has separate limits for a request's head and for the time between requests.
                .header_read_timeout(None)
                .max_headers(MAX_HEADERS)
                .max_header_size(MAX_HEAD_BYTES as usize)
                .max_buf_size(2 * MAX_HEAD_BYTES as usize)
                .serve_connection(stream, service);
            drive(connection, http1::Connection::graceful_shutdown, &slot, limits, closing).await;
        }
        ClientProtocol::Http2 => {
            let connection = http2::Builder::new(StreamExecutor { limit: timeouts.request })
                .timer(TokioTimer::new())
                .keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_TIMEOUT)
                .max_concurrent_streams(timeouts.streams)
                .max_pending_accept_reset_streams(PENDING_RESETS_FACTOR * timeouts.streams as usize)
                .max_header_list_size(MAX_HEAD_BYTES)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_send_buf_size(SEND_BUFFER)
                .serve_connection(stream, service);
            // Requests of many users share a connection of kube-apiserver, so `StreamExecutor` limits each request separately.
            let limits = PhaseLimits { busy: None, ..limits };
            drive(connection, http2::Connection::graceful_shutdown, &slot, limits, closing).await;
        }
    }
}

async fn handle(
    mut router: Router,
    request: Request<Body>,
    active: ActiveRequest,
) -> Result<Response<ResponseBody<ActiveRequest>>, Infallible> {
    let response = router.call(request).await?;
    Ok(response.map(|body| ResponseBody::new(body, active)))
}

/// Runs a connection until it ends. Graceful shutdown starts when `closing` is cancelled, when the connection is evicted, or
/// when its idle limit expires. After that the connection is closed if it is idle for [`GRACE`]. It is closed at once when a
/// request or a request's head exceeds its limit.
async fn drive<C>(
    connection: C,
    shut_down: fn(Pin<&mut C>),
    slot: &ConnectionSlot,
    mut limits: PhaseLimits,
    closing: CancellationToken,
) where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = pin!(connection);
    let mut shutting_down = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::trace!(%error, "connection ended with an error");
                }
                return;
            }
            () = closing.cancelled(), if !shutting_down => {}
            () = slot.evicted(), if !shutting_down => {}
            phase = slot.expired(limits) => {
                if shutting_down || phase != Phase::Idle {
                    tracing::debug!(?phase, "connection exceeded its time limit and is closed");
                    return;
                }
            }
        }
        shut_down(connection.as_mut());
        shutting_down = true;
        (limits.idle, limits.head) = (GRACE, GRACE);
        slot.set_idle();
    }
}

/// Runs the requests of an HTTP/2 connection, each with a timeout. If a request exceeds it, only its stream is reset.
#[derive(Clone)]
struct StreamExecutor {
    limit: Duration,
}

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let limit = self.limit;
        tokio::spawn(async move {
            if timeout(limit, stream).await.is_err() {
                tracing::debug!("response was not sent in time; its stream is reset");
            }
        });
    }
}

/// A stream that fails with `TimedOut` if a write makes no progress for `limit`.
struct WriteTimeout<S> {
    stream: S,
    /// HTTP/1.1: the slot that is notified of received bytes, since they may begin a request's head.
    read_slot: Option<Arc<ConnectionSlot>>,
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> WriteTimeout<S> {
    fn check_progress<T>(
        &mut self,
        context: &mut Context<'_>,
        progress: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            self.timer = None;
            return progress;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(self.limit)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before
            && let Some(slot) = &self.read_slot
        {
            slot.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.check_progress(context, progress)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.check_progress(context, progress)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.stream).poll_flush(context);
        self.check_progress(context, progress)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.stream).poll_shutdown(context);
        self.check_progress(context, progress)
    }
}
