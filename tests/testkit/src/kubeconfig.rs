//! Self-contained kubeconfig files: certificates and keys are embedded.

use std::path::Path;

use anyhow::Context;
use base64::prelude::{BASE64_STANDARD, Engine as _};

use crate::pki::Identity;

/// File name of the kubeconfig of a user.
pub(crate) fn file_name(user: &str, groups: &[&str]) -> String {
    let safe = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    let names = [&[user], groups].concat().join("-");
    format!("{}.kubeconfig", names.chars().map(safe).collect::<String>())
}

/// Writes a kubeconfig for `user`. The CA `authority` (PEM) has signed the certificate of the API server.
///
/// # Errors
/// If the file cannot be written.
pub fn write(
    path: &Path,
    server: &str,
    authority: &str,
    user: &str,
    identity: &Identity,
) -> anyhow::Result<()> {
    let text = format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: karmada-apiserver\n  cluster:\n    server: {server}\n    \
         certificate-authority-data: {authority}\nusers:\n- name: {user:?}\n  user:\n    \
         client-certificate-data: {certificate}\n    client-key-data: {key}\ncontexts:\n- name: karmada-apiserver\n  \
         context:\n    cluster: karmada-apiserver\n    user: {user:?}\ncurrent-context: karmada-apiserver\n",
        authority = BASE64_STANDARD.encode(authority.as_bytes()),
        certificate = BASE64_STANDARD.encode(identity.certificate.as_bytes()),
        key = BASE64_STANDARD.encode(identity.key.as_bytes()),
    );
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
