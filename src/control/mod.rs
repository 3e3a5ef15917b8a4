//! The control plane: clients of the Karmada API server, made again when its kubeconfig changes. Nothing in the request path
//! is tried again: the caller has a deadline.

mod connection;
mod login;
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

pub use connection::lacks_credentials;

/// Where a Pod has its service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The current client of a control plane. A kubeconfig, a Pod's service account and the files that they refer to are
/// followed: a change makes another client, and what cannot be used is refused.
#[derive(Clone)]
pub struct Clients {
    current: watch::Receiver<Client>,
    _following: Arc<AbortOnDropHandle<()>>,
}

/// Why there is no client.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The kubeconfig cannot be used.
    #[error("{flag}: the kubeconfig cannot be used: {reason}")]
    Kubeconfig {
        /// The flag that names it.
        flag: &'static str,
        /// Why, without any of its content.
        reason: String,
    },
    /// What its current context says cannot be used.
    #[error("{flag}: the kubeconfig cannot be used: {source}")]
    Context {
        /// The flag that names the kubeconfig.
        flag: &'static str,
        /// Why.
        source: ContextError,
    },
    /// No connection can be made with what it says.
    #[error("{flag}: the kubeconfig cannot be used: {source}")]
    Trust {
        /// The flag that names the kubeconfig.
        flag: &'static str,
        /// Why.
        source: TlsConfigError,
    },
    /// No kubeconfig is given and the process does not run in a cluster.
    #[error(
        "--kubeconfig is not set, and neither the environment's kubeconfig ({kubeconfig}) nor a Pod's service account \
         ({service_account}) can be used"
    )]
    Environment {
        /// What is wrong with the one.
        kubeconfig: String,
        /// What is wrong with the other.
        service_account: ServiceAccountError,
    },
    /// A client cannot be made.
    #[error("{flag}: no client can be made of the kubeconfig: {source}")]
    Client {
        /// The flag that names it.
        flag: &'static str,
        /// Why.
        source: Box<kube::Error>,
    },
}

/// Why a Pod's service account cannot be used.
#[derive(Debug, Error)]
pub enum ServiceAccountError {
    /// The process does not run in a Pod.
    #[error("KUBERNETES_SERVICE_HOST is not set")]
    NoPod,
    /// Its files are not all there.
    #[error("{} cannot be read: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What they hold is malformed.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

impl Clients {
    /// Clients of the kubeconfig that `flag` names, which is read again every `interval`; `None` means the
    /// environment's, else the Pod's service account. A connection on which an answer is silent for longer than
    /// `watch_timeout`, and then some, counts as dead. All of them together keep to `rate`.
    ///
    /// # Errors
    /// If the kubeconfig cannot be read or used.
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
        let following = file::follow(what, first, interval, read, move |context| {
            std::future::ready(make(context).map(|client| drop(sender.send_replace(client))))
        });
        Ok(Self { current, _following: Arc::new(following) })
    }

    /// The client that is to be used now.
    pub fn current(&self) -> Client {
        self.current.borrow().clone()
    }

    /// The same, and whoever waits for [`Self::changed`] waits for the one after.
    pub fn renewed(&mut self) -> Client {
        self.current.borrow_and_update().clone()
    }

    /// Waits for another client than the last [`Self::renewed`] one.
    pub async fn changed(&mut self) {
        if self.current.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The current context of the kubeconfig at `path`; `None` means the environment's, else the Pod's service account.
fn read(flag: &'static str, path: Option<&Path>) -> Result<Context, ControlError> {
    let file = match path {
        Some(path) => Kubeconfig::read_from(path)
            .map_err(|error| ControlError::Kubeconfig { flag, reason: without_content(&error) })?,
        None => match Kubeconfig::read() {
            Ok(file) => file,
            Err(error) if is_absent(&error) => {
                return service_account().map_err(|refused| environment(&error, refused));
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

/// Whether there is no kubeconfig at all. One that is there and cannot be read is not passed over, as in client-go
/// (`ClientConfigLoadingRules.Load`): the service account may be that of another cluster.
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

/// The API server of the cluster in which the process runs (`rest.InClusterConfig`).
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
        login: UserCredentials { token: Some(BearerToken::parse(&file("token")?)?), certificate: None },
        trust: ServerVerification::Bundle(file("ca.crt")?),
        server_name: None,
        proxy: None,
    };
    let namespace = file("namespace").ok().and_then(|name| String::from_utf8(name).ok());
    Ok(Context { credentials, plugin: None, namespace, impersonation: None })
}

/// The client, each of whose requests takes a token of the bucket first. kube has no limit of its own.
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
