//! Reads a context of a kubeconfig: the API server, the user's credentials, and the files that the context refers to.

pub mod plugin;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use kube::config::{AuthInfo, Cluster, Kubeconfig, KubeconfigError};
use rustls::pki_types::ServerName;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

use crate::transport::credentials::{
    BearerToken, ClientCertificate, Credentials, CredentialsError, Endpoint, Proxy, ServerVerification,
    UserCredentials,
};
use plugin::{ExecPlugin, PluginConfigError};

/// A valid context.
#[derive(Clone, Debug, PartialEq)]
pub struct Context {
    /// How to reach the API server, with the credentials of the user in the file. The plugin, if there is one, adds the user's
    /// credentials.
    pub credentials: Credentials,
    /// The exec plugin that returns the user's credentials.
    pub plugin: Option<ExecPlugin>,
    /// The default namespace of requests.
    pub namespace: Option<String>,
    /// The impersonated user; `None` without impersonation.
    pub impersonation: Option<Impersonation>,
}

/// The user that requests impersonate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impersonation {
    pub user: Option<String>,
    pub uid: Option<String>,
    pub groups: Option<Vec<String>>,
    /// `as-user-extra`
    pub extra: Option<HashMap<String, Vec<String>>>,
}

/// Why a context is invalid.
#[derive(Debug, Error)]
pub enum ContextError {
    /// The file has no current context.
    #[error("it has no current-context")]
    NoCurrent,
    /// The file has no context with this name.
    #[error("it has no context {0:?}")]
    NoContext(String),
    /// The context has no cluster, or the file has no cluster with that name.
    #[error("its cluster is not in the file")]
    NoCluster,
    /// The file has no user with this name.
    #[error("its user {0:?} is not in the file")]
    NoUser(String),
    /// The cluster has no `server`.
    #[error("its cluster has no server")]
    NoServer,
    /// HTTP basic authentication.
    #[error(
        "API servers no longer accept user name and password: use a token, a client certificate or an exec plugin"
    )]
    Basic,
    /// An auth provider of older versions of client-go.
    #[error("the auth provider {0:?} is not supported: use an exec plugin")]
    AuthProvider(String),
    /// The data of this field is not base64.
    #[error("{0} is not valid base64")]
    Base64(&'static str),
    /// A file that the context refers to cannot be read.
    #[error("{} cannot be read: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The user has only one of client certificate and key.
    #[error("its user has a client certificate without a key, or a key without a certificate")]
    HalfCertificate,
    /// The exec plugin cannot be run.
    #[error(transparent)]
    Plugin(#[from] PluginConfigError),
    /// A value is malformed.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// Reads the current context of a file, and the files that it refers to.
///
/// # Errors
/// If there is no current context, or it is invalid.
pub fn current_context(file: &Kubeconfig) -> Result<Context, ContextError> {
    let current = file.current_context.as_deref().filter(|name| !name.is_empty());
    context(file, current.ok_or(ContextError::NoCurrent)?)
}

/// Reads a context of a file, and the files that it refers to.
///
/// # Errors
/// If there is no such context, or it is invalid.
pub fn context(file: &Kubeconfig, name: &str) -> Result<Context, ContextError> {
    let context = file.contexts.iter().find(|named| named.name == name);
    let context = context.ok_or_else(|| ContextError::NoContext(name.to_owned()))?;
    let context = context.context.as_ref().ok_or(ContextError::NoCluster)?;
    let cluster = file.clusters.iter().find(|named| named.name == context.cluster);
    let cluster = cluster.and_then(|named| named.cluster.as_ref()).ok_or(ContextError::NoCluster)?;
    let user = match context.user.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => {
            let user = file.auth_infos.iter().find(|named| named.name == name);
            user.and_then(|named| named.auth_info.clone())
                .ok_or_else(|| ContextError::NoUser(name.to_owned()))?
        }
        None => AuthInfo::default(),
    };
    let user_credentials = user_credentials(&user)?;
    let namespace = context.namespace.clone().filter(|namespace| !namespace.is_empty());
    let impersonation = impersonation(&user);
    // A token has priority over a plugin, as in kubectl.
    let plugin = match user.exec.filter(|_| user_credentials.token.is_none()) {
        Some(exec) => Some(ExecPlugin::new(&exec, cluster)?),
        None => None,
    };
    Ok(Context { credentials: credentials(cluster, user_credentials)?, plugin, namespace, impersonation })
}

fn credentials(cluster: &Cluster, user: UserCredentials) -> Result<Credentials, ContextError> {
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
        endpoint: Endpoint::parse(&some(&cluster.server).ok_or(ContextError::NoServer)?)?,
        user,
        verification: match bundle {
            _ if cluster.insecure_skip_tls_verify == Some(true) => ServerVerification::AnyCertificate,
            Some(bundle) => ServerVerification::Bundle(bundle),
            None => ServerVerification::System,
        },
        server_name: some(&cluster.tls_server_name).map(name).transpose()?,
        proxy: some(&cluster.proxy_url).map(proxy).transpose()?,
    })
}

/// The credentials of the user, without those of an exec plugin.
fn user_credentials(user: &AuthInfo) -> Result<UserCredentials, ContextError> {
    if user.username.is_some() || user.password.is_some() {
        return Err(ContextError::Basic);
    }
    if let Some(provider) = &user.auth_provider {
        return Err(ContextError::AuthProvider(provider.name.clone()));
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
    Ok(UserCredentials {
        token: token.map(|token| BearerToken::parse(&token)).transpose()?,
        certificate: match (chain, key) {
            (Some(chain), Some(key)) => Some(ClientCertificate::parse(chain, key)?),
            (None, None) => None,
            _ => return Err(ContextError::HalfCertificate),
        },
    })
}

fn impersonation(user: &AuthInfo) -> Option<Impersonation> {
    let AuthInfo { impersonate, impersonate_uid, impersonate_groups, impersonate_user_extra, .. } =
        user.clone();
    let impersonation = Impersonation {
        user: impersonate,
        uid: impersonate_uid,
        groups: impersonate_groups,
        extra: impersonate_user_extra,
    };
    let Impersonation { user, uid, groups, extra } = &impersonation;
    let is_given = user.is_some() || uid.is_some() || groups.is_some() || extra.is_some();
    is_given.then_some(impersonation)
}

fn secret(text: Option<&SecretString>) -> Option<&str> {
    text.map(ExposeSecret::expose_secret).filter(|text| !text.is_empty())
}

/// Inline data has priority over a file, as in client-go. An empty value counts as missing.
fn data_or_file(
    field: &'static str,
    data: Option<&str>,
    file: Option<&str>,
) -> Result<Option<Vec<u8>>, ContextError> {
    match (data.filter(|data| !data.is_empty()), file.filter(|file| !file.is_empty())) {
        (Some(data), _) => {
            BASE64_STANDARD.decode(data.trim()).map(Some).map_err(|_| ContextError::Base64(field))
        }
        (None, Some(file)) => file_content(file).map(Some),
        (None, None) => Ok(None),
    }
}

fn file_content(path: &str) -> Result<Vec<u8>, ContextError> {
    fs::read(path).map_err(|source| ContextError::File { path: path.into(), source })
}

/// The error of a kubeconfig, without the content of the file. For malformed YAML, kube's message contains lines of the file,
/// and these lines may contain tokens.
pub fn without_content(error: &KubeconfigError) -> String {
    let text = error.to_string();
    let KubeconfigError::Parse(_) = error else { return text };
    let mut words = text.split_whitespace().skip_while(|word| *word != "line").skip(1);
    let line = words.next().and_then(|number| number.trim_matches(':').parse::<u64>().ok());
    line.map_or_else(|| "it is not valid YAML".to_owned(), |line| format!("line {line} is not valid YAML"))
}

#[cfg(test)]
mod tests;
