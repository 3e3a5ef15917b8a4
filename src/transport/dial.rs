//! Connects to an API server, directly or through a proxy, and does the TLS handshake.

mod error;

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use futures::TryFutureExt as _;
use futures::future::BoxFuture;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::proxy::SocksV5;
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::lookup_host;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tower::{ServiceExt as _, service_fn};

use super::credentials::{Credentials, Proxy, ServerVerification, address, host};
use super::environment::proxy_of;
use super::tls::{TlsConfigError, client_config};
use crate::api::duration::GoDuration;
use crate::api::text::root_cause;
pub use error::DialError;
use error::{NameError, TcpError};

/// How long a handshake holds its permit at most.
const PERMIT_TIME: Duration = Duration::from_millis(250);
/// Maximum bytes of the head of a proxy's response to CONNECT.
const MAX_PROXY_HEAD: usize = 256 << 10;

type BoxError = Box<dyn Error + Send + Sync>;

/// The permit to begin a handshake.
pub type HandshakePermit<'a> = SemaphorePermit<'a>;

/// A stream of bytes: TCP, or TLS or a proxy connection on top of TCP.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Opens connections to one API server, one for each call. The API server chooses HTTP/2 or HTTP/1.1.
pub struct Dialer {
    target: Uri,
    /// The settings, and the name that the certificate must have. `None` means plain HTTP.
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// Whether a CA bundle is given. Otherwise the CAs of the system are trusted.
    has_bundle: bool,
    proxy: Option<ProxyHop>,
    /// Limits concurrent handshakes.
    handshakes: Arc<Semaphore>,
    timeout: Duration,
}

/// A proxy between this process and the API server.
struct ProxyHop {
    /// `http://host:port`, also for a proxy with another scheme.
    address: Uri,
    /// For an `https` proxy: the settings, and the name that the certificate must have.
    tls: Option<(TlsConnector, ServerName<'static>)>,
    protocol: ProxyProtocol,
}

enum ProxyProtocol {
    /// HTTP CONNECT with these headers.
    Connect(HeaderMap),
    /// SOCKS5, optionally with user and password.
    Socks5(Option<(String, String)>),
}

impl Dialer {
    /// Creates a dialer for the endpoint of these credentials. `timeout` limits TCP, proxy and TLS handshake together.
    ///
    /// # Errors
    /// If the endpoint, the CA bundle or the proxy is invalid.
    pub fn new(
        credentials: &Credentials,
        handshakes: Arc<Semaphore>,
        timeout: Duration,
    ) -> Result<Self, TlsConfigError> {
        let target = credentials.endpoint.uri("/").map_err(|_| TlsConfigError::Endpoint)?;
        let tls = if target.scheme() == Some(&Scheme::HTTPS) {
            let mut config = client_config(&credentials.verification)?;
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            if let Some(certificate) = &credentials.user.certificate {
                config.client_auth_cert_resolver =
                    Arc::new(SingleCertAndKey::from(certificate.certified_key()));
            }
            let name = match &credentials.server_name {
                Some(name) => name.clone(),
                None => server_name(&target).ok_or(TlsConfigError::Endpoint)?,
            };
            Some(connector(config, name))
        } else {
            None
        };
        let proxy = proxy_of(credentials).map(ProxyHop::new).transpose()?;
        let has_bundle = matches!(credentials.verification, ServerVerification::Bundle(_));
        Ok(Self { target, tls, has_bundle, proxy, handshakes, timeout })
    }

    /// Waits for the permit to begin a handshake.
    pub async fn handshake_permit(&self) -> Option<HandshakePermit<'_>> {
        self.handshakes.acquire().await.ok()
    }

    /// Opens a connection. The flag is true if the connection uses HTTP/2.
    ///
    /// # Errors
    /// If the name lookup, TCP, the proxy or the TLS handshake fails.
    pub async fn dial(
        &self,
        mut permit: Option<HandshakePermit<'_>>,
    ) -> Result<(Box<dyn Io>, bool), DialError> {
        let mut connecting = std::pin::pin!(self.connect());
        // A longer handshake waits for the network and uses no CPU, so other handshakes may begin.
        let release_permit = async {
            tokio::time::sleep(PERMIT_TIME).await;
            drop(permit.take());
            std::future::pending().await
        };
        tokio::select! {
            connected = &mut connecting => connected,
            never = release_permit => never,
        }
    }

    async fn connect(&self) -> Result<(Box<dyn Io>, bool), DialError> {
        let deadline = Instant::now() + self.timeout;
        let target = || address(&self.target);
        let stream = match &self.proxy {
            None => self.tcp(&self.target, deadline).await.map_err(|error| error.for_api_server(target()))?,
            Some(proxy) => {
                let at = || address(&proxy.address);
                let stream =
                    self.tcp(&proxy.address, deadline).await.map_err(|error| error.for_proxy(at()))?;
                let tunnel = timeout_at(deadline, proxy.connect(stream, &self.target)).await;
                let timed_out = || format!("no response within {}", GoDuration::from(self.timeout));
                let tunnel = tunnel.unwrap_or_else(|_| Err(timed_out()));
                tunnel.map_err(|reason| DialError::Proxy { address: at(), reason })?
            }
        };
        let Some((tls, name)) = &self.tls else { return Ok((stream, false)) };
        let stream = timeout_at(deadline, tls.connect(name.clone(), stream)).await;
        let stream = stream.map_err(|_| DialError::NoAnswer(self.timeout))?;
        let stream = stream.map_err(|error| DialError::from_tls(&error, target(), self.has_bundle))?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((Box::new(stream), is_http2))
    }

    async fn tcp(&self, address: &Uri, deadline: Instant) -> Result<Box<dyn Io>, TcpError> {
        let connected = timeout_at(deadline, tcp(address.clone())).await;
        connected.map_err(|_| TcpError::timeout(self.timeout))?.map_err(|error| TcpError::of(error.as_ref()))
    }
}

impl ProxyHop {
    fn new(proxy: &Proxy) -> Result<Self, TlsConfigError> {
        let authority = proxy.url.authority().map_or("", Authority::as_str);
        let (user_info, _) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
        let decode = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let login = (!user_info.is_empty()).then(|| (decode(user), decode(password)));
        let scheme = proxy.url.scheme_str().unwrap_or_default();
        let address: Uri =
            format!("http://{}", address(&proxy.url)).parse().map_err(|_| TlsConfigError::Proxy)?;
        // The proxy presents its own certificate, not the API server's. The CAs of the system verify it.
        let tls = if scheme == "https" {
            let name = server_name(&address).ok_or(TlsConfigError::Proxy)?;
            Some(connector(client_config(&ServerVerification::System)?, name))
        } else {
            None
        };
        if scheme.starts_with("socks5") {
            return Ok(Self { address, tls, protocol: ProxyProtocol::Socks5(login) });
        }
        let mut headers = proxy.headers.clone();
        if let Some((user, password)) = login {
            let credentials = BASE64_STANDARD.encode(format!("{user}:{password}"));
            let mut header =
                HeaderValue::try_from(format!("Basic {credentials}")).map_err(|_| TlsConfigError::Proxy)?;
            header.set_sensitive(true);
            headers.insert(PROXY_AUTHORIZATION, header);
        }
        Ok(Self { address, tls, protocol: ProxyProtocol::Connect(headers) })
    }

    /// Opens a connection to `target` through the proxy. `stream` is the connection to the proxy.
    async fn connect(&self, mut stream: Box<dyn Io>, target: &Uri) -> Result<Box<dyn Io>, String> {
        if let Some((tls, name)) = &self.tls {
            let encrypted = tls.connect(name.clone(), stream).await;
            let failed = |error| format!("no TLS connection to it: {}", root_cause(&error));
            stream = Box::new(encrypted.map_err(failed)?);
        }
        let connected = match &self.protocol {
            ProxyProtocol::Connect(headers) => tunnel(stream, address(target), headers.clone()).await,
            ProxyProtocol::Socks5(login) => {
                socks(stream, self.address.clone(), target.clone(), login.clone()).await
            }
        };
        connected.map_err(|error| root_cause(error.as_ref()))
    }
}

// Boxed, because the compiler cannot prove that the future is `Send`.
fn tcp(address: Uri) -> BoxFuture<'static, Result<Box<dyn Io>, BoxError>> {
    let resolver = service_fn(|name: Name| async move {
        let addresses = lookup_host((name.as_str(), 0)).await?;
        Ok::<_, NameError>(addresses.collect::<Vec<_>>().into_iter())
    });
    let mut connector = HttpConnector::new_with_resolver(resolver);
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_keepalive(Some(Duration::from_secs(30)));
    let connecting = connector.oneshot(address).map_err(BoxError::from);
    Box::pin(connecting.map_ok(|stream| Box::new(stream.into_inner()) as Box<dyn Io>))
}

/// Sends CONNECT for `target` on `stream`, the connection to the proxy.
async fn tunnel(stream: Box<dyn Io>, target: String, headers: HeaderMap) -> Result<Box<dyn Io>, BoxError> {
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(MAX_PROXY_HEAD).handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection.with_upgrades());
    let mut request = Request::new(Empty::<bytes::Bytes>::new());
    *request.method_mut() = Method::CONNECT;
    *request.headers_mut() = headers;
    *request.uri_mut() = Uri::from(Authority::try_from(target.as_str())?);
    request.headers_mut().insert(HOST, HeaderValue::try_from(target)?);
    let response = sender.send_request(request).await?;
    let status = response.status();
    if status != StatusCode::OK {
        driver.abort();
        let reason = response.extensions().get::<hyper::ext::ReasonPhrase>();
        let reason = reason.map_or_else(
            || status.canonical_reason().unwrap_or_default().to_owned(),
            |reason| String::from_utf8_lossy(reason.as_bytes()).into_owned(),
        );
        return Err(format!("HTTP {} {reason}", status.as_u16()).trim_end().into());
    }
    Ok(Box::new(TokioIo::new(hyper::upgrade::on(response).await?)))
}

/// Opens a SOCKS5 connection to `target` on `stream`, the connection to the proxy. The proxy resolves the name.
fn socks(
    stream: Box<dyn Io>,
    proxy: Uri,
    target: Uri,
    login: Option<(String, String)>,
) -> BoxFuture<'static, Result<Box<dyn Io>, BoxError>> {
    let mut stream = Some(TokioIo::new(stream));
    let connected = service_fn(move |_: Uri| {
        let stream =
            stream.take().ok_or_else(|| io::Error::other("the connection to the proxy is already in use"));
        std::future::ready(stream)
    });
    let mut socks = SocksV5::new(proxy, connected);
    if let Some((user, password)) = login {
        socks = socks.with_auth(user, password);
    }
    let connecting = socks.oneshot(target).map_err(BoxError::from);
    Box::pin(connecting.map_ok(|stream| Box::new(stream.into_inner()) as Box<dyn Io>))
}

fn connector(config: ClientConfig, name: ServerName<'static>) -> (TlsConnector, ServerName<'static>) {
    (TlsConnector::from(Arc::new(config)), name)
}

fn server_name(uri: &Uri) -> Option<ServerName<'static>> {
    ServerName::try_from(host(uri)?.to_owned()).ok()
}
