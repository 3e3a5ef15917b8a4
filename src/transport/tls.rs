//! TLS settings for connections to an API server, and the verification of its certificate.

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

/// Why the settings for a connection to an API server are invalid.
#[derive(Debug, Error)]
pub enum TlsConfigError {
    /// The CA bundle contains no valid certificate.
    #[error("the CA bundle has no valid PEM certificate")]
    EmptyBundle,
    /// There is no CA bundle, and the system has no root certificates.
    #[error("no CA bundle is given and the system has no root certificates")]
    NoSystemRoots,
    /// The endpoint is not a valid address.
    #[error("the endpoint is not a valid address")]
    Endpoint,
    /// The proxy's address or credentials are invalid.
    #[error("the proxy's address or credentials are invalid")]
    Proxy,
    /// rustls does not accept the root certificates.
    #[error("the CA bundle cannot be used: {0}")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
    /// rustls does not accept the settings.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// TLS settings of a client, without ALPN.
///
/// # Errors
/// If there are no root certificates, or rustls does not accept the settings.
pub fn client_config(verification: &ServerVerification) -> Result<ClientConfig, TlsConfigError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let (roots, bundle) = match verification {
        ServerVerification::AnyCertificate => (None, Vec::new()),
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

/// Accepts a certificate that a CA of the bundle has signed. It also accepts a certificate that the bundle itself contains, as
/// Go's `x509.Verify` does and webpki does not. In all cases the server must prove that it has the certificate's key.
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
        let result = chain.verify_server_cert(leaf, intermediates, name, ocsp, now);
        if result.is_err() && self.bundle.contains(leaf) {
            return pinned_leaf(leaf, name, now);
        }
        result
    }

    signature_checks!();
}

/// Checks the name and the validity period of a certificate that the bundle contains.
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
