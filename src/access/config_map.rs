//! The ConfigMap in which the API server publishes whom an extension API server should believe
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

/// How long the first look may take.
const LOOK_UP: Duration = Duration::from_secs(10);

/// The parts of [`AuthenticationSettings`] that come from the ConfigMap.
pub struct PublishedSettings {
    clients: Clients,
    trust: Arc<AuthenticationSettings>,
    /// Whether that is the authority of client certificates.
    client_ca: bool,
    /// Whether that is the front proxy.
    front_proxy: bool,
    /// What was there when it was last looked at; `None` if it was not there.
    seen: Option<ConfigMapData>,
}

/// The keys of the ConfigMap and what they hold.
type ConfigMapData = BTreeMap<String, String>;

impl PublishedSettings {
    /// The parts that flags do not give; `None` if they give all.
    pub fn new(
        clients: Clients,
        trust: Arc<AuthenticationSettings>,
        config: &Authentication,
    ) -> Option<Self> {
        let (client_ca, front_proxy) = (config.client_ca_file.is_none(), config.request_header.is_none());
        (client_ca || front_proxy).then_some(Self { clients, trust, client_ca, front_proxy, seen: None })
    }

    /// Reads the ConfigMap once. A part that it does not have is logged.
    ///
    /// # Errors
    /// If it cannot be read or a part of it cannot be used; other parts are used all the same.
    pub async fn look_up(&mut self) -> Result<(), AuthenticationSettingsError> {
        let api = Api::<ConfigMap>::namespaced(self.clients.current(), NAMESPACE);
        let answer = tokio::time::timeout(LOOK_UP, api.get(CONFIG_MAP)).await;
        let answer = answer.map_err(|_| AuthenticationSettingsError::Timeout(LOOK_UP))?;
        let map =
            answer.map_err(|source| AuthenticationSettingsError::Lookup { source: Box::new(source) })?;
        let mut refused = Vec::new();
        for error in self.apply(map.data.unwrap_or_default()) {
            match error {
                AuthenticationSettingsError::Missing(_) => warn(&error),
                _ => refused.push(error),
            }
        }
        refused.into_iter().next().map_or(Ok(()), Err)
    }

    /// Follows the ConfigMap, by name, until it is dropped; each watch lasts for `watch_timeout`. What cannot be used is
    /// logged, and what was in use stays in use.
    pub async fn follow(mut self, watch_timeout: Duration) {
        let (queue, mut events) = mpsc::channel(1);
        let _watch = Watcher::new(self.clients.clone(), watch_timeout, queue).begin(
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
        if self.seen.as_ref() == Some(&data) {
            return;
        }
        let refused = self.apply(data);
        refused.iter().for_each(warn);
        if refused.is_empty() {
            tracing::info!(config_map = CONFIG_MAP, "whom to believe was read anew");
        }
    }

    fn handle_deleted(&mut self) {
        if self.seen.take().is_some() {
            tracing::warn!(
                config_map = CONFIG_MAP,
                "it is gone; whom it said to believe is believed further"
            );
        }
    }

    /// Takes over each part that can be used, and says why not of the others.
    fn apply(&mut self, data: ConfigMapData) -> Vec<AuthenticationSettingsError> {
        let mut refused = Vec::new();
        if self.client_ca {
            match bundle(&data, CLIENT_CA).and_then(|pem| load_client_ca(CLIENT_CA, pem)) {
                Ok(authority) => self.trust.set_clients(authority),
                Err(error) => refused.push(error),
            }
        }
        if self.front_proxy {
            match front_proxy(&data) {
                Ok(front_proxy) => self.trust.set_front_proxy(front_proxy),
                Err(error) => refused.push(error),
            }
        }
        self.seen = Some(data);
        refused
    }
}

/// Without the names that are allowed and the headers that name users there is no front proxy: no name would mean that
/// any is allowed.
fn front_proxy(data: &ConfigMapData) -> Result<FrontProxy, AuthenticationSettingsError> {
    let list = |key| -> Result<Vec<String>, AuthenticationSettingsError> {
        let text = data.get(key).filter(|text| !text.is_empty());
        text.map_or(Ok(Vec::new()), |text| {
            serde_json::from_str(text).map_err(|_| AuthenticationSettingsError::List(key))
        })
    };
    let needed =
        |key| if data.contains_key(key) { list(key) } else { Err(AuthenticationSettingsError::Missing(key)) };
    let prefixes = header_names(&list("requestheader-extra-headers-prefix")?)?;
    Ok(FrontProxy {
        authority: Arc::new(load_client_ca(FRONT_PROXY_CA, bundle(data, FRONT_PROXY_CA)?)?),
        allowed_names: needed("requestheader-allowed-names")?,
        username_headers: header_names(&needed("requestheader-username-headers")?)?,
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
    tracing::warn!(config_map = CONFIG_MAP, %error, "a part of it is refused; what was in use stays in use");
}
