//! The serving certificate: loaded from files and reloaded when they change, or generated.

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

/// DNS names that kube-apiserver uses for the adapter in a usual installation.
const DNS_NAMES: [&str; 3] = [
    "localhost",
    "karmada-metrics-adapter.karmada-system.svc",
    "karmada-metrics-adapter.karmada-system.svc.cluster.local",
];

/// Why a serving certificate cannot be loaded or generated.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// `--tls-cert-file` has no certificate.
    #[error("--tls-cert-file has no certificate in PEM")]
    NoCertificate,
    /// `--tls-private-key-file` has no private key.
    #[error("--tls-private-key-file has no private key in PEM")]
    NoKey,
    /// The certificate and the key are invalid or do not belong together.
    #[error("--tls-cert-file and --tls-private-key-file cannot be used: {0}")]
    Pair(#[source] rustls::Error),
    /// A certificate cannot be generated.
    #[error("a serving certificate cannot be generated: {0}")]
    Generate(#[from] rcgen::Error),
}

/// The certificate that handshakes currently present.
#[derive(Debug)]
pub struct ServingCertificate {
    current: ArcSwap<CertifiedKey>,
}

/// Loads serving certificates and records when they expire.
struct CertificateLoader {
    provider: Arc<CryptoProvider>,
    expiry: Expiry,
}

impl ServingCertificate {
    /// The certificate from the configured files; without them, a generated one. Files are checked for changes every
    /// `reload_interval` as long as the handle is kept. If new content is invalid, the current certificate stays in use.
    ///
    /// # Errors
    /// If the first certificate cannot be loaded or generated.
    pub fn new(
        config: &ServingTls,
        provider: &Arc<CryptoProvider>,
        reload_interval: Duration,
        expiry: &Expiry,
    ) -> Result<(Arc<Self>, Option<AbortOnDropHandle<()>>), CertificateError> {
        let loader = CertificateLoader { provider: provider.clone(), expiry: expiry.clone() };
        let Some((certificate, key)) = &config.certificate else {
            return Ok((Self::of(loader.generated(config.cert_dir.as_deref())?), None));
        };
        let files = files(certificate, key);
        let contents = files.read()?;
        let serving = Self::of(loader.read(&contents)?);
        let reloaded = serving.clone();
        let reload_task = files.follow(contents, reload_interval, move |contents| {
            reloaded.current.store(Arc::new(loader.read(contents)?));
            Ok::<_, CertificateError>(())
        });
        Ok((serving, Some(reload_task)))
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
        let expires = chain.iter().filter_map(|certificate| expiry::not_after(certificate)).min();
        let pair = CertifiedKey::from_der(chain, key, &self.provider).map_err(CertificateError::Pair)?;
        self.expiry.note("serving", expires);
        Ok(pair)
    }

    /// A self-signed certificate and its key: from `apiserver.crt` and `apiserver.key` in `directory`, or a new pair. A new
    /// pair is written to `directory` if possible (`SecureServingOptions.MaybeDefaultWithSelfSignedCerts`).
    fn generated(&self, directory: Option<&Path>) -> Result<CertifiedKey, CertificateError> {
        let paths =
            directory.map(|directory| (directory.join("apiserver.crt"), directory.join("apiserver.key")));
        if let Some((certificate, key)) = &paths
            && certificate.exists()
            && key.exists()
        {
            return self.read(&files(certificate, key).read()?);
        }
        let names = DNS_NAMES.map(str::to_owned);
        let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names)?;
        let kept = paths.as_ref().is_some_and(|(certificate, key)| {
            write_file(certificate, cert.pem().as_bytes())
                .and_then(|()| write_file(key, signing_key.serialize_pem().as_bytes()))
                .is_ok()
        });
        tracing::warn!(
            kept,
            "--tls-cert-file is not set: a self-signed certificate is in use, which no APIService with a caBundle trusts"
        );
        let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
        self.pair(vec![cert.der().clone()], key)
    }
}

fn files(certificate: &Path, key: &Path) -> Files {
    Files::new([("--tls-cert-file", certificate), ("--tls-private-key-file", key)])
}

fn write_file(path: &Path, pem: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?.write_all(pem)
}
