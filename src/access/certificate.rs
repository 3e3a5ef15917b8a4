//! A certificate that a client has shown: a different thing from an identity until its chain is verified.

use std::sync::{Arc, Mutex};

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, crypto::aws_lc_rs};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The certificate chain of one connection; the handshake has proved that the client holds its key.
#[derive(Debug)]
pub struct Presented {
    chain: Vec<CertificateDer<'static>>,
    /// The last verdict, and the authority that it holds for.
    verdict: Mutex<Option<(usize, Result<Subject, Unverified>)>>,
}

/// A set of authorities that client certificates are checked against.
pub struct Authority {
    verifier: Arc<dyn ClientCertVerifier>,
}

/// Whom a verified certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The common name.
    pub common_name: String,
}

/// Why a certificate is no identity.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum Unverified {
    /// The chain, a date or the usage does not hold.
    #[error("{0}")]
    Chain(rustls::Error),
    /// The certificate cannot be read.
    #[error("the certificate cannot be read")]
    Malformed,
    /// The name is not among those that a front proxy may have.
    #[error("the common name {0:?} is not an allowed front proxy (--requestheader-allowed-names)")]
    NameNotAllowed(String),
}

/// Why a bundle is no authority.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// There is no certificate in it.
    #[error("it has no valid PEM certificate")]
    Empty,
    /// rustls refuses it.
    #[error("it cannot be used: {0}")]
    Verifier(#[from] VerifierBuilderError),
}

impl Presented {
    /// The chain that a client has shown; `None` if it has shown none.
    pub fn new(chain: Option<&[CertificateDer<'_>]>) -> Option<Self> {
        let chain: Vec<_> = chain?.iter().map(|certificate| certificate.clone().into_owned()).collect();
        (!chain.is_empty()).then(|| Self { chain, verdict: Mutex::default() })
    }

    /// The subject, once the chain has been verified against `authority`: once for a connection, and anew when the
    /// authority has changed.
    ///
    /// # Errors
    /// If the chain does not hold.
    pub fn verify(&self, authority: &Arc<Authority>) -> Result<Subject, Unverified> {
        let generation = Arc::as_ptr(authority).addr();
        let mut verdict = self.verdict.lock().expect("no holder panics");
        if let Some((of, verdict)) = &*verdict
            && *of == generation
        {
            return verdict.clone();
        }
        let fresh = self.check(authority);
        *verdict = Some((generation, fresh.clone()));
        fresh
    }

    fn check(&self, authority: &Authority) -> Result<Subject, Unverified> {
        let (leaf, intermediates) = self.chain.split_first().ok_or(Unverified::Malformed)?;
        let verifier = &authority.verifier;
        verifier.verify_client_cert(leaf, intermediates, UnixTime::now()).map_err(Unverified::Chain)?;
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| Unverified::Malformed)?;
        let mut names = certificate.subject().iter_common_name();
        let common_name = names.next().and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned();
        Ok(Subject { common_name })
    }
}

impl Authority {
    /// Reads a PEM bundle.
    ///
    /// # Errors
    /// If it has no certificate.
    pub fn from_pem(pem: &[u8]) -> Result<Self, AuthorityError> {
        use rustls::pki_types::pem::PemObject;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(pem).filter_map(Result::ok));
        if roots.is_empty() {
            return Err(AuthorityError::Empty);
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        Ok(Self { verifier })
    }
}
