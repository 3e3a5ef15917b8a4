//! The way to a member's API server: direct, or through a proxy; then TLS.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use futures::future::BoxFuture;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Uri};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::legacy::connect::{Connection as _, HttpConnector};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use rustls::sign::SingleCertAndKey;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tower::{Service, ServiceExt as _};

use super::credentials::{Credentials, Proxy, Trust};
use super::tls::{TrustError, client_config};
use crate::api::duration::GoDuration;

/// How long a handshake counts among those that go on at a time.
const PATIENCE: Duration = Duration::from_millis(250);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// TCP, or TLS to a proxy.
type Hop = MaybeHttpsStream<TokioIo<TcpStream>>;
/// The stream that HTTP is spoken on.
pub(super) type Stream = MaybeHttpsStream<Hop>;

/// Dials: one connection for each call, on which the API server chose HTTP/2 or HTTP/1.1.
pub(super) struct Dialer {
    https: HttpsConnector<Route>,
    uri: Uri,
    /// Bounds how many members shake hands at a time.
    handshakes: Arc<Semaphore>,
    timeout: Duration,
}

/// What a proxy is to blame for, and not the API server behind it.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct ByProxy(BoxError);

/// How the first byte gets to the API server.
#[derive(Clone)]
enum Route {
    Direct(HttpConnector),
    Tunnel(Tunnel<HttpsConnector<HttpConnector>>),
    Socks(SocksV5<HttpsConnector<HttpConnector>>),
}

impl Dialer {
    /// A dialer for the endpoint of these credentials; connecting and the handshake may take `timeout`.
    pub(super) fn new(
        credentials: &Credentials,
        handshakes: Arc<Semaphore>,
        timeout: Duration,
    ) -> Result<Self, TrustError> {
        let mut tls = client_config(&credentials.trust)?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if let Some(certificate) = &credentials.login.certificate {
            tls.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certificate.certified_key()));
        }
        let route = Route::new(credentials.proxy.as_ref())?;
        let https = match &credentials.server_name {
            Some(name) => {
                let name = FixedServerNameResolver::new(name.clone());
                HttpsConnector::new(route, tls, false, Arc::new(name))
            }
            None => HttpsConnector::from((route, tls)),
        };
        let uri = credentials.endpoint.uri("/").map_err(|_| TrustError::Endpoint)?;
        Ok(Self { https, uri, handshakes, timeout })
    }

    /// One connection, and whether HTTP/2 is spoken on it.
    pub(super) async fn dial(&self) -> Result<(Stream, bool), BoxError> {
        let mut permit = Some(self.handshakes.acquire().await?);
        let mut dialing = std::pin::pin!(self.https.clone().oneshot(self.uri.clone()));
        // A handshake that is not done by then waits for the network and costs nothing: others may begin.
        let patience = async {
            tokio::time::sleep(PATIENCE).await;
            drop(permit.take());
            std::future::pending().await
        };
        let dialled = async {
            tokio::select! {
                stream = &mut dialing => stream,
                never = patience => never,
            }
        };
        let Ok(stream) = tokio::time::timeout(self.timeout, dialled).await else {
            let timeout = GoDuration::from(self.timeout);
            return Err(format!("no connection and TLS handshake within {timeout}").into());
        };
        let stream = stream?;
        let http2 = stream.connected().is_negotiated_h2();
        Ok((stream, http2))
    }
}

impl Route {
    /// Directly, or by way of `proxy`.
    fn new(proxy: Option<&Proxy>) -> Result<Self, TrustError> {
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
                Box::pin(async move { Ok(dialing.await.map_err(|error| ByProxy(error.into()))?) })
            }
            Self::Socks(socks) => {
                let dialing = socks.call(uri);
                Box::pin(async move { Ok(dialing.await.map_err(|error| ByProxy(error.into()))?) })
            }
        }
    }
}
