//! Authentication settings: the CA of client certificates, and the front proxy. Each comes from flags or from the ConfigMap
//! that the API server publishes.

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

/// Namespace of the ConfigMap with the API server's authentication settings.
pub const NAMESPACE: &str = "kube-system";
/// Name of that ConfigMap.
pub const CONFIG_MAP: &str = "extension-apiserver-authentication";

const CLIENT_CA: &str = "--client-ca-file";
const FRONT_PROXY_CA: &str = "--requestheader-client-ca-file";

/// The current authentication settings. The two parts change independently; a part that is not known yet is `None`.
pub struct AuthenticationSettings {
    expiry: Expiry,
    front_proxy: ArcSwapOption<FrontProxy>,
    client_ca: ArcSwapOption<ClientCa>,
}

/// Why authentication settings are refused.
#[derive(Debug, Error)]
pub enum AuthenticationSettingsError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A CA bundle is not usable.
    #[error("{of} has no usable CA bundle: {source}")]
    CaBundle {
        /// The flag, or the key of the ConfigMap.
        of: &'static str,
        source: ClientCaError,
    },
    /// A key of the ConfigMap is not a JSON list of strings.
    #[error("the key {0} is not a JSON list of strings")]
    List(&'static str),
    /// A header name is invalid.
    #[error("{0:?} is not a valid header name")]
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
    Lookup { source: Box<kube::Error> },
    /// The control plane did not respond.
    #[error("the control plane of --authentication-kubeconfig did not respond within {0:?}")]
    Timeout(Duration),
}

impl AuthenticationSettings {
    /// Empty settings: only bearer tokens are accepted. `expiry` tracks when the CAs expire.
    pub fn new(expiry: Expiry) -> Self {
        Self { expiry, front_proxy: ArcSwapOption::empty(), client_ca: ArcSwapOption::empty() }
    }

    /// The accepted front proxies.
    pub fn front_proxy(&self) -> Option<Arc<FrontProxy>> {
        self.front_proxy.load_full()
    }

    /// The CA of client certificates.
    pub fn client_ca(&self) -> Option<Arc<ClientCa>> {
        self.client_ca.load_full()
    }

    /// Replaces the accepted front proxies.
    pub fn set_front_proxy(&self, front_proxy: FrontProxy) {
        self.expiry.note("front-proxy-ca", front_proxy.ca.expires());
        self.front_proxy.store(Some(Arc::new(front_proxy)));
    }

    /// Replaces the CA of client certificates.
    pub fn set_client_ca(&self, ca: ClientCa) {
        self.expiry.note("client-ca", ca.expires());
        self.client_ca.store(Some(Arc::new(ca)));
    }

    /// Loads the files that flags set. Checks them for changes every `interval` as long as the handles are kept. If new content
    /// is not usable, the error is logged and the previous content stays in use.
    ///
    /// # Errors
    /// If a file is not usable at the first load.
    pub fn follow_files(
        self: &Arc<Self>,
        config: &Authentication,
        interval: Duration,
    ) -> Result<Vec<AbortOnDropHandle<()>>, AuthenticationSettingsError> {
        let mut tasks = Vec::new();
        if let Some(path) = &config.client_ca_file {
            let settings = self.clone();
            tasks.push(follow(CLIENT_CA, path, interval, move |pem| {
                settings.set_client_ca(load_client_ca(CLIENT_CA, pem)?);
                Ok(())
            })?);
        }
        if let Some(flags) = config.request_header.clone() {
            let settings = self.clone();
            tasks.push(follow(FRONT_PROXY_CA, &flags.ca_file.clone(), interval, move |pem| {
                settings.set_front_proxy(front_proxy(&flags, pem)?);
                Ok(())
            })?);
        }
        Ok(tasks)
    }
}

/// Applies a file's content now and after each change.
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
        ca: Arc::new(load_client_ca(FRONT_PROXY_CA, pem)?),
        allowed_names: flags.allowed_names.clone(),
        username_headers: header_names(&flags.username_headers)?,
        uid_headers: header_names(&flags.uid_headers)?,
        group_headers: header_names(&flags.group_headers)?,
        extra_prefixes: flags.extra_prefixes.clone(),
    })
}

/// Parses a CA bundle. `of` is the flag or the key of the ConfigMap, for the error.
pub(super) fn load_client_ca(of: &'static str, pem: &[u8]) -> Result<ClientCa, AuthenticationSettingsError> {
    ClientCa::from_pem(pem).map_err(|source| AuthenticationSettingsError::CaBundle { of, source })
}

/// Parses header names.
pub(super) fn header_names(names: &[String]) -> Result<Vec<HeaderName>, AuthenticationSettingsError> {
    let parse =
        |name: &String| name.parse().map_err(|_| AuthenticationSettingsError::HeaderName(name.clone()));
    names.iter().map(parse).collect()
}
