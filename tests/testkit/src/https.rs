//! An HTTPS server on loopback. A test can cut or freeze its connections while it runs.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{Stream, TryStreamExt};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use crate::listener::{ACCEPT_AGAIN, hold_port};
use crate::pki::Identity;

/// The protocols that ALPN offers: HTTP/2 and HTTP/1.1.
pub const HTTP_VERSIONS: [&str; 2] = ["h2", "http/1.1"];

/// The body of a response: complete, streamed, or one that ends with an error.
pub type Body = BoxBody<Bytes, io::Error>;
/// Handler of the requests of a server. An error resets the connection (HTTP/1.1) or the stream (HTTP/2).
pub type Handler =
    Arc<dyn Fn(Request<Incoming>, Arc<Peer>) -> BoxFuture<'static, io::Result<Response<Body>>> + Send + Sync>;

/// The client of a connection.
#[derive(Debug)]
pub struct Peer {
    /// The client's address.
    pub address: SocketAddr,
    /// The client certificate, verified against the server's client CA. `None` if the client presented none.
    pub certificate: Option<CertificateDer<'static>>,
}

/// State of the network in front of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// The network works.
    Open,
    /// The kernel accepts connections, but neither new nor open connections carry any byte.
    Frozen,
    /// Open connections are cut and new ones are refused.
    Refused,
}

/// A running server; it stops when dropped.
pub struct Server {
    address: SocketAddr,
    line: watch::Sender<Network>,
    cuts: watch::Sender<()>,
    tls: Arc<Mutex<Arc<ServerConfig>>>,
    accepted: Arc<AtomicUsize>,
    open: Arc<()>,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    /// Serves on a free port of 127.0.0.1. `tls` has the certificate, the client CA and ALPN.
    ///
    /// # Errors
    /// If no port can be bound.
    pub async fn start(tls: ServerConfig, handler: Handler) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (line, cuts) = (watch::Sender::new(Network::Open), watch::Sender::new(()));
        let tls = Arc::new(Mutex::new(Arc::new(tls)));
        let (accepted, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(()));
        let acceptor = Acceptor {
            tls: tls.clone(),
            accepted: accepted.clone(),
            open: Arc::downgrade(&open),
            handler,
            line: line.subscribe(),
            cuts: cuts.subscribe(),
        };
        let task = AbortOnDropHandle::new(tokio::spawn(acceptor.run(listener)));
        Ok(Self { address, line, cuts, tls, accepted, open, _task: task })
    }

    /// The address that the server listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The number of accepted connections since the start.
    pub fn connections(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// The number of open connections.
    pub fn open_connections(&self) -> usize {
        Arc::strong_count(&self.open) - 1
    }

    /// Cuts, freezes or restores the network.
    pub fn set_network(&self, line: Network) {
        self.line.send_replace(line);
    }

    /// Cuts the connections that are open now. New connections are accepted.
    pub fn cut(&self) {
        self.cuts.send_replace(());
    }

    /// Serves new connections with another certificate or client CA.
    pub fn set_tls(&self, tls: ServerConfig) {
        *self.tls.lock().expect("not poisoned") = Arc::new(tls);
    }
}

struct Acceptor {
    tls: Arc<Mutex<Arc<ServerConfig>>>,
    accepted: Arc<AtomicUsize>,
    /// Each connection holds a strong reference.
    open: Weak<()>,
    handler: Handler,
    line: watch::Receiver<Network>,
    cuts: watch::Receiver<()>,
}

impl Acceptor {
    async fn run(mut self, listener: TcpListener) {
        let Ok(address) = listener.local_addr() else { return };
        let mut listener = Some(listener);
        let mut kept_port = None;
        let mut connections = JoinSet::new();
        loop {
            let state = *self.line.borrow_and_update();
            if state == Network::Refused {
                if listener.take().is_some() {
                    kept_port = hold_port(address).ok();
                }
            } else if listener.is_none() {
                listener = kept_port
                    .take()
                    .or_else(|| hold_port(address).ok())
                    .and_then(|port| port.listen(1024).ok());
            }
            let accept = async {
                match &listener {
                    Some(listener) => listener.accept().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased; // a client that connects after a change sees the new state
                changed = self.line.changed() => if changed.is_err() { return },
                // The open connections receive this signal themselves. Later connections are not affected by this cut.
                changed = self.cuts.changed() => if changed.is_err() { return },
                Some(_) = connections.join_next() => {}
                accepted = accept => match accepted {
                    Ok((stream, peer)) => {
                        self.accepted.fetch_add(1, Ordering::Relaxed);
                        connections.spawn(self.connection(stream, peer));
                    }
                    Err(_) => sleep(ACCEPT_AGAIN).await,
                },
            }
        }
    }

    /// Serves one connection. While the line is frozen, the connection is not polled, so it does not even respond to a ping.
    /// When the line is refused or cut, the connection ends, and no later request gets a response.
    fn connection(&self, stream: TcpStream, address: SocketAddr) -> impl Future<Output = ()> + use<> {
        let tls = self.tls.lock().expect("not poisoned").clone();
        let (mut line, mut cuts) = (self.line.clone(), self.cuts.clone());
        let open = self.open.upgrade();
        let serving = serve(stream, address, tls, self.handler.clone());
        async move {
            let _open = open;
            let mut serving = std::pin::pin!(serving);
            loop {
                let state = *line.borrow_and_update();
                if state == Network::Refused {
                    return;
                }
                tokio::select! {
                    biased; // a request after the cut must get no response
                    _ = cuts.changed() => return,
                    changed = line.changed() => if changed.is_err() { return },
                    () = &mut serving, if state == Network::Open => return,
                }
            }
        }
    }
}

async fn serve(stream: TcpStream, address: SocketAddr, tls: Arc<ServerConfig>, handler: Handler) {
    let _ = stream.set_nodelay(true);
    let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await else { return };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first().cloned());
    let peer = Arc::new(Peer { address, certificate });
    let service = service_fn(move |request| handler(request, peer.clone()));
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await;
}

/// The TLS configuration of a server: its certificate, the optional CA of client certificates, and the protocols that ALPN
/// offers. Clients may connect without a certificate.
///
/// # Errors
/// If the key does not belong to the certificate, or the CA is empty.
pub fn tls(
    identity: &Identity,
    clients: Option<Arc<RootCertStore>>,
    protocols: &[&str],
) -> anyhow::Result<ServerConfig> {
    let verifier = match clients {
        Some(roots) => WebPkiClientVerifier::builder(roots).allow_unauthenticated().build()?,
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let tls = ServerConfig::builder().with_client_cert_verifier(verifier);
    let mut tls = tls.with_single_cert(identity.chain(), identity.private_key())?;
    tls.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(tls)
}

/// A response with a body of this content type.
pub fn response(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A complete body.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// A body in chunks. An error in the stream breaks the response off.
pub fn streamed(chunks: impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static) -> Body {
    BodyExt::boxed(StreamBody::new(chunks.map_ok(Frame::data)))
}
