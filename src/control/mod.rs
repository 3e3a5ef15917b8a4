//! Clients of the Karmada API server. A client is replaced when its kubeconfig changes. Requests are not retried here, because
//! the caller has a deadline.

mod connection;
mod plugin_transports;
pub mod watcher;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use kube::Client;
use kube::config::{Kubeconfig, KubeconfigError};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tower::service_fn;

use crate::config::RateLimit;
use crate::kubeconfig::{Context, ContextError, current_context, without_content};
use crate::process::file;
use crate::process::rate::Bucket;
use crate::transport::credentials::{
    BearerToken, Credentials, CredentialsError, Endpoint, ServerVerification, UserCredentials,
};
use crate::transport::tls::TlsConfigError;

pub use connection::has_no_credentials;

/// The directory of a Pod's service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The current client of a control plane. The kubeconfig or a Pod's service account, and the files that it refers to, are read
/// again periodically. A change creates a new client. If the new content is invalid, the old client stays in use.
#[derive(Clone)]
pub struct Clients {
    current: watch::Receiver<Client>,
    _reload: Arc<AbortOnDropHandle<()>>,
}

/// Why there is no client for the control plane.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The kubeconfig cannot be read or parsed.
    #[error("{flag}: the kubeconfig cannot be used: {reason}")]
    Kubeconfig {
        /// The flag that names the kubeconfig.
        flag: &'static str,
        /// The reason, without the content of the file.
        reason: String,
    },
    /// The current context is invalid.
    #[error("{flag}: the kubeconfig cannot be used: {source}")]
    Context {
        /// The flag that names the kubeconfig.
        flag: &'static str,
        /// The reason.
        source: ContextError,
    },
    /// The endpoint, the CA bundle or the proxy of the current context is invalid.
    #[error("{flag}: the kubeconfig cannot be used: {source}")]
    Tls {
        /// The flag that names the kubeconfig.
        flag: &'static str,
        /// The reason.
        source: TlsConfigError,
    },
    /// No kubeconfig is given and the process does not run in a cluster.
    #[error(
        "--kubeconfig is not set, and neither the environment's kubeconfig ({kubeconfig}) nor a Pod's service account \
         ({service_account}) can be used"
    )]
    Environment {
        /// Why the environment's kubeconfig cannot be used.
        kubeconfig: String,
        /// Why the service account cannot be used.
        service_account: ServiceAccountError,
    },
    /// kube does not accept the settings of the current context.
    #[error("{flag}: a client cannot be created from the kubeconfig: {source}")]
    Client {
        /// The flag that names the kubeconfig.
        flag: &'static str,
        /// The reason.
        source: Box<kube::Error>,
    },
}

/// Why a Pod's service account cannot be used.
#[derive(Debug, Error)]
pub enum ServiceAccountError {
    /// The process does not run in a Pod.
    #[error("KUBERNETES_SERVICE_HOST is not set")]
    NoPod,
    /// One of its files cannot be read.
    #[error("{} cannot be read: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The content of one of its files is malformed.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

impl Clients {
    /// Opens the kubeconfig that `flag` names. `None` means the kubeconfig of the environment, or without one the Pod's service
    /// account. The files are read again every `interval`. A response without data for longer than `watch_timeout` plus 10 s is
    /// an error. All clients together have the rate limit `rate`.
    ///
    /// # Errors
    /// If the kubeconfig cannot be read or is invalid.
    pub fn open(
        flag: &'static str,
        kubeconfig: Option<&Path>,
        interval: Duration,
        watch_timeout: Duration,
        rate: Option<RateLimit>,
    ) -> Result<Self, ControlError> {
        let bucket = rate.and_then(Bucket::new).map(Arc::new);
        let path = kubeconfig.map(Path::to_owned);
        let what = path.as_ref().map_or_else(|| flag.to_owned(), |path| format!("{flag}={}", path.display()));
        let read = move || read(flag, path.as_deref());
        let first = read()?;
        let make = move |context: Context| {
            let client = connection::client(flag, context, watch_timeout)?;
            Ok::<_, ControlError>(limited(client, bucket.as_ref()))
        };
        let (sender, current) = watch::channel(make(first.clone())?);
        let reload = file::follow(what, first, interval, read, move |context| {
            std::future::ready(make(context).map(|client| drop(sender.send_replace(client))))
        });
        Ok(Self { current, _reload: Arc::new(reload) })
    }

    pub fn current(&self) -> Client {
        self.current.borrow().clone()
    }

    /// The current client. After this call, [`Self::changed`] waits for a newer client.
    pub fn latest(&mut self) -> Client {
        self.current.borrow_and_update().clone()
    }

    /// Waits for a newer client.
    pub async fn changed(&mut self) {
        if self.current.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The current context of the kubeconfig at `path`. `None` means the kubeconfig of the environment, or without one the Pod's
/// service account.
fn read(flag: &'static str, path: Option<&Path>) -> Result<Context, ControlError> {
    let file = match path {
        Some(path) => Kubeconfig::read_from(path)
            .map_err(|error| ControlError::Kubeconfig { flag, reason: without_content(&error) })?,
        None => match Kubeconfig::read() {
            Ok(file) => file,
            Err(error) if is_absent(&error) => {
                return service_account().map_err(|reason| environment(&error, reason));
            }
            Err(error) => {
                return Err(ControlError::Kubeconfig {
                    flag: "KUBECONFIG or ~/.kube/config",
                    reason: without_content(&error),
                });
            }
        },
    };
    current_context(&file).map_err(|source| ControlError::Context { flag, source })
}

/// Whether there is no kubeconfig at all. A kubeconfig that exists but cannot be read is an error, as in client-go
/// (`ClientConfigLoadingRules.Load`): the service account may be for another cluster.
fn is_absent(error: &KubeconfigError) -> bool {
    match error {
        KubeconfigError::FindPath => true,
        KubeconfigError::ReadConfig(error, _) => {
            matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        }
        _ => false,
    }
}

fn environment(kubeconfig: &KubeconfigError, service_account: ServiceAccountError) -> ControlError {
    ControlError::Environment { kubeconfig: without_content(kubeconfig), service_account }
}

/// The API server of the cluster in which the process runs, as in client-go (`rest.InClusterConfig`).
fn service_account() -> Result<Context, ServiceAccountError> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let host = variable("KUBERNETES_SERVICE_HOST").ok_or(ServiceAccountError::NoPod)?;
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let port = variable("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".to_owned());
    let file = |name: &str| {
        let path = Path::new(SERVICE_ACCOUNT).join(name);
        fs::read(&path).map_err(|source| ServiceAccountError::File { path, source })
    };
    let credentials = Credentials {
        endpoint: Endpoint::parse(&format!("https://{host}:{port}"))?,
        user: UserCredentials { token: Some(BearerToken::parse(&file("token")?)?), certificate: None },
        verification: ServerVerification::Bundle(file("ca.crt")?),
        server_name: None,
        proxy: None,
    };
    let namespace = file("namespace").ok().and_then(|name| String::from_utf8(name).ok());
    Ok(Context { credentials, plugin: None, namespace, impersonation: None })
}

/// Adds the rate limit to the client: each request first takes a token of the bucket. kube has no rate limit.
fn limited(client: Client, bucket: Option<&Arc<Bucket>>) -> Client {
    let Some(bucket) = bucket.cloned() else { return client };
    let namespace = client.default_namespace().to_owned();
    let service = service_fn(move |request| {
        let (client, bucket) = (client.clone(), bucket.clone());
        async move {
            bucket.token().await;
            client.send(request).await
        }
    });
    Client::new(service, namespace)
}
