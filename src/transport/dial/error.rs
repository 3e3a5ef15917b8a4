//! Errors of connecting to an API server.

use std::error::Error;
use std::io;
use std::time::Duration;

use rustls::{CertificateError, Error as TlsError};
use thiserror::Error as ThisError;

use crate::api::cause::Cause;
use crate::api::duration::GoDuration;
use crate::api::text::root_cause;
use crate::api::text::shorten;

/// Why there is no connection to an API server. Addresses are as configured, without user and password.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum DialError {
    /// The resolver finds no address for the name.
    #[error("the name of the API server {address} cannot be resolved: {reason}")]
    Name {
        /// Host and port.
        address: String,
        /// The error of the resolver.
        reason: String,
    },
    /// The host refuses the TCP connection.
    #[error("the API server {0} refuses connections: nothing listens there")]
    Refused(String),
    /// The TCP connection cannot be established.
    #[error("no TCP connection to the API server {address}: {reason}")]
    NoConnection {
        /// Host and port.
        address: String,
        /// The error of the operating system, or the timeout.
        reason: String,
    },
    /// The proxy cannot be reached, or it does not connect to the API server.
    #[error("the proxy {address} failed to connect: {reason}")]
    Proxy {
        /// Host and port of the proxy.
        address: String,
        /// The status of the proxy, or another error.
        reason: String,
    },
    /// The TCP connection is established, but the TLS handshake has no response within this time.
    #[error("no response from the API server within {}", GoDuration::from(*.0))]
    NoAnswer(Duration),
    /// No CA of the given CA bundle has signed the certificate.
    #[error("the API server's certificate is not signed by a CA in the given CA bundle")]
    UnknownAuthority,
    /// No CA bundle is given, and no CA of the system has signed the certificate.
    #[error(
        "no CA bundle is given for the API server, and its certificate is not signed by a CA of the system"
    )]
    NoBundle,
    /// The certificate has expired.
    #[error("the API server's certificate has expired")]
    CertificateExpired,
    /// The certificate is not valid yet.
    #[error("the API server's certificate is not valid yet")]
    CertificateNotYetValid,
    /// The certificate is not valid for the name or IP address.
    #[error("the API server's certificate is not valid for {expected}{}", valid_for(.presented))]
    CertificateName {
        /// The expected name or IP address.
        expected: String,
        /// The names in the certificate; may be empty.
        presented: String,
    },
    /// The TLS handshake failed for another reason.
    #[error("no TLS connection to the API server {address}: {reason}")]
    Tls {
        /// Host and port.
        address: String,
        /// The error of rustls.
        reason: String,
    },
}

impl DialError {
    /// The cause of this error.
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

    /// Classifies the error of a TLS handshake with the API server at `address`. `has_bundle` means that the certificate was
    /// verified with a given CA bundle, not with the CAs of the system.
    pub(super) fn from_tls(error: &io::Error, address: String, has_bundle: bool) -> Self {
        let invalid = match error.get_ref().and_then(|error| error.downcast_ref()) {
            Some(TlsError::InvalidCertificate(invalid)) => invalid,
            Some(TlsError::InvalidMessage(_)) => {
                return Self::Tls { address, reason: "the server does not speak TLS".to_owned() };
            }
            Some(other) => return Self::Tls { address, reason: shorten(&other.to_string()) },
            None => return Self::Tls { address, reason: root_cause(error) },
        };
        match invalid {
            // With another CA of the same name, the signature is invalid.
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
                presented: shorten(
                    &presented.iter().map(|name| plain_name(name)).collect::<Vec<_>>().join(", "),
                ),
            },
            CertificateError::NotValidForName => {
                Self::CertificateName { expected: address, presented: String::new() }
            }
            other => Self::Tls { address, reason: shorten(&other.to_string()) },
        }
    }
}

/// Why the TCP connection to an API server or to a proxy was not established.
pub(super) enum TcpError {
    Name(String),
    Refused,
    Other(String),
}

/// The resolver found no address for a name.
#[derive(Debug, ThisError)]
#[error("{0}")]
pub(super) struct NameError(#[from] io::Error);

impl TcpError {
    /// Classifies an error of the connector.
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

    pub(super) fn for_api_server(self, address: String) -> DialError {
        match self {
            Self::Name(reason) => DialError::Name { address, reason },
            Self::Refused => DialError::Refused(address),
            Self::Other(reason) => DialError::NoConnection { address, reason },
        }
    }

    pub(super) fn for_proxy(self, address: String) -> DialError {
        let reason = match self {
            Self::Name(reason) => format!("its name cannot be resolved: {reason}"),
            Self::Refused => "it refuses connections: nothing listens there".to_owned(),
            Self::Other(reason) => format!("no TCP connection to it: {reason}"),
        };
        DialError::Proxy { address, reason }
    }
}

/// The name in `DnsName("example.org")`, which is the format of rustls.
fn plain_name(presented: &str) -> &str {
    let inner = presented.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(presented).trim_matches('"')
}

fn valid_for(presented: &str) -> String {
    if presented.is_empty() { String::new() } else { format!("; it is valid for {presented}") }
}
