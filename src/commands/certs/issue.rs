//! `certs issue`.

use std::fmt::Write as _;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use super::ca::{CertificateAndKey, CertificateAuthority, CertificateAuthorityError};
use super::files::{self, NewFile, WriteError};
use super::text::{date, service_name};
use crate::cli::commands::CertsIssueFlags;
use crate::commands::output::print;

/// Why no certificate is issued.
#[derive(Debug, Error)]
pub enum IssueError {
    /// The result cannot be printed.
    #[error("cannot write to stdout: {0}")]
    Output(#[from] io::Error),
    /// The CA cannot be used, or it cannot sign this certificate.
    #[error(transparent)]
    Ca(#[from] CertificateAuthorityError),
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Issues a serving certificate, writes the files, and prints the next steps.
///
/// # Errors
/// If the CA cannot sign the certificate or a file cannot be written.
pub fn run(flags: &CertsIssueFlags) -> Result<(), IssueError> {
    let (ca, new_ca) = match (&flags.ca_cert, &flags.ca_key) {
        (Some(certificate), Some(key)) => (CertificateAuthority::read(certificate, key)?, None),
        _ => {
            let (ca, pair) = CertificateAuthority::new(flags.validity)?;
            (ca, Some(pair))
        }
    };
    let names = names(flags);
    let serving = ca.sign(&flags.service, &names, flags.validity)?;
    let expiry = (serving.not_after, new_ca.as_ref().map(|ca| ca.not_after));
    let ca_files = new_ca.map(|pair| new_files(["ca.crt", "ca.key"], pair));
    let tls_files = new_files(["tls.crt", "tls.key"], serving);
    let written = Vec::from_iter(ca_files.into_iter().chain([tls_files]).flatten());
    files::write(&flags.out_dir, &written, flags.force)?;
    print(&report(flags, &names, expiry, &pem(ca.certificate())))?;
    Ok(())
}

/// The names of the certificate. The first one is the server name that the aggregation layer uses.
fn names(flags: &CertsIssueFlags) -> Vec<String> {
    let (service, namespace) = (&flags.service, &flags.namespace);
    let server_name = service_name(service, namespace);
    let mut names = vec![
        server_name.clone(),
        format!("{server_name}.{}", flags.cluster_domain),
        format!("{service}.{namespace}"),
        service.clone(),
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
    ];
    for name in flags.dns_name.iter().cloned().chain(flags.ip.iter().map(ToString::to_string)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn new_files([certificate, key]: [&'static str; 2], pair: CertificateAndKey) -> [NewFile; 2] {
    // The key comes first: a server that reloads these files keeps the old pair until both files are new.
    [
        NewFile { name: key, content: pair.key, secret: true },
        NewFile { name: certificate, content: pair.certificate, secret: false },
    ]
}

fn report(flags: &CertsIssueFlags, names: &[String], expiry: (i64, Option<i64>), ca: &str) -> String {
    let CertsIssueFlags { service, namespace, .. } = flags;
    let at = |name: &str| flags.out_dir.join(name).display().to_string();
    let (serving_expiry, ca_expiry) = expiry;
    let mut text = String::new();
    let mut line = |line: &str| writeln!(text, "{line}").expect("writing to a String succeeds");
    if let Some(expiry) = ca_expiry {
        line(&format!("{}: the new CA, expires {}", at("ca.crt"), date(expiry)));
        line(&format!("{}: the private key of the CA; never put it into a cluster", at("ca.key")));
    }
    let (expires, names) = (date(serving_expiry), names.join(", "));
    line(&format!("{}: the serving certificate, expires {expires}, for {names}", at("tls.crt")));
    line(&format!("{}: the private key of the serving certificate", at("tls.key")));
    line("\nNext, in the cluster where the adapter runs (this replaces an existing Secret):\n");
    line(&format!(
        "kubectl -n {namespace} create secret tls {service}-serving --cert={} --key={} --dry-run=client -o yaml | kubectl apply -f -",
        at("tls.crt"),
        at("tls.key")
    ));
    line("\nThen, in each APIService of the control plane, instead of insecureSkipTLSVerify:\n");
    line(&format!("caBundle: {}", STANDARD.encode(ca)));
    text
}

fn pem(certificate: &[u8]) -> String {
    let text = STANDARD.encode(certificate);
    let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line) + "\n");
    format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", lines.collect::<String>())
}
