//! A kubeconfig's contexts, each as a cluster: what the file and those that it refers to say at one moment.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use kube::config::{AuthInfo, Cluster, Kubeconfig};
use rustls::pki_types::ServerName;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

use super::plugin::{Plugin, Unrunnable};
use crate::control::without_content;
use crate::transport::credentials::{
    ClientCertificate, Credentials, CredentialsError, Endpoint, Login, Proxy, Token, Trust,
};

/// The longest value that a label may have.
const LABEL: usize = 63;

/// The clusters by their tags, and in words what is wrong with those that cannot be asked.
pub(super) type Contexts = BTreeMap<String, Result<Context, String>>;

/// One context that can be used.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Context {
    /// How its cluster is reached; whom it is asked as may be up to a plugin.
    pub(super) credentials: Credentials,
    pub(super) plugin: Option<Plugin>,
}

/// Why a file has no clusters.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("--fleet-kubeconfig: the kubeconfig cannot be used: {0}")]
    Kubeconfig(String),
    /// It is empty, as a file is for a moment while it is written.
    #[error("--fleet-kubeconfig: the kubeconfig has no contexts, and each would be a member")]
    NoContexts,
}

/// Why a context cannot be used.
#[derive(Debug, Error)]
enum Unusable {
    #[error("it names no cluster that the file has")]
    NoCluster,
    #[error("it names the user {0:?}, which the file does not have")]
    NoUser(String),
    #[error("its cluster has no server")]
    NoServer,
    #[error(
        "user name and password are not taken by API servers any more: use a token, a client certificate or an exec plugin"
    )]
    Basic,
    #[error("the auth provider {0:?} is not supported: use an exec plugin")]
    AuthProvider(String),
    #[error("impersonation (as, as-uid, as-groups, as-user-extra) is not supported")]
    Impersonation,
    #[error("{0} is not valid base64")]
    Base64(&'static str),
    #[error("{} cannot be read: {source}", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("its user has a client certificate without a key, or a key without a certificate")]
    HalfCertificate,
    #[error(transparent)]
    Plugin(#[from] Unrunnable),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// Reads the file and all that its contexts refer to.
///
/// # Errors
/// If the file itself cannot be used; what is wrong with one context is said in its place.
pub(super) fn read(path: &Path) -> Result<Contexts, FileError> {
    let file = Kubeconfig::read_from(path).map_err(|error| FileError::Kubeconfig(without_content(&error)))?;
    let mut names: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for named in &file.contexts {
        names.entry(tag(&named.name)).or_default().push(&named.name);
    }
    if names.is_empty() {
        return Err(FileError::NoContexts);
    }
    let context = |tag: &str, names: &[&str]| match names {
        _ if tag.is_empty() => {
            Err(format!("the context {:?} has no letter or digit to name a cluster by: rename it", names[0]))
        }
        [name] => context(&file, name).map_err(|error| format!("the context {name:?}: {error}")),
        names => Err(format!("the contexts {names:?} would all be the cluster {tag}: rename all but one")),
    };
    let read = names.iter().map(|(tag, names)| (tag.clone(), context(tag, names)));
    Ok(read.collect())
}

/// A context's name as the value of a label. What that may not have becomes a hyphen; a name that is too long keeps its
/// end, which is what tells names such as those of EKS apart. Empty if nothing is left.
fn tag(name: &str) -> String {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_outer = |c: char| c.is_ascii_alphanumeric();
    let label: String = name.chars().map(|c| if is_inner(c) { c } else { '-' }).collect();
    let label = label.trim_matches(|c| !is_outer(c));
    label[label.len().saturating_sub(LABEL)..].trim_start_matches(|c| !is_outer(c)).to_owned()
}

fn context(file: &Kubeconfig, name: &str) -> Result<Context, Unusable> {
    let context = file.contexts.iter().find(|named| named.name == name);
    let context = context.and_then(|named| named.context.as_ref()).ok_or(Unusable::NoCluster)?;
    let cluster = file.clusters.iter().find(|named| named.name == context.cluster);
    let cluster = cluster.and_then(|named| named.cluster.as_ref()).ok_or(Unusable::NoCluster)?;
    let user = match context.user.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => {
            let user = file.auth_infos.iter().find(|named| named.name == name);
            user.and_then(|named| named.auth_info.clone()).ok_or_else(|| Unusable::NoUser(name.to_owned()))?
        }
        None => AuthInfo::default(),
    };
    let login = login(&user)?;
    // As for kubectl, a token comes before a plugin.
    let plugin = match user.exec.filter(|_| login.token.is_none()) {
        Some(exec) => Some(Plugin::new(&exec, cluster)?),
        None => None,
    };
    Ok(Context { credentials: credentials(cluster, login)?, plugin })
}

fn credentials(cluster: &Cluster, login: Login) -> Result<Credentials, Unusable> {
    let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let bundle = data_or_file(
        "certificate-authority-data",
        cluster.certificate_authority_data.as_deref(),
        cluster.certificate_authority.as_deref(),
    )?;
    let name =
        |name: String| ServerName::try_from(name.clone()).map_err(|_| CredentialsError::ServerName(name));
    let proxy = |url: String| Proxy::parse(&url, []);
    Ok(Credentials {
        endpoint: Endpoint::parse(&some(&cluster.server).ok_or(Unusable::NoServer)?)?,
        login,
        trust: match bundle {
            _ if cluster.insecure_skip_tls_verify == Some(true) => Trust::Anything,
            Some(bundle) => Trust::Bundle(bundle),
            None => Trust::System,
        },
        server_name: some(&cluster.tls_server_name).map(name).transpose()?,
        proxy: some(&cluster.proxy_url).map(proxy).transpose()?,
    })
}

/// Whom the user of a context is asked as, save what a plugin has to say.
fn login(user: &AuthInfo) -> Result<Login, Unusable> {
    if user.username.is_some() || user.password.is_some() {
        return Err(Unusable::Basic);
    }
    if let Some(provider) = &user.auth_provider {
        return Err(Unusable::AuthProvider(provider.name.clone()));
    }
    let impersonated = [&user.impersonate, &user.impersonate_uid].into_iter().any(Option::is_some);
    if impersonated || user.impersonate_groups.is_some() || user.impersonate_user_extra.is_some() {
        return Err(Unusable::Impersonation);
    }
    let token = match (secret(user.token.as_ref()), user.token_file.as_deref()) {
        (Some(token), _) => Some(token.as_bytes().to_owned()),
        (None, Some(file)) if !file.is_empty() => Some(file_content(file)?),
        (None, _) => None,
    };
    let chain = data_or_file(
        "client-certificate-data",
        user.client_certificate_data.as_deref(),
        user.client_certificate.as_deref(),
    )?;
    let key =
        data_or_file("client-key-data", secret(user.client_key_data.as_ref()), user.client_key.as_deref())?;
    Ok(Login {
        token: token.map(|token| Token::parse(&token)).transpose()?,
        certificate: match (chain, key) {
            (Some(chain), Some(key)) => Some(ClientCertificate::parse(chain, key)?),
            (None, None) => None,
            _ => return Err(Unusable::HalfCertificate),
        },
    })
}

fn secret(text: Option<&SecretString>) -> Option<&str> {
    text.map(ExposeSecret::expose_secret).filter(|text| !text.is_empty())
}

/// Data comes before a file, as for client-go; what is empty is not there.
fn data_or_file(
    field: &'static str,
    data: Option<&str>,
    file: Option<&str>,
) -> Result<Option<Vec<u8>>, Unusable> {
    match (data.filter(|data| !data.is_empty()), file.filter(|file| !file.is_empty())) {
        (Some(data), _) => BASE64_STANDARD.decode(data.trim()).map(Some).map_err(|_| Unusable::Base64(field)),
        (None, Some(file)) => file_content(file).map(Some),
        (None, None) => Ok(None),
    }
}

fn file_content(path: &str) -> Result<Vec<u8>, Unusable> {
    fs::read(path).map_err(|source| Unusable::File { path: path.into(), source })
}

#[cfg(test)]
mod tests;
