//! Credentials for the control plane from an exec plugin of the kubeconfig.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use thiserror::Error;

use crate::kubeconfig::plugin::{ExecPlugin, PluginCredentials};
use crate::process::work::result_of;
use crate::transport::credentials::Credentials;
use crate::transport::{Transport, TransportSettings};

/// Credentials are renewed this long before they expire.
const RENEW_BEFORE: Duration = Duration::from_secs(10);
/// Minimum time between two runs of the plugin.
const MIN_RUN_INTERVAL: Duration = Duration::from_secs(5);

/// The connections with the last credentials of a plugin. The plugin runs when a request needs credentials. All waiting
/// requests share one run.
pub(super) struct PluginTransports {
    plugin: ExecPlugin,
    credentials: Credentials,
    settings: TransportSettings,
    last_run: Mutex<Option<PluginRun>>,
}

struct PluginRun {
    started: Instant,
    /// The API server rejected the credentials with 401.
    is_rejected: bool,
    transport: PendingTransport,
}

/// The result of a run of the plugin. The run continues when the waiting requests are cancelled.
type PendingTransport = Shared<BoxFuture<'static, Result<PluginTransport, NoPluginCredentials>>>;

#[derive(Clone)]
struct PluginTransport {
    transport: Arc<Transport>,
    /// When the credentials expire; `None` if unknown.
    expires: Option<SystemTime>,
}

/// Why there are no credentials to send with a request.
#[derive(Clone, Debug, Error)]
#[error("{0}")]
pub(super) struct NoPluginCredentials(String);

impl PluginTransports {
    pub(super) fn new(plugin: ExecPlugin, credentials: Credentials, settings: TransportSettings) -> Self {
        Self { plugin, credentials, settings, last_run: Mutex::default() }
    }

    /// The connections with valid credentials. Without valid credentials, the plugin runs.
    ///
    /// # Errors
    /// If the plugin returns no credentials.
    pub(super) async fn current(&self) -> Result<Arc<Transport>, NoPluginCredentials> {
        let transport = {
            let mut last_run = self.last_run.lock().expect("not poisoned");
            match last_run.take().filter(|run| !run.is_outdated()) {
                Some(run) => last_run.insert(run),
                None => last_run.insert(self.start_plugin()),
            }
            .transport
            .clone()
        };
        Ok(transport.await?.transport)
    }

    /// Records that the API server rejected the credentials of these connections with 401.
    pub(super) fn note_rejection(&self, rejected: &Arc<Transport>) {
        let mut last_run = self.last_run.lock().expect("not poisoned");
        if let Some(run) = &mut *last_run
            && let Some(Ok(PluginTransport { transport, .. })) = result_of(&run.transport)
            && Arc::ptr_eq(&transport, rejected)
        {
            run.is_rejected = true;
        }
    }

    fn start_plugin(&self) -> PluginRun {
        let (plugin, credentials) = (self.plugin.clone(), self.credentials.clone());
        let settings = self.settings.clone();
        let task = tokio::spawn(async move {
            let returned = plugin.run().await.map_err(|error| NoPluginCredentials(error.to_string()))?;
            let PluginCredentials { user, expires } = returned;
            let credentials = credentials.with_user(user);
            let transport = Transport::new(credentials, &settings);
            let transport = transport.map_err(|error| NoPluginCredentials(error.to_string()))?;
            Ok(PluginTransport { transport: Arc::new(transport), expires })
        });
        let failed = |error: tokio::task::JoinError| Err(NoPluginCredentials(error.to_string()));
        let transport = async move { task.await.unwrap_or_else(failed) };
        PluginRun { started: Instant::now(), is_rejected: false, transport: transport.boxed().shared() }
    }
}

impl PluginRun {
    /// Whether the plugin must run again. Two runs are at least 5 s apart, even if the plugin fails or the API server rejects
    /// the credentials of each run.
    fn is_outdated(&self) -> bool {
        let expires_soon = |expires: SystemTime| expires <= SystemTime::now() + RENEW_BEFORE;
        let is_invalid = match result_of(&self.transport) {
            None => false,
            Some(Err(_)) => true,
            Some(Ok(PluginTransport { expires, .. })) => {
                self.is_rejected || expires.is_some_and(expires_soon)
            }
        };
        is_invalid && self.started.elapsed() >= MIN_RUN_INTERVAL
    }
}
