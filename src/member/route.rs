//! The way to a member's API server: direct, or through a proxy; then TLS.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use futures::future::BoxFuture;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Service, ServiceExt as _};

use super::credentials::{Proxy, Trust};
use super::tls::{TrustError, client_config};
use crate::api::duration::GoDuration;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// TCP, or TLS to a proxy.
type Hop = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Which protocols are offered to the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/2 alone.
    Http2,
    /// HTTP/1.1 alone.
    Http1,
    /// Whichever the API server prefers.
    Either,
}

/// Dials: one connection for each call.
#[derive(Clone)]
pub(super) struct Dialer {
    https: HttpsConnector<Route>,
    /// A connection that was made to settle the protocol and waits for its first use.
    ready: Arc<Mutex<Option<Stream>>>,
    bounds: Bounds,
}

/// What dialling is held to.
#[derive(Clone)]
pub(super) struct Bounds {
    /// Connections that may be open at a time.
    pub(super) connections: Arc<Semaphore>,
    /// Handshakes that may go on at a time, with all members.
    pub(super) handshakes: Arc<Semaphore>,
    /// How long connecting and the handshake may take.
    pub(super) timeout: Duration,
}

/// The stream that HTTP is spoken on.
pub(super) struct Stream {
    stream: MaybeHttpsStream<Hop>,
    _permit: OwnedSemaphorePermit,
}

/// How the first byte gets to the API server.
#[derive(Clone)]
pub(super) enum Route {
    Direct(HttpConnector),
    Tunnel(Tunnel<HttpsConnector<HttpConnector>>),
    Socks(SocksV5<HttpsConnector<HttpConnector>>),
}

impl Dialer {
    /// A dialer by way of `route`. `config` says which certificates are accepted.
    pub(super) fn new(route: Route, mut config: ClientConfig, protocol: Protocol, bounds: Bounds) -> Self {
        config.alpn_protocols = match protocol {
            Protocol::Http2 => vec![b"h2".to_vec()],
            Protocol::Http1 => vec![b"http/1.1".to_vec()],
            Protocol::Either => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        Self { https: HttpsConnector::from((route, config)), ready: Arc::default(), bounds }
    }

    /// Hands over a connection for the next call to use.
    pub(super) fn keep(&self, stream: Stream) {
        *self.ready.lock().expect("no holder panics") = Some(stream);
    }

    /// One connection to the API server at `uri`.
    pub(super) async fn dial(mut self, uri: Uri) -> Result<Stream, BoxError> {
        if let Some(stream) = self.ready.lock().expect("no holder panics").take() {
            return Ok(stream);
        }
        let Bounds { connections, handshakes, timeout } = self.bounds;
        let dialing = async {
            let permit = connections.acquire_owned().await?;
            let _shaking = handshakes.acquire().await?;
            let stream = self.https.ready().await?.call(uri).await?;
            Ok(Stream { stream, _permit: permit })
        };
        match tokio::time::timeout(timeout, dialing).await {
            Ok(result) => result,
            Err(_) => {
                let timeout = GoDuration::from(timeout);
                Err(format!("no connection and TLS handshake within {timeout}").into())
            }
        }
    }
}

impl Service<Uri> for Dialer {
    type Response = Stream;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Stream, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().dial(uri))
    }
}

impl Stream {
    /// Whether the two ends settled on HTTP/2.
    pub(super) fn speaks_http2(&self) -> bool {
        self.connected().is_negotiated_h2()
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Route {
    /// Directly, or by way of `proxy`.
    pub(super) fn new(proxy: Option<&Proxy>) -> Result<Self, TrustError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        let Some(proxy) = proxy else { return Ok(Self::Direct(tcp)) };
        // Only an https:// proxy shows a certificate; it is not the member's, so the system's roots judge it.
        let secure = proxy.url.scheme() == Some(&Scheme::HTTPS);
        let hop = HttpsConnector::from((
            tcp,
            client_config(if secure { &Trust::System } else { &Trust::Anything })?,
        ));
        let authority = proxy.url.authority().map_or("", Authority::as_str);
        let (user_info, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
        let decode = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let (user, password) = (decode(user), decode(password));
        if proxy.url.scheme_str() == Some("socks5") {
            let port = if proxy.url.port().is_some() { "" } else { ":1080" };
            let proxy = format!("http://{address}{port}").parse::<Uri>().map_err(|_| TrustError::Proxy)?;
            let socks = SocksV5::new(proxy, hop);
            return Ok(Self::Socks(if user.is_empty() { socks } else { socks.with_auth(user, password) }));
        }
        let mut tunnel = Tunnel::new(proxy.url.clone(), hop).with_headers(proxy.headers.clone());
        if !user.is_empty() {
            let credentials = BASE64_STANDARD.encode(format!("{user}:{password}"));
            let header = HeaderValue::try_from(format!("Basic {credentials}"));
            tunnel = tunnel.with_auth(header.map_err(|_| TrustError::Proxy)?);
        }
        Ok(Self::Tunnel(tunnel))
    }
}

impl Service<Uri> for Route {
    type Response = Hop;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Hop, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::Direct(direct) => direct.poll_ready(context).map_err(Into::into),
            Self::Tunnel(tunnel) => tunnel.poll_ready(context).map_err(Into::into),
            Self::Socks(socks) => socks.poll_ready(context).map_err(Into::into),
        }
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        match self {
            Self::Direct(direct) => {
                let dialing = direct.call(uri);
                Box::pin(async move { Ok(MaybeHttpsStream::Http(dialing.await?)) })
            }
            Self::Tunnel(tunnel) => {
                let dialing = tunnel.call(uri);
                Box::pin(async move { Ok(dialing.await?) })
            }
            Self::Socks(socks) => {
                let dialing = socks.call(uri);
                Box::pin(async move { Ok(dialing.await?) })
            }
        }
    }
}
