//! Which serving certificates an API server may show.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::credentials::ServerVerification;
use super::signatures::signature_checks;

/// Why no connection can be made with the given credentials.
#[derive(Debug, Error)]
pub enum TlsConfigError {
    /// The bundle has no certificate in it.
    #[error("the CA bundle has no valid PEM certificate")]
    EmptyBundle,
    /// The system has no roots.
    #[error("no CA bundle is given and the system has no root certificates")]
    NoSystemRoots,
    /// The endpoint is no address.
    #[error("the endpoint is no address")]
    Endpoint,
    /// The proxy's address or credentials cannot be used.
    #[error("the proxy's address or credentials cannot be used")]
    Proxy,
    /// rustls refuses the roots.
    #[error("the CA bundle cannot be used: {0}")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
    /// rustls refuses the settings.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// A client's TLS settings, without ALPN.
///
/// # Errors
/// If the trust is empty.
pub fn client_config(trust: &ServerVerification) -> Result<ClientConfig, TlsConfigError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let (roots, bundle) = match trust {
        ServerVerification::Anything => (None, Vec::new()),
        ServerVerification::System => (Some(system_roots()?), Vec::new()),
        ServerVerification::Bundle(pem) => {
            let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect();
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates.iter().cloned());
            if roots.is_empty() {
                return Err(TlsConfigError::EmptyBundle);
            }
            (Some(roots), certificates)
        }
    };
    let chain =
        |roots| WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    let verifier = Verifier {
        chain: roots.map(chain).transpose()?,
        bundle,
        algorithms: provider.signature_verification_algorithms,
    };
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

fn system_roots() -> Result<RootCertStore, TlsConfigError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(TlsConfigError::NoSystemRoots) } else { Ok(roots) }
}

/// Accepts a chain that ends in the bundle, and a leaf that itself is in the bundle, as Go's `x509.Verify` does and
/// webpki does not. In any case the other side has to hold the certificate's key.
#[derive(Debug)]
struct Verifier {
    /// `None` accepts any certificate: `insecureSkipTLSVerification`.
    chain: Option<Arc<WebPkiServerVerifier>>,
    bundle: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        let verdict = chain.verify_server_cert(leaf, intermediates, name, ocsp, now);
        if verdict.is_err() && self.bundle.contains(leaf) {
            return pinned_leaf(leaf, name, now);
        }
        verdict
    }

    signature_checks!();
}

/// A leaf that the bundle holds still has to be for this name and of this day.
fn pinned_leaf(
    leaf: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<ServerCertVerified, rustls::Error> {
    rustls::client::verify_server_name(&ParsedCertificate::try_from(leaf)?, name)?;
    let (_, certificate) =
        X509Certificate::from_der(leaf).map_err(|_| rustls::Error::from(CertificateError::BadEncoding))?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    if now < validity.not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > validity.not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    Ok(ServerCertVerified::assertion())
}
