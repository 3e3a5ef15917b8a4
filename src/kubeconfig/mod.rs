//! Kubeconfigs: what a context says about an API server and about who asks it, the files that it refers to included.

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

/// One context that can be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Context {
    /// How its cluster is reached. Who asks it may be up to a plugin.
    pub credentials: Credentials,
    /// The program that says who asks it.
    pub plugin: Option<ExecPlugin>,
    /// The namespace of requests that name none.
    pub namespace: Option<String>,
    /// Whom the user acts as; `None` for itself.
    pub impersonation: Option<Impersonation>,
}

/// Whom a user acts as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impersonation {
    /// `as`
    pub user: Option<String>,
    /// `as-uid`
    pub uid: Option<String>,
    /// `as-groups`
    pub groups: Option<Vec<String>>,
    /// `as-user-extra`
    pub extra: Option<HashMap<String, Vec<String>>>,
}

/// Why a context cannot be used.
#[derive(Debug, Error)]
pub enum ContextError {
    /// The file says of none that it is the current one.
    #[error("it has no current-context")]
    NoCurrent,
    /// There is no such context.
    #[error("it has no context {0:?}")]
    NoContext(String),
    /// There is no such cluster.
    #[error("it names no cluster that the file has")]
    NoCluster,
    /// There is no such user.
    #[error("it names the user {0:?}, which the file does not have")]
    NoUser(String),
    /// The cluster has no address.
    #[error("its cluster has no server")]
    NoServer,
    /// HTTP basic authentication.
    #[error(
        "user name and password are not taken by API servers any more: use a token, a client certificate or an exec plugin"
    )]
    Basic,
    /// A provider of older versions of client-go.
    #[error("the auth provider {0:?} is not supported: use an exec plugin")]
    AuthProvider(String),
    /// Data that is not base64.
    #[error("{0} is not valid base64")]
    Base64(&'static str),
    /// A file that it refers to.
    #[error("{} cannot be read: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// One half of a pair.
    #[error("its user has a client certificate without a key, or a key without a certificate")]
    HalfCertificate,
    /// A plugin that cannot be run here.
    #[error(transparent)]
    Plugin(#[from] PluginConfigError),
    /// A value that is malformed.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// Reads the current context of a file and all that it refers to.
///
/// # Errors
/// If there is none, or it cannot be used.
pub fn current_context(file: &Kubeconfig) -> Result<Context, ContextError> {
    let current = file.current_context.as_deref().filter(|name| !name.is_empty());
    context(file, current.ok_or(ContextError::NoCurrent)?)
}

/// Reads a context of a file and all that it refers to.
///
/// # Errors
/// If it cannot be used.
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
    let login = login(&user)?;
    let namespace = context.namespace.clone().filter(|namespace| !namespace.is_empty());
    let impersonation = impersonation(&user);
    // As for kubectl, a token comes before a plugin.
    let plugin = match user.exec.filter(|_| login.token.is_none()) {
        Some(exec) => Some(ExecPlugin::new(&exec, cluster)?),
        None => None,
    };
    Ok(Context { credentials: credentials(cluster, login)?, plugin, namespace, impersonation })
}

fn credentials(cluster: &Cluster, login: UserCredentials) -> Result<Credentials, ContextError> {
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
        login,
        trust: match bundle {
            _ if cluster.insecure_skip_tls_verify == Some(true) => ServerVerification::Anything,
            Some(bundle) => ServerVerification::Bundle(bundle),
            None => ServerVerification::System,
        },
        server_name: some(&cluster.tls_server_name).map(name).transpose()?,
        proxy: some(&cluster.proxy_url).map(proxy).transpose()?,
    })
}

/// Whom the user of a context is asked as, save what a plugin has to say.
fn login(user: &AuthInfo) -> Result<UserCredentials, ContextError> {
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

/// Data comes before a file, as for client-go; what is empty is not there.
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

/// What is wrong with a kubeconfig. Where its YAML is malformed, kube shows the lines, and tokens may be in them.
pub fn without_content(error: &KubeconfigError) -> String {
    let text = error.to_string();
    let KubeconfigError::Parse(_) = error else { return text };
    let mut words = text.split_whitespace().skip_while(|word| *word != "line").skip(1);
    let line = words.next().and_then(|number| number.trim_matches(':').parse::<u64>().ok());
    line.map_or_else(|| "it is no valid YAML".to_owned(), |line| format!("line {line} is no valid YAML"))
}

#[cfg(test)]
mod tests;
