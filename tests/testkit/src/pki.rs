//! CAs and the certificates that they sign. Each test fleet has its own.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A CA.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A leaf certificate and its private key, both as PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The private key (PKCS#8).
    pub key: String,
}

impl Authority {
    /// A new self-signed CA.
    pub fn new(common_name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("the default algorithm generates keys");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("the parameters are complete");
        Self { issuer }
    }

    /// The CA certificate as PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A serving certificate for DNS names and IP addresses.
    pub fn server(&self, names: &[&str]) -> Identity {
        self.server_with(names, |_| {})
    }

    /// A serving certificate that has expired.
    pub fn expired_server(&self, names: &[&str]) -> Identity {
        self.server_with(names, |params| {
            params.not_before = rcgen::date_time_ymd(2019, 1, 1);
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        })
    }

    /// A serving certificate that is not yet valid.
    pub fn future_server(&self, names: &[&str]) -> Identity {
        self.server_with(names, |params| params.not_before = rcgen::date_time_ymd(4000, 1, 1))
    }

    /// A serving certificate that expires in `seconds`.
    pub fn short_lived_server(&self, names: &[&str], seconds: u64) -> Identity {
        let end = SystemTime::now() + Duration::from_secs(seconds);
        self.server_with(names, |params| params.not_after = end.into())
    }

    /// A client certificate: `common_name` is the user, `organizations` are the groups.
    pub fn client(&self, common_name: &str, organizations: &[&str]) -> Identity {
        self.client_with(common_name, organizations, |_| {})
    }

    /// A client certificate after `adjust` has changed its dates, usages or subject.
    pub fn client_with(
        &self,
        common_name: &str,
        organizations: &[&str],
        adjust: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let mut params = params_for(&[]);
        params.distinguished_name.push(DnType::CommonName, common_name);
        for organization in organizations {
            params.distinguished_name.push(DnType::OrganizationName, *organization);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        adjust(&mut params);
        self.sign(&params)
    }

    fn server_with(&self, names: &[&str], adjust: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = params_for(names);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        adjust(&mut params);
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().expect("the default algorithm generates keys");
        let certificate = params.signed_by(&key, &self.issuer).expect("the parameters are complete");
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

impl Identity {
    /// A self-signed serving certificate.
    pub fn self_signed(names: &[&str]) -> Self {
        let mut params = params_for(names);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().expect("the default algorithm generates keys");
        let certificate = params.self_signed(&key).expect("the parameters are complete");
        Self { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// The certificate in the type of rustls.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("rcgen writes valid PEM")]
    }

    /// The key in the type of rustls.
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("rcgen writes valid PEM")
    }
}

/// A root store that trusts only the CAs of a PEM bundle.
///
/// # Errors
/// If the bundle is malformed.
pub fn roots(pem: &str) -> anyhow::Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.context("the PEM of the CA")?).context("the certificate of the CA")?;
    }
    Ok(Arc::new(roots))
}

fn params_for(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    CertificateParams::new(names).expect("names are ASCII")
}
