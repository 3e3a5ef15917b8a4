//! Whom to believe: from flags, or from the ConfigMap in which the API server publishes it.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::StreamExt as _;
use http::HeaderName;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use thiserror::Error;

use super::certificate::{Authority, AuthorityError};
use super::request_header::FrontProxy;
use crate::config::RequestHeader;

/// Where kube-apiserver publishes whom an extension API server should believe.
pub const NAMESPACE: &str = "kube-system";
/// The ConfigMap's name.
pub const CONFIG_MAP: &str = "extension-apiserver-authentication";

/// Whom to believe.
#[derive(Default)]
pub struct Trust {
    /// The front proxy, if one is configured.
    pub front_proxy: Option<FrontProxy>,
}

/// Why a configuration names nobody to believe.
#[derive(Debug, Error)]
pub enum TrustError {
    /// A file cannot be read.
    #[error("--requestheader-client-ca-file: {path} cannot be read: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A bundle cannot be used.
    #[error("requestheader-client-ca-file: {0}")]
    Authority(#[from] AuthorityError),
    /// A key of the ConfigMap is no JSON list of strings.
    #[error("the key {0} is no JSON list of strings")]
    List(&'static str),
    /// A header's name is none.
    #[error("{0:?} is no header name")]
    HeaderName(String),
    /// The ConfigMap cannot be read.
    #[error(
        "the ConfigMap {NAMESPACE}/{CONFIG_MAP} cannot be read with --authentication-kubeconfig: {0}; \
         grant it the Role extension-apiserver-authentication-reader, \
         or set --authentication-tolerate-lookup-failure or the --requestheader flags"
    )]
    Lookup(#[source] Box<kube::Error>),
}

impl Trust {
    /// What flags say.
    ///
    /// # Errors
    /// If the CA file cannot be used.
    pub fn from_flags(flags: &RequestHeader) -> Result<Self, TrustError> {
        let RequestHeader {
            ca_file,
            allowed_names,
            username_headers,
            group_headers,
            extra_prefixes,
            uid_headers,
        } = flags;
        let front_proxy = FrontProxy {
            authority: Arc::new(Authority::from_pem(&read(ca_file)?)?),
            allowed_names: allowed_names.clone(),
            username_headers: header_names(username_headers)?,
            uid_headers: header_names(uid_headers)?,
            group_headers: header_names(group_headers)?,
            extra_prefixes: extra_prefixes.clone(),
        };
        Ok(Self { front_proxy: Some(front_proxy) })
    }

    /// What the ConfigMap says; without a CA there is no front proxy
    /// (`headerrequest.RequestHeaderAuthRequestController`).
    ///
    /// # Errors
    /// If one of its keys is malformed.
    pub fn from_config_map(map: &ConfigMap) -> Result<Self, TrustError> {
        let key = |name| map.data.as_ref().and_then(|data| data.get(name)).map(String::as_str);
        let list = |name| -> Result<Vec<String>, TrustError> {
            let text = key(name).filter(|text| !text.is_empty());
            text.map_or(Ok(Vec::new()), |text| serde_json::from_str(text).map_err(|_| TrustError::List(name)))
        };
        let Some(ca) = key("requestheader-client-ca-file") else { return Ok(Self::default()) };
        let prefixes = list("requestheader-extra-headers-prefix")?;
        let front_proxy = FrontProxy {
            authority: Arc::new(Authority::from_pem(ca.as_bytes())?),
            allowed_names: list("requestheader-allowed-names")?,
            username_headers: header_names(&list("requestheader-username-headers")?)?,
            uid_headers: header_names(&list("requestheader-uid-headers")?)?,
            group_headers: header_names(&list("requestheader-group-headers")?)?,
            extra_prefixes: prefixes.iter().map(|prefix| prefix.to_ascii_lowercase()).collect(),
        };
        Ok(Self { front_proxy: Some(front_proxy) })
    }
}

/// Reads the ConfigMap once.
///
/// # Errors
/// If it cannot be read or is malformed.
pub async fn look_up(client: &Client) -> Result<Trust, TrustError> {
    let api = Api::<ConfigMap>::namespaced(client.clone(), NAMESPACE);
    match api.get(CONFIG_MAP).await {
        Ok(map) => Trust::from_config_map(&map),
        Err(error) => Err(TrustError::Lookup(Box::new(error))),
    }
}

/// Follows the ConfigMap; what cannot be used is logged, and the last that could stays. Runs until it is dropped.
pub async fn follow(client: Client, trust: Arc<ArcSwap<Trust>>) {
    let api = Api::<ConfigMap>::namespaced(client, NAMESPACE);
    let config = watcher::Config::default().fields(&format!("metadata.name={CONFIG_MAP}"));
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    let mut seen = None;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(map) | Event::InitApply(map)) if map.data != seen => {
                match Trust::from_config_map(&map) {
                    Ok(new) => {
                        tracing::info!(config_map = CONFIG_MAP, "whom to believe was read anew");
                        trust.store(Arc::new(new));
                    }
                    Err(error) => {
                        tracing::warn!(config_map = CONFIG_MAP, %error, "the change is refused; the last stays");
                    }
                }
                seen = map.data;
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(config_map = CONFIG_MAP, %error, "watching failed; trying again"),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TrustError> {
    std::fs::read(path).map_err(|source| TrustError::File { path: path.display().to_string(), source })
}

fn header_names(names: &[String]) -> Result<Vec<HeaderName>, TrustError> {
    let parse = |name: &String| name.parse().map_err(|_| TrustError::HeaderName(name.clone()));
    names.iter().map(parse).collect()
}
