//! Whom to believe, in two parts, each from flags or from the ConfigMap that the API server publishes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::HeaderName;
use thiserror::Error;
use tokio_util::task::AbortOnDropHandle;

use super::certificate::{ClientCa, ClientCaError};
use super::request_header::FrontProxy;
use crate::config::{Authentication, RequestHeader};
use crate::process::expiry::Expiry;
use crate::process::file::{FileError, Files};

/// The namespace of the ConfigMap in which the API server publishes whom to believe.
pub const NAMESPACE: &str = "kube-system";
/// Its name.
pub const CONFIG_MAP: &str = "extension-apiserver-authentication";

const CLIENT_CA: &str = "--client-ca-file";
const FRONT_PROXY_CA: &str = "--requestheader-client-ca-file";

/// Whom to believe now. A part changes as a whole and by itself; one that was never known is `None`.
pub struct AuthenticationSettings {
    expiry: Expiry,
    front_proxy: ArcSwapOption<FrontProxy>,
    clients: ArcSwapOption<ClientCa>,
}

/// Why a configuration names nobody to believe.
#[derive(Debug, Error)]
pub enum AuthenticationSettingsError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A bundle cannot be used.
    #[error("{of} names no authority: {source}")]
    Authority {
        /// The flag or the ConfigMap's key.
        of: &'static str,
        /// Why.
        source: ClientCaError,
    },
    /// A key of the ConfigMap is no JSON list of strings.
    #[error("the key {0} is no JSON list of strings")]
    List(&'static str),
    /// A header's name is none.
    #[error("{0:?} is no header name")]
    HeaderName(String),
    /// A key of the ConfigMap is missing.
    #[error("the key {0} is missing")]
    Missing(&'static str),
    /// The ConfigMap cannot be read.
    #[error(
        "the ConfigMap {namespace}/{name} cannot be read with --authentication-kubeconfig: {source}; \
         grant it the Role extension-apiserver-authentication-reader, \
         or set --authentication-tolerate-lookup-failure or --client-ca-file and --requestheader-client-ca-file",
        namespace = NAMESPACE,
        name = CONFIG_MAP
    )]
    Lookup {
        /// Why.
        source: Box<kube::Error>,
    },
    /// The control plane did not answer.
    #[error("the control plane of --authentication-kubeconfig did not answer within {0:?}")]
    Timeout(Duration),
}

impl AuthenticationSettings {
    /// Nobody is believed yet. When the authorities end is noted in `expiry`.
    pub fn new(expiry: Expiry) -> Self {
        Self { expiry, front_proxy: ArcSwapOption::empty(), clients: ArcSwapOption::empty() }
    }

    /// The front proxy to believe.
    pub fn front_proxy(&self) -> Option<Arc<FrontProxy>> {
        self.front_proxy.load_full()
    }

    /// The authorities of client certificates.
    pub fn clients(&self) -> Option<Arc<ClientCa>> {
        self.clients.load_full()
    }

    /// Believes another front proxy from now on.
    pub fn set_front_proxy(&self, front_proxy: FrontProxy) {
        self.expiry.note("front-proxy-ca", front_proxy.authority.end());
        self.front_proxy.store(Some(Arc::new(front_proxy)));
    }

    /// Believes other client certificates from now on.
    pub fn set_clients(&self, authority: ClientCa) {
        self.expiry.note("client-ca", authority.end());
        self.clients.store(Some(Arc::new(authority)));
    }

    /// Reads the parts that flags give, and their files again every `interval` as long as the handles are kept. A file
    /// that cannot be used later is logged, and what was in use stays in use.
    ///
    /// # Errors
    /// If a file cannot be used.
    pub fn follow_files(
        self: &Arc<Self>,
        config: &Authentication,
        interval: Duration,
    ) -> Result<Vec<AbortOnDropHandle<()>>, AuthenticationSettingsError> {
        let mut following = Vec::new();
        if let Some(path) = &config.client_ca_file {
            let trust = self.clone();
            following.push(follow(CLIENT_CA, path, interval, move |pem| {
                trust.set_clients(load_client_ca(CLIENT_CA, pem)?);
                Ok(())
            })?);
        }
        if let Some(flags) = config.request_header.clone() {
            let trust = self.clone();
            following.push(follow(FRONT_PROXY_CA, &flags.ca_file.clone(), interval, move |pem| {
                trust.set_front_proxy(front_proxy(&flags, pem)?);
                Ok(())
            })?);
        }
        Ok(following)
    }
}

/// Applies a file's content now, and again whenever it differs.
fn follow(
    flag: &'static str,
    path: &Path,
    interval: Duration,
    apply: impl Fn(&[u8]) -> Result<(), AuthenticationSettingsError> + Send + 'static,
) -> Result<AbortOnDropHandle<()>, AuthenticationSettingsError> {
    let files = Files::new([(flag, path)]);
    let contents = files.read()?;
    let apply = move |contents: &Vec<Vec<u8>>| contents.iter().try_for_each(|pem| apply(pem));
    apply(&contents)?;
    Ok(files.follow(contents, interval, apply))
}

fn front_proxy(flags: &RequestHeader, pem: &[u8]) -> Result<FrontProxy, AuthenticationSettingsError> {
    Ok(FrontProxy {
        authority: Arc::new(load_client_ca(FRONT_PROXY_CA, pem)?),
        allowed_names: flags.allowed_names.clone(),
        username_headers: header_names(&flags.username_headers)?,
        uid_headers: header_names(&flags.uid_headers)?,
        group_headers: header_names(&flags.group_headers)?,
        extra_prefixes: flags.extra_prefixes.clone(),
    })
}

/// The authorities in a bundle that `of` names.
pub(super) fn load_client_ca(of: &'static str, pem: &[u8]) -> Result<ClientCa, AuthenticationSettingsError> {
    ClientCa::from_pem(pem).map_err(|source| AuthenticationSettingsError::Authority { of, source })
}

/// Names of headers.
pub(super) fn header_names(names: &[String]) -> Result<Vec<HeaderName>, AuthenticationSettingsError> {
    let parse =
        |name: &String| name.parse().map_err(|_| AuthenticationSettingsError::HeaderName(name.clone()));
    names.iter().map(parse).collect()
}
