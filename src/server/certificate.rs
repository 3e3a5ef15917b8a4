//! The certificate that is shown to clients: read from files and followed while they change, or generated.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use thiserror::Error;
use tokio_util::task::AbortOnDropHandle;

use crate::config::ServingTls;
use crate::process::expiry::{self, Expiry};
use crate::process::file::{FileError, Files};

/// Names under which kube-apiserver reaches the adapter in a usual installation.
const NAMES: [&str; 3] = [
    "localhost",
    "karmada-metrics-adapter.karmada-system.svc",
    "karmada-metrics-adapter.karmada-system.svc.cluster.local",
];

/// Why there is no certificate to show.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The first file holds no certificate.
    #[error("--tls-cert-file has no certificate in PEM")]
    NoCertificate,
    /// The second file holds no key.
    #[error("--tls-private-key-file has no private key in PEM")]
    NoKey,
    /// Certificate and key cannot be served.
    #[error("--tls-cert-file and --tls-private-key-file cannot be served: {0}")]
    Pair(#[source] rustls::Error),
    /// A certificate cannot be made.
    #[error("a serving certificate cannot be generated: {0}")]
    Generate(#[from] rcgen::Error),
}

/// The certificate that is shown in handshakes, at present.
#[derive(Debug)]
pub struct ServingCertificate {
    current: ArcSwap<CertifiedKey>,
}

/// Where certificates are looked after.
struct CertificateLoader {
    provider: Arc<CryptoProvider>,
    expiry: Expiry,
}

impl ServingCertificate {
    /// The certificate that the configuration names, or a generated one. Named files are followed as long as the handle
    /// is kept; what cannot be served is refused then, and what was shown stays.
    ///
    /// # Errors
    /// If there is none to begin with.
    pub fn new(
        config: &ServingTls,
        provider: &Arc<CryptoProvider>,
        reload_interval: Duration,
        expiry: &Expiry,
    ) -> Result<(Arc<Self>, Option<AbortOnDropHandle<()>>), CertificateError> {
        let custody = CertificateLoader { provider: provider.clone(), expiry: expiry.clone() };
        let Some((certificate, key)) = &config.certificate else {
            return Ok((Self::of(custody.generated(config.cert_dir.as_deref())?), None));
        };
        let files = files(certificate, key);
        let contents = files.read()?;
        let shown = Self::of(custody.read(&contents)?);
        let changing = shown.clone();
        let following = files.follow(contents, reload_interval, move |contents| {
            changing.current.store(Arc::new(custody.read(contents)?));
            Ok::<_, CertificateError>(())
        });
        Ok((shown, Some(following)))
    }

    fn of(pair: CertifiedKey) -> Arc<Self> {
        Arc::new(Self { current: ArcSwap::from_pointee(pair) })
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl CertificateLoader {
    fn read(&self, contents: &[Vec<u8>]) -> Result<CertifiedKey, CertificateError> {
        let [certificate, key] = contents else { return Err(CertificateError::NoCertificate) };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate).filter_map(Result::ok).collect();
        if chain.is_empty() {
            return Err(CertificateError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateError::NoKey)?;
        self.pair(chain, key)
    }

    fn pair(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<CertifiedKey, CertificateError> {
        let end = chain.iter().filter_map(|certificate| expiry::end(certificate)).min();
        let pair = CertifiedKey::from_der(chain, key, &self.provider).map_err(CertificateError::Pair)?;
        self.expiry.note("serving", end);
        Ok(pair)
    }

    /// A self-signed pair: the one in `directory`, or a new one that is kept there, or in memory where that cannot be
    /// (`SecureServingOptions.MaybeDefaultWithSelfSignedCerts`).
    fn generated(&self, directory: Option<&Path>) -> Result<CertifiedKey, CertificateError> {
        let paths =
            directory.map(|directory| (directory.join("apiserver.crt"), directory.join("apiserver.key")));
        if let Some((certificate, key)) = &paths
            && certificate.exists()
            && key.exists()
        {
            return self.read(&files(certificate, key).read()?);
        }
        let names = NAMES.map(str::to_owned);
        let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names)?;
        let kept = paths.as_ref().is_some_and(|(certificate, key)| {
            keep(certificate, cert.pem().as_bytes())
                .and_then(|()| keep(key, signing_key.serialize_pem().as_bytes()))
                .is_ok()
        });
        tracing::warn!(
            kept,
            "no --tls-cert-file is given: a self-signed certificate is served, which no APIService with a caBundle trusts"
        );
        let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
        self.pair(vec![cert.der().clone()], key)
    }
}

fn files(certificate: &Path, key: &Path) -> Files {
    Files::new([("--tls-cert-file", certificate), ("--tls-private-key-file", key)])
}

fn keep(path: &Path, pem: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?.write_all(pem)
}
