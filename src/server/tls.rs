//! TLS settings of the secure port: serving certificate, TLS versions, cipher suites. Client certificates are requested in the
//! handshake and verified later.

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

/// ALPN protocol ID of HTTP/2 (RFC 7301).
pub const HTTP2: &[u8] = b"h2";

/// Why TLS cannot be configured.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The serving certificate cannot be loaded or generated.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// No cipher suite is left.
    #[error("--tls-cipher-suites: none of these cipher suites is supported; for TLS 1.3, omit the flag")]
    NoSuite,
}

/// The TLS settings of the secure port. Changed certificate files are reloaded as long as the handle is kept.
///
/// # Errors
/// If the certificate cannot be loaded or generated, or if no cipher suite is left.
pub fn server_config(
    serving: &Serving,
    expiry: &Expiry,
) -> Result<(ServerConfig, Option<AbortOnDropHandle<()>>), TlsError> {
    let provider = Arc::new(provider(&serving.tls)?);
    let versions = match serving.tls.min_version {
        TlsVersion::Tls12 => &[&TLS13, &TLS12][..],
        TlsVersion::Tls13 => &[&TLS13][..],
    };
    let (certificate, reload_task) =
        ServingCertificate::new(&serving.tls, &provider, serving.reload_interval, expiry)?;
    let verifier = OptionalClientCert { algorithms: provider.signature_verification_algorithms };
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|_| TlsError::NoSuite)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(certificate);
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    if serving.http2 {
        server.alpn_protocols.insert(0, HTTP2.to_vec());
    }
    Ok((server, reload_task))
}

/// The crypto provider with the cipher suites of `--tls-cipher-suites`. As in Go, the flag selects suites of TLS 1.2 only; all
/// suites of TLS 1.3 are always enabled. Unknown names are logged and ignored.
fn provider(config: &ServingTls) -> Result<CryptoProvider, TlsError> {
    let mut provider = aws_lc_rs::default_provider();
    if config.cipher_suites.is_empty() {
        return Ok(provider);
    }
    let name = |suite: &rustls::SupportedCipherSuite| {
        let name = suite.suite().as_str().unwrap_or_default().replace("TLS13_", "TLS_");
        // Go omits the hash in the names of these suites.
        let short =
            name.strip_suffix("_SHA256").filter(|short| short.ends_with("POLY1305")).map(str::to_owned);
        (name, short)
    };
    let known: Vec<(String, Option<String>)> = provider.cipher_suites.iter().map(name).collect();
    let matches = |wanted: &String, (name, short): &(String, Option<String>)| {
        wanted == name || Some(wanted) == short.as_ref()
    };
    for wanted in &config.cipher_suites {
        if !known.iter().any(|suite| matches(wanted, suite)) {
            tracing::warn!(suite = wanted, "--tls-cipher-suites has an unknown cipher suite; it is ignored");
        }
    }
    provider.cipher_suites.retain(|suite| {
        suite.tls13().is_some() || config.cipher_suites.iter().any(|wanted| matches(wanted, &name(suite)))
    });
    let has_tls12 = provider.cipher_suites.iter().any(|suite| suite.tls13().is_none());
    let tls13_requested = known.iter().zip(aws_lc_rs::default_provider().cipher_suites).any(|(suite, of)| {
        of.tls13().is_some() && config.cipher_suites.iter().any(|wanted| matches(wanted, suite))
    });
    if has_tls12 || tls13_requested { Ok(provider) } else { Err(TlsError::NoSuite) }
}

/// Requests a client certificate and checks that the client has its key. The chain is verified later, when a request arrives:
/// a client with an invalid certificate may have other valid credentials.
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
