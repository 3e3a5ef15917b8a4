//! TCP listeners: they accept connections within limits, do TLS handshakes, serve the connections, and drain them at shutdown.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{ClientConnection, ClientProtocol, ConnectionTimeouts, serve_connection};
use super::connection_limit::{ConnectionLimit, ConnectionSlot, PhaseLimits};
use super::tls::HTTP2;
use crate::access::certificate::ClientChain;

/// Maximum number of concurrent TLS handshakes. If the limit is reached, a new handshake evicts the oldest one: normal clients
/// need milliseconds.
const MAX_HANDSHAKES: usize = 512;
/// Timeout for requests in flight at shutdown, after the listener is closed. The sum of this value and
/// `--shutdown-delay-duration` must be less than the Pod's `terminationGracePeriodSeconds` (default: 30 s).
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
/// Minimum time between two warnings that connections cannot be accepted.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Service and limits of a listener.
#[derive(Clone)]
pub struct ListenerConfig {
    /// Handles the requests.
    pub router: Router,
    pub limits: ConnectionTimeouts,
    /// Maximum number of concurrent connections.
    pub connections: usize,
    /// When it is cancelled, the listener is closed and open connections are drained.
    pub closing: CancellationToken,
}

/// Listens on an address. As in Go, `0.0.0.0` means all interfaces with IPv4 and IPv6; IPv4 only if the host has no IPv6.
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

/// Serves over TLS until `closing` is cancelled. Then drains the connections for at most `DRAIN_TIMEOUT`.
pub async fn serve_tls(listener: TcpListener, tls: Arc<ServerConfig>, config: ListenerConfig) {
    let acceptor = TlsAcceptor::from(tls);
    let connections = ConnectionLimit::new(config.connections);
    let ListenerConfig { router, limits, closing, .. } = config;
    let handle_stream = {
        let (connections, closing) = (connections.clone(), closing.clone());
        async move |stream: TcpStream, handshake: ConnectionSlot| {
            let handshake_limits =
                PhaseLimits { idle: limits.client, head: limits.client, busy: Some(limits.client) };
            let accepted = async { Some((acceptor.accept(stream).await.ok()?, connections.take().await?)) };
            let accepted = tokio::select! {
                accepted = accepted => accepted,
                _ = handshake.expired(handshake_limits) => None,
                () = handshake.evicted() => None,
                () = closing.cancelled() => None,
            };
            let Some((stream, slot)) = accepted else { return };
            drop(handshake);
            let (_, session) = stream.get_ref();
            let client_chain = ClientChain::new(session.peer_certificates()).map(Arc::new);
            let protocol = if session.alpn_protocol() == Some(HTTP2) {
                ClientProtocol::Http2
            } else {
                ClientProtocol::Http1
            };
            serve_connection(
                stream,
                ClientConnection { protocol, client_chain, slot },
                router,
                limits,
                closing,
            )
            .await;
        }
    };
    serve(listener, (&ConnectionLimit::new(MAX_HANDSHAKES), &connections), &closing, handle_stream).await;
}

/// Serves without TLS until `closing` is cancelled. Then drains the connections for at most `DRAIN_TIMEOUT`.
pub async fn serve_plain(listener: TcpListener, config: ListenerConfig) {
    let connections = ConnectionLimit::new(config.connections);
    let ListenerConfig { router, limits, closing, .. } = config;
    let handle_stream = {
        let closing = closing.clone();
        async move |stream: TcpStream, slot: ConnectionSlot| {
            let client = ClientConnection { protocol: ClientProtocol::Http1, client_chain: None, slot };
            serve_connection(stream, client, router, limits, closing).await;
        }
    };
    serve(listener, (&connections, &connections), &closing, handle_stream).await;
}

/// Accepts connections until `closing` is cancelled, then drains them. A new connection takes a slot of the first limit.
/// `handle_stream` itself takes slots of the second limit.
async fn serve<C, F>(
    listener: TcpListener,
    (first, second): (&Arc<ConnectionLimit>, &Arc<ConnectionLimit>),
    closing: &CancellationToken,
    handle_stream: C,
) where
    C: FnOnce(TcpStream, ConnectionSlot) -> F + Clone,
    F: Future<Output = ()> + Send + 'static,
{
    let connections = TaskTracker::new();
    let mut last_warning: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closing.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                // Without a slot the connection is closed: all other connections are busy.
                let slot = tokio::select! {
                    slot = first.take() => slot,
                    () = closing.cancelled() => break,
                };
                if let Some(slot) = slot {
                    connections.spawn(handle_stream.clone()(stream, slot));
                }
            }
            // The usual cause is too many open files. Closing idle connections helps.
            Err(error) => {
                if last_warning.is_none_or(|last| last.elapsed() >= WARNING_INTERVAL) {
                    tracing::warn!(
                        %error,
                        "cannot accept a connection; idle connections are closed to make room"
                    );
                    last_warning = Some(Instant::now());
                }
                for limit in [first, second] {
                    limit.evict();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "connections did not finish before the drain timeout and are closed"
        );
    }
}
