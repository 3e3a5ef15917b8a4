//! The way to a member gone step by step, to find out where it ends. Queries go it in one step.

use std::io;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::DATE;
use rustls::{CertificateError, Error as TlsError};
use thiserror::Error as ThisError;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::client::{Client, Limits};
use super::failure::Failure;
use crate::api::duration::GoDuration;
use crate::transport::credentials::{Credentials, Trust, address};
use crate::transport::dial::{DialError, Dialer};
use crate::transport::error::root_cause;
use crate::transport::tls::TrustError;

/// Where the way ends. Addresses are as they were given; a proxy's has no password in it.
#[derive(Debug, ThisError)]
pub enum Obstacle {
    /// The CA bundle, the endpoint or the proxy cannot be used.
    #[error(transparent)]
    Settings(#[from] TrustError),
    /// No address belongs to the name.
    #[error("{hop} has a name that cannot be resolved: {cause}")]
    Name {
        /// Whose name.
        hop: Hop,
        /// What the resolver says.
        cause: String,
    },
    /// Nothing listens there.
    #[error("{0} refuses connections: nothing listens there")]
    Refused(Hop),
    /// Nobody answers there.
    #[error("{hop} does not answer: {cause}")]
    Silent {
        /// Who does not.
        hop: Hop,
        /// How that shows.
        cause: String,
    },
    /// The proxy answers and lets nothing through.
    #[error("{hop} does not let connections through: {cause}")]
    Proxy {
        /// The proxy.
        hop: Hop,
        /// What it says.
        cause: String,
    },
    /// It is connected to and says nothing.
    #[error("{hop} takes connections and does not shake hands within {}", GoDuration::from(*.patience))]
    Handshake {
        /// Who does not.
        hop: Hop,
        /// How long it had.
        patience: Duration,
    },
    /// The certificate is signed by somebody else.
    #[error("its certificate is not signed by the CA bundle of its Secret")]
    Authority,
    /// There is no CA bundle, and the certificate is not signed by one of the system's authorities.
    #[error("its Secret has no caBundle, and the system's authorities have not signed its certificate")]
    NoBundle,
    /// The certificate has ended.
    #[error("its certificate has expired")]
    Expired,
    /// The certificate has not begun.
    #[error("its certificate is not valid yet")]
    NotYetValid,
    /// The certificate is for other names.
    #[error("its certificate is not for {expected}{}", but(.presented))]
    CertificateName {
        /// The endpoint's host.
        expected: String,
        /// What the certificate is for; may be empty.
        presented: String,
    },
    /// TLS cannot be agreed on.
    #[error("no TLS connection: {0}")]
    Tls(String),
    /// There is a connection and no answer on it.
    #[error("it does not answer /version: {0}")]
    Answer(Failure),
}

/// Who is spoken to first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Host and port.
    pub address: String,
    /// Whether that is the proxy.
    pub is_proxy: bool,
}

/// How an API server that was reached answers `/version`.
#[derive(Clone, Copy, Debug)]
pub struct Greeting {
    /// The HTTP status: 401 and 403 say what it thinks of the token.
    pub status: StatusCode,
    /// How far its clock is from this one: how much, and whether it is ahead. `None` if it does not say.
    pub skew: Option<(Duration, bool)>,
}

/// Goes the whole way; each step may take `limits.timeout`.
///
/// # Errors
/// Where it ends.
pub async fn examine(credentials: &Credentials, limits: &Limits) -> Result<Greeting, Obstacle> {
    // Its own time is not up first.
    let dialer = Dialer::new(credentials, limits.handshakes.clone(), limits.timeout * 2)?;
    let hop = Hop::first(credentials)?;
    reach(&hop, limits.timeout).await?;
    match timeout(limits.timeout, dialer.dial()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(obstacle(&error, &hop, &credentials.trust)),
        Err(_) => return Err(Obstacle::Handshake { hop, patience: limits.timeout }),
    }
    let client = Client::new(credentials.clone(), limits)?;
    let answer = timeout(limits.timeout, client.head("/version")).await;
    let head = answer.unwrap_or(Err(Failure::Timeout(limits.timeout))).map_err(Obstacle::Answer)?;
    let date = head.headers.get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    Ok(Greeting { status: head.status, skew: date.map(skew) })
}

impl Hop {
    fn first(credentials: &Credentials) -> Result<Self, TrustError> {
        let endpoint = credentials.endpoint.uri("/").map_err(|_| TrustError::Endpoint)?;
        let (uri, is_proxy) = credentials.proxy().map_or((&endpoint, false), |proxy| (&proxy.url, true));
        Ok(Self { address: address(uri), is_proxy })
    }
}

impl std::fmt::Display for Hop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", if self.is_proxy { "the proxy" } else { "its API server" }, self.address)
    }
}

/// Connects once, only to see that somebody is there.
async fn reach(hop: &Hop, patience: Duration) -> Result<(), Obstacle> {
    let nameless = |cause| Obstacle::Name { hop: hop.clone(), cause };
    let silent = |cause| Obstacle::Silent { hop: hop.clone(), cause };
    let within = GoDuration::from(patience);
    let resolved = timeout(patience, lookup_host(&hop.address)).await;
    let resolved = resolved.map_err(|_| nameless(format!("the resolver does not answer within {within}")))?;
    let addresses: Vec<_> = resolved.map_err(|error| nameless(error.to_string()))?.collect();
    match timeout(patience, TcpStream::connect(&addresses[..])).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Err(Obstacle::Refused(hop.clone()))
        }
        Ok(Err(error)) => Err(silent(error.to_string())),
        Err(_) => Err(silent(format!("no TCP connection within {within}; packets seem to be dropped"))),
    }
}

fn obstacle(error: &DialError, hop: &Hop, trust: &Trust) -> Obstacle {
    match error {
        DialError::Tls(error) => tls_obstacle(error, hop, trust),
        DialError::ProxyTls(_) | DialError::Proxy(_) | DialError::ProxyStatus { .. } => {
            Obstacle::Proxy { hop: hop.clone(), cause: error.to_string() }
        }
        DialError::Tcp(_) => Obstacle::Silent { hop: hop.clone(), cause: error.to_string() },
        DialError::Timeout(patience) => Obstacle::Handshake { hop: hop.clone(), patience: *patience },
    }
}

fn tls_obstacle(error: &io::Error, hop: &Hop, trust: &Trust) -> Obstacle {
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(TlsError::InvalidCertificate(invalid)) => match invalid {
            // Another authority of the same name is one whose signature does not hold.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => match trust {
                Trust::System => Obstacle::NoBundle,
                Trust::Bundle(_) | Trust::Anything => Obstacle::Authority,
            },
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Obstacle::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Obstacle::NotYetValid
            }
            CertificateError::NotValidForNameContext { expected, presented } => Obstacle::CertificateName {
                expected: expected.to_str().into_owned(),
                presented: presented.iter().map(|name| plain(name)).collect::<Vec<_>>().join(", "),
            },
            CertificateError::NotValidForName => {
                Obstacle::CertificateName { expected: hop.address.clone(), presented: String::new() }
            }
            other => Obstacle::Tls(other.to_string()),
        },
        Some(TlsError::InvalidMessage(_)) => Obstacle::Tls(format!("{} does not speak TLS", hop.address)),
        Some(other) => Obstacle::Tls(other.to_string()),
        None => Obstacle::Tls(root_cause(error)),
    }
}

fn skew(theirs: SystemTime) -> (Duration, bool) {
    match theirs.duration_since(SystemTime::now()) {
        Ok(ahead) => (ahead, true),
        Err(behind) => (behind.duration(), false),
    }
}

/// The name in rustls' `DnsName("example.org")`.
fn plain(presented: &str) -> &str {
    let inner = presented.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(presented).trim_matches('"')
}

fn but(presented: &str) -> String {
    if presented.is_empty() { String::new() } else { format!(", but for {presented}") }
}
