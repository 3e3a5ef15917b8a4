//! TLS for those who ask: which certificate is shown, which versions and suites are spoken, and how a client's
//! certificate is asked for without being judged.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{DistinguishedName, ServerConfig};
use thiserror::Error;
use tokio_util::task::AbortOnDropHandle;

use super::certificate::{CertificateError, ServingCertificate};
use crate::config::{Serving, ServingTls, TlsVersion};
use crate::process::expiry::Expiry;
use crate::transport::signatures::signature_checks;

/// What a client and this server agree on when they speak HTTP/2 (RFC 7301).
pub const HTTP2: &[u8] = b"h2";

/// Why TLS cannot be served.
#[derive(Debug, Error)]
pub enum TlsError {
    /// There is no certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// No suite is left.
    #[error("--tls-cipher-suites: none of the given suites is served; for TLS 1.3 leave it out")]
    NoSuite,
}

/// The TLS settings of the secure port. The certificate's files are followed as long as the handle is kept.
///
/// # Errors
/// If there is nothing to serve with.
pub fn server_config(
    serving: &Serving,
    expiry: &Expiry,
) -> Result<(ServerConfig, Option<AbortOnDropHandle<()>>), TlsError> {
    let provider = Arc::new(provider(&serving.tls)?);
    let versions = match serving.tls.min_version {
        TlsVersion::Tls12 => &[&TLS13, &TLS12][..],
        TlsVersion::Tls13 => &[&TLS13][..],
    };
    let (shown, following) =
        ServingCertificate::new(&serving.tls, &provider, serving.reload_interval, expiry)?;
    let asking = OptionalClientCert { algorithms: provider.signature_verification_algorithms };
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|_| TlsError::NoSuite)?
        .with_client_cert_verifier(Arc::new(asking))
        .with_cert_resolver(shown);
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    if serving.http2 {
        server.alpn_protocols.insert(0, HTTP2.to_vec());
    }
    Ok((server, following))
}

/// The suites that are named, as far as they are known; as in Go, names concern TLS 1.2 only, and all of TLS 1.3's
/// are always served.
fn provider(config: &ServingTls) -> Result<CryptoProvider, TlsError> {
    let mut provider = aws_lc_rs::default_provider();
    if config.cipher_suites.is_empty() {
        return Ok(provider);
    }
    let name = |suite: &rustls::SupportedCipherSuite| {
        let name = suite.suite().as_str().unwrap_or_default().replace("TLS13_", "TLS_");
        // Go leaves the hash out of the names of these two.
        let short =
            name.strip_suffix("_SHA256").filter(|short| short.ends_with("POLY1305")).map(str::to_owned);
        (name, short)
    };
    let known: Vec<(String, Option<String>)> = provider.cipher_suites.iter().map(name).collect();
    let is = |wanted: &String, (name, short): &(String, Option<String>)| {
        wanted == name || Some(wanted) == short.as_ref()
    };
    for wanted in &config.cipher_suites {
        if !known.iter().any(|suite| is(wanted, suite)) {
            tracing::warn!(
                suite = wanted,
                "--tls-cipher-suites names a suite that is not served; it is passed over"
            );
        }
    }
    provider.cipher_suites.retain(|suite| {
        suite.tls13().is_some() || config.cipher_suites.iter().any(|wanted| is(wanted, &name(suite)))
    });
    let tls12_left = provider.cipher_suites.iter().any(|suite| suite.tls13().is_none());
    let tls13_named = known.iter().zip(aws_lc_rs::default_provider().cipher_suites).any(|(suite, of)| {
        of.tls13().is_some() && config.cipher_suites.iter().any(|wanted| is(wanted, suite))
    });
    if tls12_left || tls13_named { Ok(provider) } else { Err(TlsError::NoSuite) }
}

/// Asks for a certificate and proves that the client holds its key; whether its chain holds is found out when a
/// request comes, since a client with a bad certificate may still be somebody by other means.
#[derive(Debug)]
struct OptionalClientCert {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for OptionalClientCert {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    signature_checks!();
}
