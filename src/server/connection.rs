//! One connection, as long as it lasts: its requests are answered, and a client that takes its time is cut off.

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

use super::connection_limit::{ActiveRequest, ConnectionSlot, IdleLimits, Phase};
use super::response_body::ResponseBody;
use crate::access::certificate::ClientChain;
use crate::config;

/// Most bytes of a request's head. Go's servers take 1 MiB; what kube-apiserver sends has a few KiB.
const HEAD: u32 = 64 * 1024;
/// Most headers of a request over HTTP/1.1: the front proxy sends one for each group of a user.
const HEADERS: usize = 1024;
/// HTTP/2: how much of a request's body a client may send unasked. Nothing reads it.
const BODY: u32 = 16 * 1024;
/// HTTP/2: the same for all requests of a connection, as small as the protocol has it.
const BODIES: u32 = 65_535;
/// HTTP/2: how many times as many streams as there may be at a time a client may have reset before they are looked at, until its
/// connection is ended (CVE-2023-44487). Go's server has as many requests wait for their handlers. h2's own 20 are reached by
/// some clients of kube-apiserver that leave within the same moment, and the connection is everybody's.
const UNSEEN_RESETS: usize = 4;
/// Most bytes of one answer that wait for the socket.
const SENDING: usize = 64 * 1024;
/// HTTP/2: after how long without a frame a ping asks whether the client is there, and how long it may take to answer.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// How long a client may take to see that it is to leave.
const GRACE: Duration = Duration::from_secs(1);

/// How long clients may take.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionTimeouts {
    /// A handshake, a request's head, a pause in taking an answer.
    pub client: Duration,
    /// Without a request.
    pub idle: Duration,
    /// From a request's head to the last byte of its answer.
    pub request: Duration,
    /// Requests at a time on one HTTP/2 connection.
    pub streams: u32,
}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientProtocol {
    Http1,
    Http2,
}

/// Whose connection it is.
pub(super) struct ClientConnection {
    pub(super) protocol: ClientProtocol,
    pub(super) presented: Option<Arc<ClientChain>>,
    pub(super) place: ConnectionSlot,
}

impl ConnectionTimeouts {
    /// The limits that the configuration sets.
    pub fn new(config: &config::Serving) -> Self {
        let config::RequestLimits { client_timeout, idle_timeout, streams, .. } = config.pressure;
        let request = config.request_timeout.saturating_add(client_timeout);
        Self { client: client_timeout, idle: idle_timeout, request, streams }
    }
}

/// Answers a connection's requests until the client or `closing` ends it, or a limit does.
pub(super) async fn serve_connection<S>(
    stream: S,
    client: ClientConnection,
    router: Router,
    limits: ConnectionTimeouts,
    closing: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let ClientConnection { protocol, presented, place } = client;
    let place = Arc::new(place);
    let requests = place.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let busy = requests.begin();
        // No request that is served has a body that means something: whatever comes is not read.
        let mut request = request.map(|_| Body::empty());
        if let Some(presented) = &presented {
            request.extensions_mut().insert(presented.clone());
        }
        answer(router.clone(), request, busy)
    });
    let heads = (protocol == ClientProtocol::Http1).then(|| place.clone());
    let stream = TokioIo::new(WriteTimeout { stream, heads, patience: limits.client, pause: None });
    let stay = IdleLimits { idle: limits.idle, head: limits.client, busy: Some(limits.request) };
    match protocol {
        ClientProtocol::Http1 => {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                // Pauses in a head are seen to here, apart from those between requests.
                .header_read_timeout(None)
                .max_headers(HEADERS)
                .max_header_size(HEAD as usize)
                .max_buf_size(2 * HEAD as usize)
                .serve_connection(stream, service);
            drive(connection, http1::Connection::graceful_shutdown, &place, stay, closing).await;
        }
        ClientProtocol::Http2 => {
            let connection = http2::Builder::new(StreamExecutor { longest: limits.request })
                .timer(TokioTimer::new())
                .keep_alive_interval(PING.0)
                .keep_alive_timeout(PING.1)
                .max_concurrent_streams(limits.streams)
                .max_pending_accept_reset_streams(UNSEEN_RESETS * limits.streams as usize)
                .max_header_list_size(HEAD)
                .initial_stream_window_size(BODY)
                .initial_connection_window_size(BODIES)
                .max_send_buf_size(SENDING)
                .serve_connection(stream, service);
            // Many people's requests share a connection of kube-apiserver's, so each is bounded by itself.
            let stay = IdleLimits { busy: None, ..stay };
            drive(connection, http2::Connection::graceful_shutdown, &place, stay, closing).await;
        }
    }
}

async fn answer(
    mut router: Router,
    request: Request<Body>,
    busy: ActiveRequest,
) -> Result<Response<ResponseBody<ActiveRequest>>, Infallible> {
    let response = router.call(request).await?;
    Ok(response.map(|body| ResponseBody::new(body, busy)))
}

/// Lets a connection go on until it ends. One that overstays without a request, or has to make room, is asked to leave, and cut
/// when it does not; one that overstays with a request is cut.
async fn drive<C>(
    connection: C,
    ask_to_leave: fn(Pin<&mut C>),
    place: &ConnectionSlot,
    mut stay: IdleLimits,
    closing: CancellationToken,
) where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = pin!(connection);
    let mut leaving = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::trace!(%error, "a connection ended in an error");
                }
                return;
            }
            () = closing.cancelled(), if !leaving => {}
            () = place.evicted(), if !leaving => {}
            phase = place.expired(stay) => {
                if leaving || phase != Phase::Idle {
                    tracing::debug!(?phase, "a connection took longer than it may and is cut");
                    return;
                }
            }
        }
        ask_to_leave(connection.as_mut());
        leaving = true;
        (stay.idle, stay.head) = (GRACE, GRACE);
        place.rest();
    }
}

/// Runs the requests of an HTTP/2 connection, none for longer than it may take. One that is given up is reset, and its
/// neighbours do not notice.
#[derive(Clone)]
struct StreamExecutor {
    longest: Duration,
}

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let longest = self.longest;
        tokio::spawn(async move {
            if timeout(longest, stream).await.is_err() {
                tracing::debug!("an answer was not taken in time and its stream is reset");
            }
        });
    }
}

/// A stream that fails when the client takes nothing of what is sent for too long.
struct WriteTimeout<S> {
    stream: S,
    /// Who is to know that a head may have begun.
    heads: Option<Arc<ConnectionSlot>>,
    patience: Duration,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<S> WriteTimeout<S> {
    fn sent<T>(&mut self, context: &mut Context<'_>, progress: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            self.pause = None;
            return progress;
        }
        let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(self.patience)));
        ready!(pause.as_mut().poll(context));
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
            && let Some(place) = &self.heads
        {
            place.received();
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
        self.sent(context, progress)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.sent(context, progress)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.stream).poll_flush(context);
        self.sent(context, progress)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.stream).poll_shutdown(context);
        self.sent(context, progress)
    }
}
