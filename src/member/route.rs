//! The way to a member's API server: direct, or through a proxy; then TLS.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use futures::future::BoxFuture;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Uri};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::legacy::connect::{Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tower::{Service, ServiceExt as _};

use super::credentials::{Proxy, Trust};
use super::tls::{TrustError, client_config};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// TCP, or TLS to a proxy.
type Hop = MaybeHttpsStream<TokioIo<TcpStream>>;
/// The stream that HTTP is spoken on.
pub(super) type Stream = MaybeHttpsStream<Hop>;

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
    /// Bounds how many members shake hands at a time.
    handshakes: Arc<Semaphore>,
    timeout: Duration,
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
    pub(super) fn new(
        route: Route,
        mut config: ClientConfig,
        protocol: Protocol,
        handshakes: Arc<Semaphore>,
        timeout: Duration,
    ) -> Self {
        config.alpn_protocols = match protocol {
            Protocol::Http2 => vec![b"h2".to_vec()],
            Protocol::Http1 => vec![b"http/1.1".to_vec()],
            Protocol::Either => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        Self { https: HttpsConnector::from((route, config)), ready: Arc::default(), handshakes, timeout }
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
        let dialing = async {
            let _permit = self.handshakes.acquire().await?;
            self.https.ready().await?.call(uri).await
        };
        match tokio::time::timeout(self.timeout, dialing).await {
            Ok(result) => result,
            Err(_) => {
                let seconds = self.timeout.as_secs_f32();
                Err(format!("no connection and TLS handshake within {seconds} s").into())
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

/// Whether the two ends settled on HTTP/2.
pub(super) fn speaks_http2(stream: &Stream) -> bool {
    stream.connected().is_negotiated_h2()
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
