//! Who signs serving certificates: an authority that is made for it, or one that is there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use thiserror::Error;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::text::date;
use crate::process::expiry::now;
use crate::process::file::{FileError, Files};

/// How long one lasts that is made here, in seconds: ten years.
const LIFETIME: i64 = 3650 * 24 * 60 * 60;
/// How far clocks may be behind, in seconds, as `signer.backdate` of kube-controller-manager has it.
const BACKDATE: i64 = 5 * 60;
const NAME: &str = "karmada-metrics-adapter-ca";

/// A certificate authority and its key.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// Seconds since 1970.
    not_before: i64,
    not_after: i64,
}

/// A certificate and its key, in PEM.
pub struct CertificateAndKey {
    /// The certificate.
    pub certificate: String,
    /// The key (PKCS#8).
    pub key: String,
    /// When the certificate ends, in seconds since 1970.
    pub not_after: i64,
}

/// Why no certificate is issued.
#[derive(Debug, Error)]
pub enum CertificateAuthorityError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The first file holds no certificate.
    #[error("--ca-cert: {} has no certificate in PEM", .0.display())]
    NoCertificate(PathBuf),
    /// A certificate cannot be understood.
    #[error("--ca-cert: {} has a certificate that cannot be read", .0.display())]
    Malformed(PathBuf),
    /// The second file holds no key.
    #[error("--ca-key: {} has no private key in PEM (an encrypted one must be decrypted first)", .0.display())]
    NoKey(PathBuf),
    /// The key is of a kind that cannot sign here.
    #[error("--ca-key: {} cannot sign: {source}", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rcgen::Error,
    },
    /// Certificate and key are strangers.
    #[error("--ca-key does not belong to --ca-cert: name the key with which the authority itself signs")]
    Mismatch,
    /// What is given may not sign.
    #[error("--ca-cert: {0} is no authority: its certificate may not sign others")]
    NoAuthority(String),
    /// Its time has not come or is over.
    #[error("--ca-cert: {name} is valid from {from} until {until} only: renew it, or set the clock right")]
    Period {
        /// The authority's subject.
        name: String,
        /// When it begins.
        from: String,
        /// When it ends.
        until: String,
    },
    /// A certificate cannot be made.
    #[error("a certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    /// What was made would not be believed.
    #[error("--ca-cert cannot sign this certificate, nobody would accept it: {0}")]
    Unbelievable(#[from] rustls::Error),
}

impl CertificateAuthority {
    /// A new authority that lasts ten years, or `lifetime` if that is longer, and its key. It signs servers and no other
    /// authority.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn new(lifetime: Duration) -> Result<(Self, CertificateAndKey), CertificateAuthorityError> {
        let not_before = now() - BACKDATE;
        let not_after = now() + LIFETIME.max(seconds(lifetime));
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, NAME);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = at(not_before).into();
        params.not_after = at(not_after).into();
        let key = KeyPair::generate()?;
        let made = params.self_signed(&key)?;
        let pair = CertificateAndKey { certificate: made.pem(), key: key.serialize_pem(), not_after };
        let certificate = made.der().clone();
        Ok((Self { issuer: Issuer::new(params, key), certificate, not_before, not_after }, pair))
    }

    /// The authority of these files. Of several certificates in the first it is the one of this key.
    ///
    /// # Errors
    /// If a file cannot be used, or if what is in it may not sign now.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, CertificateAuthorityError> {
        let pem = Files::new([("--ca-cert", certificate)]).read()?.concat();
        let key_pem = Files::new([("--ca-key", key)]).read()?.concat();
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
        if chain.is_empty() {
            return Err(CertificateAuthorityError::NoCertificate(certificate.to_owned()));
        }
        let malformed = || CertificateAuthorityError::Malformed(certificate.to_owned());
        let key_der = PrivateKeyDer::from_pem_slice(&key_pem)
            .map_err(|_| CertificateAuthorityError::NoKey(key.to_owned()))?;
        let key = KeyPair::try_from(&key_der)
            .map_err(|source| CertificateAuthorityError::Key { path: key.to_owned(), source })?;
        for der in chain {
            let (_, read) = X509Certificate::from_der(&der).map_err(|_| malformed())?;
            if read.public_key().raw == key.subject_public_key_info() {
                let (not_before, not_after) = judge(&read, now())?;
                let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|_| malformed())?;
                return Ok(Self { issuer, certificate: der.clone(), not_before, not_after });
            }
        }
        Err(CertificateAuthorityError::Mismatch)
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Signs a serving certificate for these names and addresses, of which the first is what clients ask for. It ends
    /// with the authority at the latest.
    ///
    /// # Errors
    /// If a client that trusts this authority alone would not accept it.
    pub fn sign(
        &self,
        common_name: &str,
        names: &[String],
        lifetime: Duration,
    ) -> Result<CertificateAndKey, CertificateAuthorityError> {
        let not_after = (now() + seconds(lifetime)).min(self.not_after);
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = at((now() - BACKDATE).max(self.not_before)).into();
        params.not_after = at(not_after).into();
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        for name in names.iter().filter(|name| !name.starts_with('*')) {
            self.verify(certificate.der(), name)?;
        }
        Ok(CertificateAndKey { certificate: certificate.pem(), key: key.serialize_pem(), not_after })
    }

    /// An authority's subject need not survive its copy into a certificate, and its constraints may exclude a name.
    fn verify(&self, certificate: &CertificateDer<'_>, name: &str) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let name = ServerName::try_from(name.to_owned())
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(certificate, &[], &name, &[], UnixTime::now()).map(drop)
    }
}

/// From when to when an authority is valid, in seconds since 1970, if it may sign now.
fn judge(authority: &X509Certificate<'_>, now: i64) -> Result<(i64, i64), CertificateAuthorityError> {
    let name = authority.subject().to_string();
    let constraints = authority.basic_constraints().ok().flatten();
    let is_authority = constraints.is_some_and(|constraints| constraints.value.ca);
    let signs =
        authority.key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()));
    if !is_authority || !signs {
        return Err(CertificateAuthorityError::NoAuthority(name));
    }
    let period = authority.validity();
    let (from, until) = (period.not_before.timestamp(), period.not_after.timestamp());
    if now < from || now >= until {
        return Err(CertificateAuthorityError::Period { name, from: date(from), until: date(until) });
    }
    Ok((from, until))
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX / 2)
}

/// The moment so many seconds after 1970; a clock that is before that is taken to be at it.
fn at(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}
