//! Where connections come in: accepted within bounds, encrypted, served, and drained when the process ends.

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
use super::connection_limit::{ConnectionLimit, ConnectionSlot, IdleLimits};
use super::tls::HTTP2;
use crate::access::certificate::ClientChain;

/// Most handshakes at a time. When one more begins, the one that has taken longest is given up: a client of good will
/// needs milliseconds.
const HANDSHAKES: usize = 512;
/// How long requests in flight may take to end once no new ones are taken. With `--shutdown-delay-duration` it has to be less
/// than the Pod's `terminationGracePeriodSeconds`, whose default is 30 s.
pub const DRAIN: Duration = Duration::from_secs(20);
/// How often the log says that connections cannot be accepted.
const COMPLAIN: Duration = Duration::from_secs(60);

/// What a listener serves, and within which bounds.
#[derive(Clone)]
pub struct ListenerConfig {
    /// Answers requests.
    pub router: Router,
    /// How long clients may take.
    pub limits: ConnectionTimeouts,
    /// Most connections at a time.
    pub connections: usize,
    /// From then on no connection is accepted, and those that there are end.
    pub closing: CancellationToken,
}

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

/// Serves over TLS until it closes, then ends what was begun.
pub async fn serve_tls(listener: TcpListener, tls: Arc<ServerConfig>, reception: ListenerConfig) {
    let acceptor = TlsAcceptor::from(tls);
    let connections = ConnectionLimit::new(reception.connections);
    let ListenerConfig { router, limits, closing, .. } = reception;
    let serving = {
        let (connections, closing) = (connections.clone(), closing.clone());
        async move |stream: TcpStream, handshake: ConnectionSlot| {
            let most = IdleLimits { idle: limits.client, head: limits.client, busy: Some(limits.client) };
            let accepted = async { Some((acceptor.accept(stream).await.ok()?, connections.take().await?)) };
            let accepted = tokio::select! {
                accepted = accepted => accepted,
                _ = handshake.expired(most) => None,
                () = handshake.evicted() => None,
                () = closing.cancelled() => None,
            };
            let Some((stream, place)) = accepted else { return };
            drop(handshake);
            let (_, session) = stream.get_ref();
            let presented = ClientChain::new(session.peer_certificates()).map(Arc::new);
            let protocol = if session.alpn_protocol() == Some(HTTP2) {
                ClientProtocol::Http2
            } else {
                ClientProtocol::Http1
            };
            serve_connection(
                stream,
                ClientConnection { protocol, presented, place },
                router,
                limits,
                closing,
            )
            .await;
        }
    };
    serve(listener, (&ConnectionLimit::new(HANDSHAKES), &connections), &closing, serving).await;
}

/// Serves in plain text until it closes, then ends what was begun.
pub async fn serve_plain(listener: TcpListener, reception: ListenerConfig) {
    let connections = ConnectionLimit::new(reception.connections);
    let ListenerConfig { router, limits, closing, .. } = reception;
    let serving = {
        let closing = closing.clone();
        async move |stream: TcpStream, place: ConnectionSlot| {
            let client = ClientConnection { protocol: ClientProtocol::Http1, presented: None, place };
            serve_connection(stream, client, router, limits, closing).await;
        }
    };
    serve(listener, (&connections, &connections), &closing, serving).await;
}

/// Accepts connections, each into one of the first places; those of the second they take themselves.
async fn serve<C, F>(
    listener: TcpListener,
    (first, second): (&Arc<ConnectionLimit>, &Arc<ConnectionLimit>),
    closing: &CancellationToken,
    serving: C,
) where
    C: FnOnce(TcpStream, ConnectionSlot) -> F + Clone,
    F: Future<Output = ()> + Send + 'static,
{
    let connections = TaskTracker::new();
    let mut complained: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closing.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                // Without a place it is closed: every connection that there may be is busy.
                let place = tokio::select! {
                    place = first.take() => place,
                    () = closing.cancelled() => break,
                };
                if let Some(place) = place {
                    connections.spawn(serving.clone()(stream, place));
                }
            }
            // Usually too many open files: those go that do nothing.
            Err(error) => {
                if complained.is_none_or(|last| last.elapsed() >= COMPLAIN) {
                    tracing::warn!(%error, "a connection could not be accepted; idle ones make room");
                    complained = Some(Instant::now());
                }
                for places in [first, second] {
                    places.evict();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "connections did not end in time and are cut");
    }
}
