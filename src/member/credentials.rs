//! How to reach a member's API server: plain data, compared to see what changed.

use std::fmt;
use std::sync::Arc;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use thiserror::Error;

/// All that a connection to a member needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Where the API server is.
    pub endpoint: Endpoint,
    /// Whom it is asked as.
    pub login: Login,
    /// Which certificates it may show.
    pub trust: Trust,
    /// The name that its certificate must have, if it is not the endpoint's.
    pub server_name: Option<ServerName<'static>>,
    /// What stands between.
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
pub struct Login {
    /// In the `Authorization` header.
    pub token: Option<Token>,
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
pub struct Token(HeaderValue);

/// Which serving certificates are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
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
    /// `http`, `https` or `socks5`, with user and password if it wants them.
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
    #[error("the proxy URL is neither http://, https:// nor socks5:// with a host")]
    Proxy,
    /// A header for the proxy is malformed.
    #[error("the proxy header {0:?} is no header")]
    ProxyHeader(String),
}

impl Endpoint {
    /// Reads `Cluster.spec.apiEndpoint`, or `server` of a kubeconfig: no scheme means https, a path stays as prefix
    /// (`rest.DefaultServerURL` of client-go).
    ///
    /// # Errors
    /// If it is no address.
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        // A user and a password before the host are shown to nobody.
        let shown = text.rsplit_once('@').map_or_else(|| text.to_owned(), |(_, host)| format!("…@{host}"));
        let malformed = || CredentialsError::Endpoint(shown.clone());
        let text = text.trim();
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let parts = with_scheme.parse::<Uri>().map_err(|_| malformed())?.into_parts();
        let scheme = parts.scheme.filter(|scheme| *scheme == Scheme::HTTPS || *scheme == Scheme::HTTP);
        let authority = parts.authority.filter(|authority| !authority.as_str().contains('@'));
        let prefix = parts.path_and_query.as_ref().map_or("", PathAndQuery::path).trim_end_matches('/');
        Ok(Self {
            scheme: scheme.ok_or_else(malformed)?,
            authority: authority.filter(|authority| !authority.host().is_empty()).ok_or_else(malformed)?,
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

impl Token {
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

impl fmt::Debug for Token {
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
        let url = url.trim().parse::<Uri>().map_err(|_| CredentialsError::Proxy)?;
        if !matches!(url.scheme_str(), Some("http" | "https" | "socks5")) || url.host().is_none() {
            return Err(CredentialsError::Proxy);
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
    }

    #[test]
    fn neither_tokens_nor_proxy_passwords_are_shown() {
        let token = Token::parse(b"s3cr3t-token\n").expect("a token");
        let proxy = Proxy::parse("http://user:s3cr3t@proxy:3128", [("X-Key", "s3cr3t,b")]).expect("a proxy");
        assert_eq!(proxy.headers.get_all("x-key").iter().count(), 2);
        assert!(!format!("{token:?} {proxy:?}").contains("s3cr3t"));
    }
}
