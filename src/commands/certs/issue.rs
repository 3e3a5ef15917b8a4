//! `certs issue`.

use std::fmt::Write as _;

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
    /// There is none.
    #[error(transparent)]
    Authority(#[from] CertificateAuthorityError),
    /// It could not be put where it belongs.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Issues a serving certificate, writes it and says what is to be done with it.
///
/// # Errors
/// If the authority cannot sign it or a file cannot be written.
pub fn run(order: &CertsIssueFlags) -> Result<(), IssueError> {
    let (authority, made) = match (&order.ca_cert, &order.ca_key) {
        (Some(certificate), Some(key)) => (CertificateAuthority::read(certificate, key)?, None),
        _ => {
            let (authority, pair) = CertificateAuthority::new(order.validity)?;
            (authority, Some(pair))
        }
    };
    let names = names(order);
    let serving = authority.sign(&order.service, &names, order.validity)?;
    let ends = (serving.not_after, made.as_ref().map(|made| made.not_after));
    let made = made.map(|made| drafts(["ca.crt", "ca.key"], made));
    let written = Vec::from_iter(made.into_iter().chain([drafts(["tls.crt", "tls.key"], serving)]).flatten());
    files::write(&order.out_dir, &written, order.force)?;
    print(&report(order, &names, ends, &pem(authority.certificate())));
    Ok(())
}

/// What the certificate is for, the name that the aggregation layer asks for first.
fn names(order: &CertsIssueFlags) -> Vec<String> {
    let (service, namespace) = (&order.service, &order.namespace);
    let asked = service_name(service, namespace);
    let mut names = vec![
        asked.clone(),
        format!("{asked}.{}", order.cluster_domain),
        format!("{service}.{namespace}"),
        service.clone(),
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
    ];
    for name in order.dns_name.iter().cloned().chain(order.ip.iter().map(ToString::to_string)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn drafts([certificate, key]: [&'static str; 2], pair: CertificateAndKey) -> [NewFile; 2] {
    // The key first: until both are there, a server that follows them keeps what it has.
    [
        NewFile { name: key, content: pair.key, secret: true },
        NewFile { name: certificate, content: pair.certificate, secret: false },
    ]
}

fn report(order: &CertsIssueFlags, names: &[String], ends: (i64, Option<i64>), authority: &str) -> String {
    let CertsIssueFlags { service, namespace, .. } = order;
    let at = |name: &str| order.out_dir.join(name).display().to_string();
    let (serving, made) = ends;
    let mut text = String::new();
    let mut say = |line: &str| writeln!(text, "{line}").expect("text takes whatever is written");
    if let Some(end) = made {
        say(&format!("{}: a new authority, until {}", at("ca.crt"), date(end)));
        say(&format!("{}: its key, which stays out of any cluster", at("ca.key")));
    }
    say(&format!("{}: the certificate, until {}, for {}", at("tls.crt"), date(serving), names.join(", ")));
    say(&format!("{}: its key", at("tls.key")));
    say("\nNext, in the cluster that the adapter runs in (a Secret that is there is replaced):\n");
    say(&format!(
        "kubectl -n {namespace} create secret tls {service}-serving --cert={} --key={} --dry-run=client -o yaml | kubectl apply -f -",
        at("tls.crt"),
        at("tls.key")
    ));
    say("\nand in each APIService of the control plane, in place of insecureSkipTLSVerify:\n");
    say(&format!("caBundle: {}", STANDARD.encode(authority)));
    text
}

fn pem(certificate: &[u8]) -> String {
    let text = STANDARD.encode(certificate);
    let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line) + "\n");
    format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", lines.collect::<String>())
}
