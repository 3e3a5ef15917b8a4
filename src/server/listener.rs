//! Connections: accepted, encrypted, served over HTTP/2 or HTTP/1.1, and drained when the process ends.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use crate::access::certificate::Presented;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a client may take to send a request's headers.
const HEADERS: Duration = Duration::from_secs(30);
/// How long requests in flight may take to end once the process is to end.
const DRAIN: Duration = Duration::from_secs(25);

/// Listens on an address. An unspecified one means every interface of both families, as a Go listener takes it.
///
/// # Errors
/// If the address cannot be bound.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    if address.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        && let Ok(listener) = TcpListener::bind((Ipv6Addr::UNSPECIFIED, address.port())).await
    {
        return Ok(listener);
    }
    TcpListener::bind(address).await
}

/// Serves over TLS until `shutdown`, then ends what was begun.
pub async fn serve_tls(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    router: Router,
    shutdown: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    serve(listener, shutdown, async move |stream: TcpStream, shutdown| {
        let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else {
            return;
        };
        let presented = Presented::new(stream.get_ref().1.peer_certificates()).map(Arc::new);
        converse(stream, router, presented, shutdown).await;
    })
    .await;
}

/// Serves in plain text until `shutdown`, then ends what was begun.
pub async fn serve_plain(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    serve(listener, shutdown, async move |stream, shutdown| converse(stream, router, None, shutdown).await)
        .await;
}

async fn serve<C, F>(listener: TcpListener, shutdown: CancellationToken, connection: C)
where
    C: FnOnce(TcpStream, CancellationToken) -> F + Clone,
    F: Future<Output = ()> + Send + 'static,
{
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                connections.spawn(connection.clone()(stream, shutdown.clone()));
            }
            // Usually too many open files: give the others time to end.
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "connections did not end in time and are cut");
    }
}

/// One connection, as long as it lasts.
async fn converse<S>(
    stream: S,
    router: Router,
    presented: Option<Arc<Presented>>,
    shutdown: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        if let Some(presented) = &presented {
            request.extensions_mut().insert(presented.clone());
        }
        router.clone().call(request)
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(Some(HEADERS));
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::trace!(%error, "a connection ended in an error");
    }
}
