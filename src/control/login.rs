//! Whom the control plane is asked as, where a plugin of the kubeconfig says that.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use thiserror::Error;

use crate::kubeconfig::plugin::{ExecPlugin, PluginCredentials};
use crate::process::work::result_of;
use crate::transport::credentials::Credentials;
use crate::transport::{Transport, TransportSettings};

/// How long before its end a login is renewed.
const AHEAD: Duration = Duration::from_secs(10);
/// The shortest time between two runs of the plugin.
const PAUSE: Duration = Duration::from_secs(5);

/// The connections of a plugin's last login. It is run when a request needs it, once for all requests that wait.
pub(super) struct PluginLogins {
    plugin: ExecPlugin,
    credentials: Credentials,
    settings: TransportSettings,
    last: Mutex<Option<PluginLogin>>,
}

struct PluginLogin {
    begun: Instant,
    /// The API server has refused it.
    is_refused: bool,
    connected: PendingLogin,
}

/// What comes of running the plugin, which goes on when those who wait for it leave.
type PendingLogin = Shared<BoxFuture<'static, Result<LoginTransport, LoginError>>>;

#[derive(Clone)]
struct LoginTransport {
    transport: Arc<Transport>,
    /// When the login ends.
    until: Option<SystemTime>,
}

/// Why there are no credentials to send with a request.
#[derive(Clone, Debug, Error)]
#[error("{0}")]
pub(super) struct LoginError(String);

impl PluginLogins {
    pub(super) fn new(plugin: ExecPlugin, credentials: Credentials, settings: TransportSettings) -> Self {
        Self { plugin, credentials, settings, last: Mutex::default() }
    }

    /// The connections of a login that holds. The plugin is run if there is none.
    ///
    /// # Errors
    /// If the plugin gives no login.
    pub(super) async fn current(&self) -> Result<Arc<Transport>, LoginError> {
        let connected = {
            let mut last = self.last.lock().expect("no holder panics");
            match last.take().filter(|login| !login.is_over()) {
                Some(login) => last.insert(login),
                None => last.insert(self.log_in()),
            }
            .connected
            .clone()
        };
        Ok(connected.await?.transport)
    }

    /// Notes that the API server does not know who asks on these connections.
    pub(super) fn note_refusal(&self, refused: &Arc<Transport>) {
        let mut last = self.last.lock().expect("no holder panics");
        if let Some(login) = &mut *last
            && let Some(Ok(LoginTransport { transport, .. })) = result_of(&login.connected)
            && Arc::ptr_eq(&transport, refused)
        {
            login.is_refused = true;
        }
    }

    fn log_in(&self) -> PluginLogin {
        let (plugin, credentials) = (self.plugin.clone(), self.credentials.clone());
        let settings = self.settings.clone();
        let task = tokio::spawn(async move {
            let said = plugin.run().await.map_err(|error| LoginError(error.to_string()))?;
            let PluginCredentials { login, until } = said;
            let credentials = credentials.logged_in(login);
            let transport = Transport::new(credentials, &settings);
            let transport = transport.map_err(|error| LoginError(error.to_string()))?;
            Ok(LoginTransport { transport: Arc::new(transport), until })
        });
        let ended = |error: tokio::task::JoinError| Err(LoginError(error.to_string()));
        let connected = async move { task.await.unwrap_or_else(ended) };
        PluginLogin { begun: Instant::now(), is_refused: false, connected: connected.boxed().shared() }
    }
}

impl PluginLogin {
    /// Whether the plugin has to be run again. It is not run all the time, even if it fails or each of its logins is refused.
    fn is_over(&self) -> bool {
        let ends_soon = |until: SystemTime| until <= SystemTime::now() + AHEAD;
        let is_useless = match result_of(&self.connected) {
            None => false,
            Some(Err(_)) => true,
            Some(Ok(LoginTransport { until, .. })) => self.is_refused || until.is_some_and(ends_soon),
        };
        is_useless && self.begun.elapsed() >= PAUSE
    }
}
