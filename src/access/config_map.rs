//! The ConfigMap with the API server's authentication settings for extension API servers
//! (`dynamiccertificates.ConfigMapCAController` and `headerrequest.RequestHeaderAuthRequestController`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::runtime::watcher::{self, Event};
use tokio::sync::mpsc;

use super::request_header::FrontProxy;
use super::settings::{
    AuthenticationSettings, AuthenticationSettingsError, CONFIG_MAP, NAMESPACE, header_names, load_client_ca,
};
use crate::config::Authentication;
use crate::control::Clients;
use crate::control::watcher::Watcher;

const CLIENT_CA: &str = "client-ca-file";
const FRONT_PROXY_CA: &str = "requestheader-client-ca-file";

/// Timeout of the first lookup.
const LOOKUP: Duration = Duration::from_secs(10);

/// The parts of [`AuthenticationSettings`] that come from the ConfigMap.
pub struct PublishedSettings {
    clients: Clients,
    settings: Arc<AuthenticationSettings>,
    /// Whether the CA of client certificates comes from the ConfigMap.
    client_ca: bool,
    /// Whether the front proxy comes from the ConfigMap.
    front_proxy: bool,
    /// The last known data; `None` if the ConfigMap does not exist.
    last: Option<ConfigMapData>,
}

type ConfigMapData = BTreeMap<String, String>;

impl PublishedSettings {
    /// The settings that no flag sets; `None` if flags set all of them.
    pub fn new(
        clients: Clients,
        settings: Arc<AuthenticationSettings>,
        config: &Authentication,
    ) -> Option<Self> {
        let (client_ca, front_proxy) = (config.client_ca_file.is_none(), config.request_header.is_none());
        (client_ca || front_proxy).then_some(Self { clients, settings, client_ca, front_proxy, last: None })
    }

    /// Reads the ConfigMap once. A missing part is logged.
    ///
    /// # Errors
    /// If the ConfigMap cannot be read, or a part is not usable. The other part is applied in any case.
    pub async fn lookup(&mut self) -> Result<(), AuthenticationSettingsError> {
        let api = Api::<ConfigMap>::namespaced(self.clients.current(), NAMESPACE);
        let response = tokio::time::timeout(LOOKUP, api.get(CONFIG_MAP)).await;
        let response = response.map_err(|_| AuthenticationSettingsError::Timeout(LOOKUP))?;
        let map =
            response.map_err(|source| AuthenticationSettingsError::Lookup { source: Box::new(source) })?;
        let mut errors = Vec::new();
        for error in self.apply(map.data.unwrap_or_default()) {
            match error {
                AuthenticationSettingsError::Missing(_) => warn(&error),
                _ => errors.push(error),
            }
        }
        errors.into_iter().next().map_or(Ok(()), Err)
    }

    /// Watches the ConfigMap by name until this is dropped. Each watch request lasts for `watch_timeout`. A part that is not
    /// usable is logged, and the previous settings stay in use.
    pub async fn follow(mut self, watch_timeout: Duration) {
        let (queue, mut events) = mpsc::channel(1);
        let _watch = Watcher::new(self.clients.clone(), watch_timeout, queue).start(
            format!("the configmap {CONFIG_MAP} in the namespace {NAMESPACE}"),
            watcher::Config::default().fields(&format!("metadata.name={CONFIG_MAP}")),
            |client| Api::<ConfigMap>::namespaced(client, NAMESPACE),
            |event| event,
        );
        let mut listed = false;
        while let Some((_, event)) = events.recv().await {
            match event {
                Event::Init => listed = false,
                Event::Apply(map) | Event::InitApply(map) => {
                    listed = true;
                    self.handle_changed(map.data.unwrap_or_default());
                }
                Event::InitDone if listed => {}
                Event::InitDone | Event::Delete(_) => self.handle_deleted(),
            }
        }
    }

    fn handle_changed(&mut self, data: ConfigMapData) {
        if self.last.as_ref() == Some(&data) {
            return;
        }
        let errors = self.apply(data);
        errors.iter().for_each(warn);
        if errors.is_empty() {
            tracing::info!(config_map = CONFIG_MAP, "authentication settings reloaded from the ConfigMap");
        }
    }

    fn handle_deleted(&mut self) {
        if self.last.take().is_some() {
            tracing::warn!(
                config_map = CONFIG_MAP,
                "the ConfigMap was deleted; its last CA bundles and header names stay in use"
            );
        }
    }

    /// Applies each usable part; returns the errors of the others.
    fn apply(&mut self, data: ConfigMapData) -> Vec<AuthenticationSettingsError> {
        let mut errors = Vec::new();
        if self.client_ca {
            match bundle(&data, CLIENT_CA).and_then(|pem| load_client_ca(CLIENT_CA, pem)) {
                Ok(ca) => self.settings.set_client_ca(ca),
                Err(error) => errors.push(error),
            }
        }
        if self.front_proxy {
            match front_proxy(&data) {
                Ok(front_proxy) => self.settings.set_front_proxy(front_proxy),
                Err(error) => errors.push(error),
            }
        }
        self.last = Some(data);
        errors
    }
}

/// Reads the front proxy. The keys of allowed names and of user name headers are required: an empty list of names would allow
/// any client certificate of the CA.
fn front_proxy(data: &ConfigMapData) -> Result<FrontProxy, AuthenticationSettingsError> {
    let list = |key| -> Result<Vec<String>, AuthenticationSettingsError> {
        let text = data.get(key).filter(|text| !text.is_empty());
        text.map_or(Ok(Vec::new()), |text| {
            serde_json::from_str(text).map_err(|_| AuthenticationSettingsError::List(key))
        })
    };
    let required =
        |key| if data.contains_key(key) { list(key) } else { Err(AuthenticationSettingsError::Missing(key)) };
    let prefixes = header_names(&list("requestheader-extra-headers-prefix")?)?;
    Ok(FrontProxy {
        ca: Arc::new(load_client_ca(FRONT_PROXY_CA, bundle(data, FRONT_PROXY_CA)?)?),
        allowed_names: required("requestheader-allowed-names")?,
        username_headers: header_names(&required("requestheader-username-headers")?)?,
        uid_headers: header_names(&list("requestheader-uid-headers")?)?,
        group_headers: header_names(&list("requestheader-group-headers")?)?,
        extra_prefixes: prefixes.iter().map(ToString::to_string).collect(),
    })
}

fn bundle<'a>(data: &'a ConfigMapData, key: &'static str) -> Result<&'a [u8], AuthenticationSettingsError> {
    let text = data.get(key).filter(|text| !text.trim().is_empty());
    text.map(String::as_bytes).ok_or(AuthenticationSettingsError::Missing(key))
}

fn warn(error: &AuthenticationSettingsError) {
    tracing::warn!(
        config_map = CONFIG_MAP,
        %error,
        "a part of the ConfigMap is not usable; the previous settings stay in use"
    );
}
