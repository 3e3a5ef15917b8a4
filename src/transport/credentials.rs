//! How to reach an API server, and with which credentials. The types are plain data: a comparison shows whether they changed.

use std::fmt;
use std::sync::Arc;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use thiserror::Error;

/// Everything that a connection to an API server needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The address of the API server.
    pub endpoint: Endpoint,
    pub user: UserCredentials,
    /// Which certificates of the API server are accepted.
    pub verification: ServerVerification,
    /// The name that the API server's certificate must have. `None` means the host of the endpoint.
    pub server_name: Option<ServerName<'static>>,
    /// The configured proxy. `None` means the proxy of the environment ([`super::environment::proxy_of`]).
    pub proxy: Option<Proxy>,
}

/// The address of an API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    scheme: Scheme,
    authority: Authority,
    prefix: String,
}

/// The credentials of a user: a token, a client certificate, both or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserCredentials {
    /// Sent in the `Authorization` header.
    pub token: Option<BearerToken>,
    /// Presented in the TLS handshake.
    pub certificate: Option<ClientCertificate>,
}

/// A client certificate and its key. `Debug` does not print them.
#[derive(Clone)]
pub struct ClientCertificate {
    pem: [Vec<u8>; 2],
    key: Arc<CertifiedKey>,
}

/// A bearer token. `Debug` does not print it.
#[derive(Clone, PartialEq, Eq)]
pub struct BearerToken(HeaderValue);

/// Which certificates of an API server are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerVerification {
    AnyCertificate,
    /// Certificates that a CA of the system has signed.
    System,
    /// Certificates that a CA of this PEM bundle has signed, or that the bundle itself contains.
    Bundle(Vec<u8>),
}

/// A proxy between this process and the API server.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// A URL with `http`, `https`, `socks5` or `socks5h`, optionally with user and password.
    pub url: Uri,
    /// Headers of the CONNECT request.
    pub headers: HeaderMap,
}

/// Why credentials are invalid.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CredentialsError {
    /// The endpoint is not a valid address.
    #[error("the endpoint {0:?} is not the URL of an API server; use a URL such as https://host:6443")]
    Endpoint(String),
    /// The token contains line breaks or other characters that are not allowed in a header.
    #[error("the token contains characters that are not allowed in a header")]
    Token,
    /// The client certificate or its key is malformed, or the key is for another certificate.
    #[error("the client certificate is invalid: {0}")]
    ClientCertificate(String),
    /// The name that the API server's certificate must have is not a valid name.
    #[error("the TLS server name {0:?} is neither a DNS name nor an IP address")]
    ServerName(String),
    /// The URL of the proxy is malformed or has an unsupported scheme.
    #[error(
        "the proxy {0:?} is not a URL with http, https, socks5 or socks5h, a host and a port up to 65535"
    )]
    Proxy(String),
    /// A header for the proxy is malformed.
    #[error("the proxy header {0:?} is invalid")]
    ProxyHeader(String),
}

impl Credentials {
    /// These credentials with the token of an exec plugin. The certificate of the plugin, if there is one, replaces the
    /// certificate here.
    pub fn with_user(&self, user: UserCredentials) -> Self {
        let certificate = user.certificate.or_else(|| self.user.certificate.clone());
        Self { user: UserCredentials { token: user.token, certificate }, ..self.clone() }
    }
}

impl Endpoint {
    /// Parses `Cluster.spec.apiEndpoint`, or `server` of a kubeconfig. The default scheme is https. A path is used as a prefix
    /// (`rest.DefaultServerURL` of client-go).
    ///
    /// # Errors
    /// If the text is not a valid address.
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        let malformed = || CredentialsError::Endpoint(without_user_info(text));
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

    /// The URL of a resource below the endpoint. `path` starts with a slash and is percent-encoded.
    ///
    /// # Errors
    /// If the path contains characters that are not allowed in a path.
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
    /// Parses the token of a Secret. Whitespace around the token is removed.
    ///
    /// # Errors
    /// If the token contains characters that are not allowed in a header.
    pub fn parse(token: &[u8]) -> Result<Self, CredentialsError> {
        let token = token.trim_ascii();
        let mut value =
            HeaderValue::from_bytes(&[b"Bearer ", token].concat()).map_err(|_| CredentialsError::Token)?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

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
    /// Parses a certificate chain and its key, both in PEM.
    ///
    /// # Errors
    /// If the chain or the key is malformed, or the key is for another certificate.
    pub fn parse(chain: Vec<u8>, key: Vec<u8>) -> Result<Self, CredentialsError> {
        let invalid = |reason: &str| CredentialsError::ClientCertificate(reason.to_owned());
        let certificates = CertificateDer::pem_slice_iter(&chain).collect::<Result<Vec<_>, _>>();
        let certificates = certificates.ok().filter(|chain| !chain.is_empty());
        let certificates = certificates.ok_or_else(|| invalid("it is not a PEM certificate"))?;
        let private = PrivateKeyDer::from_pem_slice(&key).map_err(|_| invalid("its key is not a PEM key"))?;
        let certified = CertifiedKey::from_der(certificates, private, &aws_lc_rs::default_provider());
        let certified = certified.map_err(|error| invalid(&error.to_string()))?;
        Ok(Self { pem: [chain, key], key: Arc::new(certified) })
    }

    /// The chain and the key in the type of rustls.
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
    /// Parses `Cluster.spec.proxyURL` and `proxyHeader`. Header values are split at commas, as in Karmada
    /// (`util.BuildClusterConfig`).
    ///
    /// # Errors
    /// If the URL or a header is malformed.
    pub fn parse<'a>(
        url: &str,
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, CredentialsError> {
        let malformed = || CredentialsError::Proxy(without_user_info(url));
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

/// Host and port of a URL, without user and password. The default port is the port of the scheme.
pub fn address(url: &Uri) -> String {
    format!("{}:{}", url.host().unwrap_or_default(), port(url))
}

/// The port of a URL. The default is the port of the scheme.
pub(super) fn port(url: &Uri) -> u16 {
    url.port_u16().unwrap_or(match url.scheme_str() {
        Some("http") => 80,
        Some("socks5" | "socks5h") => 1080,
        _ => 443,
    })
}

/// The host of a URL. An IPv6 address has no brackets.
pub(super) fn host(url: &Uri) -> Option<&str> {
    Some(url.host()?.trim_start_matches('[').trim_end_matches(']'))
}

/// Whether there is a host and, after a colon, a valid port. The `http` crate accepts any text as port, and then has no port.
fn has_host_and_port(authority: &Authority) -> bool {
    let address = authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, address)| address);
    let (host, rest) = address.split_at(authority.host().len().min(address.len()));
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    !host.is_empty() && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port))
}

/// The URL for messages: user and password before the host are removed.
fn without_user_info(url: &str) -> String {
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
    fn default_scheme_is_https_and_path_is_a_prefix() {
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
    fn invalid_addresses_are_rejected() {
        for text in ["", "https://", "ftp://host", "https://user:secret@host", "ht tp://x"] {
            assert!(Endpoint::parse(text).is_err(), "{text:?}");
        }
        // An invalid port must not be replaced with the default port.
        for port in ["65536", "-1", "6443x", "+443", "99999999999999999999", ""] {
            let rejected = Endpoint::parse(&format!("https://host:{port}"));
            assert_eq!(rejected, Err(CredentialsError::Endpoint(format!("https://host:{port}"))));
            let rejected = Proxy::parse(&format!("http://user:s3cr3t@host:{port}"), []);
            assert_eq!(rejected.unwrap_err(), CredentialsError::Proxy(format!("…@host:{port}")));
            assert!(Proxy::parse(&format!("socks5h://[::1]:{port}"), []).is_err());
        }
        assert!(Proxy::parse("socks5h://[::1]:1080", []).is_ok());
    }

    #[test]
    fn debug_output_has_no_secrets() {
        let token = BearerToken::parse(b"s3cr3t-token\n").expect("a token");
        let proxy = Proxy::parse("http://user:s3cr3t@proxy:3128", [("X-Key", "s3cr3t,b")]).expect("a proxy");
        assert_eq!(proxy.headers.get_all("x-key").iter().count(), 2);
        assert!(!format!("{token:?} {proxy:?}").contains("s3cr3t"));
    }
}
