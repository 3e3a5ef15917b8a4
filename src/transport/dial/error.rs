//! Why there is no connection.

use std::error::Error;
use std::io;
use std::time::Duration;

use rustls::{CertificateError, Error as TlsError};
use thiserror::Error as ThisError;

use crate::api::cause::Cause;
use crate::api::duration::GoDuration;
use crate::api::text::root_cause;
use crate::api::text::shorten;

/// Why there is no connection to an API server. Addresses are as they were given, without user and password.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum DialError {
    /// No address belongs to the name.
    #[error("the name of the API server {address} cannot be resolved: {reason}")]
    Name {
        /// Host and port.
        address: String,
        /// What the resolver says.
        reason: String,
    },
    /// Nothing listens there.
    #[error("the API server {0} refuses connections: nothing listens there")]
    Refused(String),
    /// No TCP connection is made.
    #[error("no TCP connection to the API server {address}: {reason}")]
    NoConnection {
        /// Host and port.
        address: String,
        /// How that shows.
        reason: String,
    },
    /// The proxy cannot be reached, or lets nothing through.
    #[error("the proxy {address} lets no connection through: {reason}")]
    Proxy {
        /// Host and port of the proxy.
        address: String,
        /// Why.
        reason: String,
    },
    /// The API server is connected to and does not answer the TLS handshake.
    #[error("no answer from the API server within {}", GoDuration::from(*.0))]
    NoAnswer(Duration),
    /// The certificate is signed by somebody else.
    #[error("the API server's certificate is not signed by the CA bundle that is given for it")]
    UnknownAuthority,
    /// There is no CA bundle, and the certificate is not signed by one of the system's authorities.
    #[error(
        "no CA bundle is given for the API server, and the system's authorities have not signed its certificate"
    )]
    NoBundle,
    /// The certificate has expired.
    #[error("the API server's certificate has expired")]
    CertificateExpired,
    /// The certificate is not valid yet.
    #[error("the API server's certificate is not valid yet")]
    CertificateNotYetValid,
    /// The certificate is for other names.
    #[error("the API server's certificate is not for {expected}{}", but(.presented))]
    CertificateName {
        /// The name or address that is asked for.
        expected: String,
        /// What the certificate is for; may be empty.
        presented: String,
    },
    /// TLS cannot be agreed on.
    #[error("no TLS connection to the API server {address}: {reason}")]
    Tls {
        /// Host and port.
        address: String,
        /// What rustls says.
        reason: String,
    },
}

impl DialError {
    /// Its name among all causes.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Name { .. } => Cause::NameUnknown,
            Self::Refused(_) => Cause::ConnectionRefused,
            Self::NoConnection { .. } => Cause::NoConnection,
            Self::Proxy { .. } => Cause::ProxyFailed,
            Self::NoAnswer(_) => Cause::NoAnswer,
            Self::UnknownAuthority | Self::NoBundle => Cause::UnknownAuthority,
            Self::CertificateExpired => Cause::CertificateExpired,
            Self::CertificateNotYetValid => Cause::CertificateNotYetValid,
            Self::CertificateName { .. } => Cause::CertificateNameMismatch,
            Self::Tls { .. } => Cause::TLSFailed,
        }
    }

    /// What a TLS handshake with the API server at `address` ended in, whose certificate was held against a bundle, or against
    /// the system's authorities.
    pub(super) fn of_tls(error: &io::Error, address: String, has_bundle: bool) -> Self {
        let invalid = match error.get_ref().and_then(|error| error.downcast_ref()) {
            Some(TlsError::InvalidCertificate(invalid)) => invalid,
            Some(TlsError::InvalidMessage(_)) => {
                return Self::Tls { address, reason: "it does not speak TLS".to_owned() };
            }
            Some(other) => return Self::Tls { address, reason: shorten(&other.to_string()) },
            None => return Self::Tls { address, reason: root_cause(error) },
        };
        match invalid {
            // Another authority of the same name is one whose signature does not hold.
            CertificateError::UnknownIssuer | CertificateError::BadSignature if has_bundle => {
                Self::UnknownAuthority
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::NoBundle,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::CertificateExpired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::CertificateNotYetValid
            }
            CertificateError::NotValidForNameContext { expected, presented } => Self::CertificateName {
                expected: expected.to_str().into_owned(),
                presented: shorten(&presented.iter().map(|name| plain(name)).collect::<Vec<_>>().join(", ")),
            },
            CertificateError::NotValidForName => {
                Self::CertificateName { expected: address, presented: String::new() }
            }
            other => Self::Tls { address, reason: shorten(&other.to_string()) },
        }
    }
}

/// Why no TCP connection was made, to an API server or to a proxy.
pub(super) enum TcpError {
    Name(String),
    Refused,
    Other(String),
}

/// The resolver knows no address of a name.
#[derive(Debug, ThisError)]
#[error("{0}")]
pub(super) struct NameError(#[from] io::Error);

impl TcpError {
    /// What the connector's error means.
    pub(super) fn of(error: &(dyn Error + 'static)) -> Self {
        let mut cause = error;
        loop {
            if let Some(name) = cause.downcast_ref::<NameError>() {
                return Self::Name(name.to_string());
            }
            let is_refusal = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
            if cause.downcast_ref().is_some_and(is_refusal) {
                return Self::Refused;
            }
            match cause.source() {
                Some(source) => cause = source,
                None => return Self::Other(root_cause(cause)),
            }
        }
    }

    pub(super) fn timeout(after: Duration) -> Self {
        Self::Other(format!("timeout after {}", GoDuration::from(after)))
    }

    pub(super) fn of_api_server(self, address: String) -> DialError {
        match self {
            Self::Name(reason) => DialError::Name { address, reason },
            Self::Refused => DialError::Refused(address),
            Self::Other(reason) => DialError::NoConnection { address, reason },
        }
    }

    pub(super) fn of_proxy(self, address: String) -> DialError {
        let reason = match self {
            Self::Name(reason) => format!("its name cannot be resolved: {reason}"),
            Self::Refused => "it refuses connections: nothing listens there".to_owned(),
            Self::Other(reason) => format!("no TCP connection to it: {reason}"),
        };
        DialError::Proxy { address, reason }
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
