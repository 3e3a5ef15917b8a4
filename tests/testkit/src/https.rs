//! An HTTPS server on loopback whose line can be cut while it runs.

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

/// What ALPN offers: HTTP/2 and HTTP/1.1.
pub const HTTP_VERSIONS: [&str; 2] = ["h2", "http/1.1"];

/// A response's body: whole, streamed, or one that breaks off.
pub type Body = BoxBody<Bytes, io::Error>;
/// What answers the requests of a server; an error resets the connection (HTTP/1.1) or the stream (HTTP/2).
pub type Handler =
    Arc<dyn Fn(Request<Incoming>, Arc<Peer>) -> BoxFuture<'static, io::Result<Response<Body>>> + Send + Sync>;

/// Who is at the other end of a connection.
#[derive(Debug)]
pub struct Peer {
    /// The client's address.
    pub address: SocketAddr,
    /// The certificate that the client showed, verified against the server's client authority.
    pub certificate: Option<CertificateDer<'static>>,
}

/// What the network does to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Nothing.
    Open,
    /// Connections are accepted by the kernel, and neither they nor the open ones carry another byte.
    Frozen,
    /// Open connections are cut and new ones refused.
    Refused,
}

/// A running server; it stops when dropped.
pub struct Server {
    address: SocketAddr,
    line: watch::Sender<Line>,
    cuts: watch::Sender<()>,
    tls: Arc<Mutex<Arc<ServerConfig>>>,
    accepted: Arc<AtomicUsize>,
    open: Arc<()>,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    /// Serves on a free port of 127.0.0.1; `tls` decides the certificate, the client authority and ALPN.
    ///
    /// # Errors
    /// If no port can be bound.
    pub async fn start(tls: ServerConfig, handler: Handler) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (line, cuts) = (watch::Sender::new(Line::Open), watch::Sender::new(()));
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

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has accepted so far.
    pub fn connections(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// How many of them are open.
    pub fn open_connections(&self) -> usize {
        Arc::strong_count(&self.open) - 1
    }

    /// Cuts, freezes or restores the line.
    pub fn set_line(&self, line: Line) {
        self.line.send_replace(line);
    }

    /// Cuts the connections that are open now; new ones are welcome.
    pub fn cut(&self) {
        self.cuts.send_replace(());
    }

    /// Serves new connections with another certificate or client authority.
    pub fn set_tls(&self, tls: ServerConfig) {
        *self.tls.lock().expect("no holder panics") = Arc::new(tls);
    }
}

struct Acceptor {
    tls: Arc<Mutex<Arc<ServerConfig>>>,
    accepted: Arc<AtomicUsize>,
    /// Each connection holds one.
    open: Weak<()>,
    handler: Handler,
    line: watch::Receiver<Line>,
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
            if state == Line::Refused {
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
                biased; // who connects after a change finds the line changed
                changed = self.line.changed() => if changed.is_err() { return },
                // The connections see it themselves; those that are accepted from now on are not meant.
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

    /// One connection's life; while the line is frozen nobody polls it, so not even a ping is answered, and where it is
    /// refused or cut it ends by itself, so that no request that comes after is still answered.
    fn connection(&self, stream: TcpStream, address: SocketAddr) -> impl Future<Output = ()> + use<> {
        let tls = self.tls.lock().expect("no holder panics").clone();
        let (mut line, mut cuts) = (self.line.clone(), self.cuts.clone());
        let open = self.open.upgrade();
        let serving = serve(stream, address, tls, self.handler.clone());
        async move {
            let _open = open;
            let mut serving = std::pin::pin!(serving);
            loop {
                let state = *line.borrow_and_update();
                if state == Line::Refused {
                    return;
                }
                tokio::select! {
                    biased; // or a request that comes after might still be answered
                    _ = cuts.changed() => return,
                    changed = line.changed() => if changed.is_err() { return },
                    () = &mut serving, if state == Line::Open => return,
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

/// The TLS side of a server: its certificate, the authority of its clients' certificates, which they may but need
/// not show, and what ALPN offers.
///
/// # Errors
/// If the key does not belong to the certificate, or the authority is empty.
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

/// A response with a body of this type.
pub fn response(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A whole body.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// A body that comes in chunks; an error breaks it off.
pub fn streamed(chunks: impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static) -> Body {
    BodyExt::boxed(StreamBody::new(chunks.map_ok(Frame::data)))
}
