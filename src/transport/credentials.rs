//! How to reach an API server: plain data, compared to see what changed.

use std::fmt;
use std::sync::Arc;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use thiserror::Error;

/// All that a connection to an API server needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Where the API server is.
    pub endpoint: Endpoint,
    /// Whom it is asked as.
    pub login: UserCredentials,
    /// Which certificates it may show.
    pub trust: ServerVerification,
    /// The name that its certificate must have, if it is not the endpoint's.
    pub server_name: Option<ServerName<'static>>,
    /// The proxy that it names; without one, the environment's is used ([`super::environment::proxy_of`]).
    pub proxy: Option<Proxy>,
}

/// The address of an API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    scheme: Scheme,
    authority: Authority,
    prefix: String,
}

/// Whom an API server is asked as: both of them may be shown, or neither.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserCredentials {
    /// In the `Authorization` header.
    pub token: Option<BearerToken>,
    /// In the TLS handshake.
    pub certificate: Option<ClientCertificate>,
}

/// A client certificate and its key, which is never shown.
#[derive(Clone)]
pub struct ClientCertificate {
    pem: [Vec<u8>; 2],
    key: Arc<CertifiedKey>,
}

/// A bearer token. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct BearerToken(HeaderValue);

/// Which serving certificates are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerVerification {
    /// Any at all.
    Anything,
    /// Those that the system's roots vouch for.
    System,
    /// Those that this PEM bundle vouches for, or holds.
    Bundle(Vec<u8>),
}

/// A proxy on the way to the API server.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// `http`, `https`, `socks5` or `socks5h`, with user and password if it wants them.
    pub url: Uri,
    /// Headers of the CONNECT request.
    pub headers: HeaderMap,
}

/// Why credentials cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CredentialsError {
    /// The endpoint is no address.
    #[error("the endpoint {0:?} is no URL of an API server; it should look like https://host:6443")]
    Endpoint(String),
    /// The token has line breaks or other characters that no header may have.
    #[error("the token has characters that no token may have")]
    Token,
    /// The client certificate or its key is malformed, or they do not belong together.
    #[error("the client certificate cannot be used: {0}")]
    ClientCertificate(String),
    /// The name that the serving certificate must have is none.
    #[error("the TLS server name {0:?} is neither a DNS name nor an IP address")]
    ServerName(String),
    /// The proxy's URL is of no kind that is spoken here.
    #[error("the proxy {0:?} is no URL with http, https, socks5 or socks5h, a host and a port up to 65535")]
    Proxy(String),
    /// A header for the proxy is malformed.
    #[error("the proxy header {0:?} is no header")]
    ProxyHeader(String),
}

impl Credentials {
    /// The same with what a plugin said: its token, and its certificate in place of the one here.
    pub fn logged_in(&self, login: UserCredentials) -> Self {
        let certificate = login.certificate.or_else(|| self.login.certificate.clone());
        Self { login: UserCredentials { token: login.token, certificate }, ..self.clone() }
    }
}

impl Endpoint {
    /// Reads `Cluster.spec.apiEndpoint`, or `server` of a kubeconfig: no scheme means https, a path stays as prefix
    /// (`rest.DefaultServerURL` of client-go).
    ///
    /// # Errors
    /// If it is no address.
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        let malformed = || CredentialsError::Endpoint(without_login(text));
        let text = text.trim();
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let parts = with_scheme.parse::<Uri>().map_err(|_| malformed())?.into_parts();
        let scheme = parts.scheme.filter(|scheme| *scheme == Scheme::HTTPS || *scheme == Scheme::HTTP);
        let authority = parts.authority.filter(|authority| !authority.as_str().contains('@'));
        let authority = authority.filter(has_host_and_port);
        let prefix = parts.path_and_query.as_ref().map_or("", PathAndQuery::path).trim_end_matches('/');
        Ok(Self {
            scheme: scheme.ok_or_else(malformed)?,
            authority: authority.ok_or_else(malformed)?,
            prefix: prefix.to_owned(),
        })
    }

    /// The address of a resource below the endpoint. `path` starts with a slash and is encoded already.
    ///
    /// # Errors
    /// If the path has characters that no path may have.
    pub fn uri(&self, path: &str) -> Result<Uri, http::Error> {
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(format!("{}{path}", self.prefix))
            .build()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.prefix)
    }
}

impl BearerToken {
    /// A token as it stands in a Secret.
    ///
    /// # Errors
    /// If it cannot stand in a header.
    pub fn parse(token: &[u8]) -> Result<Self, CredentialsError> {
        let token = token.trim_ascii();
        let mut value =
            HeaderValue::from_bytes(&[b"Bearer ", token].concat()).map_err(|_| CredentialsError::Token)?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    /// The `Authorization` header.
    pub fn authorization(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl ClientCertificate {
    /// A chain and its key, both in PEM.
    ///
    /// # Errors
    /// If one of them is malformed, or the key is another's.
    pub fn parse(chain: Vec<u8>, key: Vec<u8>) -> Result<Self, CredentialsError> {
        let refused = |what: &str| CredentialsError::ClientCertificate(what.to_owned());
        let certificates = CertificateDer::pem_slice_iter(&chain).collect::<Result<Vec<_>, _>>();
        let certificates = certificates.ok().filter(|chain| !chain.is_empty());
        let certificates = certificates.ok_or_else(|| refused("it is no PEM certificate"))?;
        let private = PrivateKeyDer::from_pem_slice(&key).map_err(|_| refused("its key is no PEM key"))?;
        let certified = CertifiedKey::from_der(certificates, private, &aws_lc_rs::default_provider());
        let certified = certified.map_err(|error| refused(&error.to_string()))?;
        Ok(Self { pem: [chain, key], key: Arc::new(certified) })
    }

    /// As rustls takes it.
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        self.key.clone()
    }
}

impl PartialEq for ClientCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.pem == other.pem
    }
}

impl Eq for ClientCertificate {}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCertificate(..)")
    }
}

impl Proxy {
    /// Reads `Cluster.spec.proxyURL` and `proxyHeader`, whose values are split at commas as Karmada does
    /// (`util.BuildClusterConfig`).
    ///
    /// # Errors
    /// If the URL or a header is malformed.
    pub fn parse<'a>(
        url: &str,
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, CredentialsError> {
        let malformed = || CredentialsError::Proxy(without_login(url));
        let url = url.trim().parse::<Uri>().map_err(|_| malformed())?;
        let is_known = matches!(url.scheme_str(), Some("http" | "https" | "socks5" | "socks5h"));
        if !is_known || !url.authority().is_some_and(has_host_and_port) {
            return Err(malformed());
        }
        let mut map = HeaderMap::new();
        for (name, values) in headers {
            let malformed = || CredentialsError::ProxyHeader(name.to_owned());
            let header = name.parse::<HeaderName>().map_err(|_| malformed())?;
            for value in values.split(',') {
                map.append(header.clone(), HeaderValue::from_str(value.trim()).map_err(|_| malformed())?);
            }
        }
        Ok(Self { url, headers: map })
    }
}

/// Host and port of a URL, without user and password; where it has no port, that of its scheme.
pub fn address(url: &Uri) -> String {
    format!("{}:{}", url.host().unwrap_or_default(), port(url))
}

/// The port of a URL, or that of its scheme.
pub(super) fn port(url: &Uri) -> u16 {
    url.port_u16().unwrap_or(match url.scheme_str() {
        Some("http") => 80,
        Some("socks5" | "socks5h") => 1080,
        _ => 443,
    })
}

/// The host of a URL, an IPv6 address without its brackets.
pub(super) fn host(url: &Uri) -> Option<&str> {
    Some(url.host()?.trim_start_matches('[').trim_end_matches(']'))
}

/// Whether there is a host and, where there is a colon, a port: http takes any text for one and then knows none.
fn has_host_and_port(authority: &Authority) -> bool {
    let address = authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, address)| address);
    let (host, rest) = address.split_at(authority.host().len().min(address.len()));
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    !host.is_empty() && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port))
}

/// A URL as it may be shown: a user and a password before the host are for nobody's eyes.
fn without_login(url: &str) -> String {
    url.rsplit_once('@').map_or_else(|| url.to_owned(), |(_, host)| format!("…@{host}"))
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host) = (self.url.scheme_str().unwrap_or_default(), self.url.host().unwrap_or_default());
        write!(f, "Proxy({scheme}://{host}:{:?})", self.url.port_u16())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_scheme_means_https_and_a_path_is_a_prefix() {
        let uri =
            |endpoint: &str| Endpoint::parse(endpoint).expect("an address").uri("/apis").expect("a path");
        assert_eq!(uri("10.0.0.1:6443"), "https://10.0.0.1:6443/apis");
        assert_eq!(
            uri("https://rancher.example/k8s/clusters/c-1/"),
            "https://rancher.example/k8s/clusters/c-1/apis"
        );
        assert_eq!(uri("https://[fd00::1]:6443"), "https://[fd00::1]:6443/apis");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "https://", "ftp://host", "https://user:secret@host", "ht tp://x"] {
            assert!(Endpoint::parse(text).is_err(), "{text:?}");
        }
        // A port that is none must not become that of the scheme.
        for port in ["65536", "-1", "6443x", "+443", "99999999999999999999", ""] {
            let refused = Endpoint::parse(&format!("https://host:{port}"));
            assert_eq!(refused, Err(CredentialsError::Endpoint(format!("https://host:{port}"))));
            let refused = Proxy::parse(&format!("http://user:s3cr3t@host:{port}"), []);
            assert_eq!(refused.unwrap_err(), CredentialsError::Proxy(format!("…@host:{port}")));
            assert!(Proxy::parse(&format!("socks5h://[::1]:{port}"), []).is_err());
        }
        assert!(Proxy::parse("socks5h://[::1]:1080", []).is_ok());
    }

    #[test]
    fn neither_tokens_nor_proxy_passwords_are_shown() {
        let token = BearerToken::parse(b"s3cr3t-token\n").expect("a token");
        let proxy = Proxy::parse("http://user:s3cr3t@proxy:3128", [("X-Key", "s3cr3t,b")]).expect("a proxy");
        assert_eq!(proxy.headers.get_all("x-key").iter().count(), 2);
        assert!(!format!("{token:?} {proxy:?}").contains("s3cr3t"));
    }
}
