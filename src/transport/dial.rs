//! The way to an API server: direct, or through a proxy; then TLS.

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

/// How long a handshake counts among those that go on at a time.
const HANDSHAKE: Duration = Duration::from_millis(250);
/// Most bytes of the head of a proxy's response to CONNECT.
const PROXY_HEAD: usize = 256 << 10;

type BoxError = Box<dyn Error + Send + Sync>;

/// The right to begin a handshake.
pub type HandshakePermit<'a> = SemaphorePermit<'a>;

/// A stream of bytes: TCP, or what is spoken on it.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Dials: one connection for each call, on which the API server chose HTTP/2 or HTTP/1.1.
pub struct Dialer {
    target: Uri,
    /// The settings, and the name that the certificate must have; `None` for plain HTTP.
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// Whether a CA bundle is given, or the system's authorities decide.
    has_bundle: bool,
    proxy: Option<ProxyHop>,
    /// Bounds how many handshakes go on at a time.
    handshakes: Arc<Semaphore>,
    timeout: Duration,
}

/// The proxy on the way.
struct ProxyHop {
    /// Where it is: `http://host:port`.
    address: Uri,
    /// For one that speaks TLS.
    tls: Option<(TlsConnector, ServerName<'static>)>,
    protocol: ProxyProtocol,
}

enum ProxyProtocol {
    /// HTTP CONNECT, with these headers.
    Connect(HeaderMap),
    /// SOCKS5, with a user and a password if it wants them.
    Socks5(Option<(String, String)>),
}

impl Dialer {
    /// A dialer for the endpoint of these credentials; connecting and the handshake may take `timeout`.
    ///
    /// # Errors
    /// If the endpoint, the CA bundle or the proxy cannot be used.
    pub fn new(
        credentials: &Credentials,
        handshakes: Arc<Semaphore>,
        timeout: Duration,
    ) -> Result<Self, TlsConfigError> {
        let target = credentials.endpoint.uri("/").map_err(|_| TlsConfigError::Endpoint)?;
        let tls = if target.scheme() == Some(&Scheme::HTTPS) {
            let mut config = client_config(&credentials.trust)?;
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            if let Some(certificate) = &credentials.login.certificate {
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
        let has_bundle = matches!(credentials.trust, ServerVerification::Bundle(_));
        Ok(Self { target, tls, has_bundle, proxy, handshakes, timeout })
    }

    /// Waits until a handshake may begin.
    pub async fn turn(&self) -> Option<HandshakePermit<'_>> {
        self.handshakes.acquire().await.ok()
    }

    /// One connection, and whether HTTP/2 is spoken on it.
    ///
    /// # Errors
    /// Where the way ends.
    pub async fn dial(
        &self,
        mut turn: Option<HandshakePermit<'_>>,
    ) -> Result<(Box<dyn Io>, bool), DialError> {
        let mut connecting = std::pin::pin!(self.connect());
        // A handshake that is not done by then waits for the network and costs nothing: others may begin.
        let end_turn = async {
            tokio::time::sleep(HANDSHAKE).await;
            drop(turn.take());
            std::future::pending().await
        };
        tokio::select! {
            connected = &mut connecting => connected,
            never = end_turn => never,
        }
    }

    async fn connect(&self) -> Result<(Box<dyn Io>, bool), DialError> {
        let until = Instant::now() + self.timeout;
        let target = || address(&self.target);
        let stream = match &self.proxy {
            None => self.tcp(&self.target, until).await.map_err(|error| error.of_api_server(target()))?,
            Some(proxy) => {
                let at = || address(&proxy.address);
                let stream = self.tcp(&proxy.address, until).await.map_err(|error| error.of_proxy(at()))?;
                let through = timeout_at(until, proxy.connect(stream, &self.target)).await;
                let late = || format!("no answer within {}", GoDuration::from(self.timeout));
                let through = through.unwrap_or_else(|_| Err(late()));
                through.map_err(|reason| DialError::Proxy { address: at(), reason })?
            }
        };
        let Some((tls, name)) = &self.tls else { return Ok((stream, false)) };
        let stream = timeout_at(until, tls.connect(name.clone(), stream)).await;
        let stream = stream.map_err(|_| DialError::NoAnswer(self.timeout))?;
        let stream = stream.map_err(|error| DialError::of_tls(&error, target(), self.has_bundle))?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((Box::new(stream), is_http2))
    }

    async fn tcp(&self, address: &Uri, until: Instant) -> Result<Box<dyn Io>, TcpError> {
        let connected = timeout_at(until, tcp(address.clone())).await;
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
        // It shows a certificate of its own and not the API server's, so the system's roots verify it.
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

    /// The stream to `target` by way of the proxy, to which `stream` leads.
    async fn connect(&self, mut stream: Box<dyn Io>, target: &Uri) -> Result<Box<dyn Io>, String> {
        if let Some((tls, name)) = &self.tls {
            let encrypted = tls.connect(name.clone(), stream).await;
            let failed = |error| format!("no TLS connection with it: {}", root_cause(&error));
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

// Boxed, since the compiler does not see that the future may be sent.
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

/// Asks the proxy at the other end of `stream` for a connection to `target`.
async fn tunnel(stream: Box<dyn Io>, target: String, headers: HeaderMap) -> Result<Box<dyn Io>, BoxError> {
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(PROXY_HEAD).handshake(TokioIo::new(stream)).await?;
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

/// Asks the SOCKS5 proxy at the other end of `stream` for a connection to `target`, whose name it resolves.
fn socks(
    stream: Box<dyn Io>,
    proxy: Uri,
    target: Uri,
    login: Option<(String, String)>,
) -> BoxFuture<'static, Result<Box<dyn Io>, BoxError>> {
    let mut stream = Some(TokioIo::new(stream));
    let connected = service_fn(move |_: Uri| {
        let stream = stream.take().ok_or_else(|| io::Error::other("it is connected to once"));
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
