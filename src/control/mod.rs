//! The control plane's client. Nothing in the request path is tried again: the caller has a deadline.

use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use thiserror::Error;

/// Why there is no client.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The kubeconfig cannot be used.
    #[error("{flag}: the kubeconfig cannot be used: {source}")]
    Kubeconfig {
        /// The flag that names it.
        flag: &'static str,
        /// Why.
        source: kube::config::KubeconfigError,
    },
    /// No kubeconfig is given and the process does not run in a cluster.
    #[error(
        "--kubeconfig is not set, and neither the environment's kubeconfig nor a Pod's service account can be used: {0}"
    )]
    Environment(#[source] kube::config::InferConfigError),
    /// A client cannot be made.
    #[error("{flag}: no client can be made of the kubeconfig: {source}")]
    Client {
        /// The flag that names it.
        flag: &'static str,
        /// Why.
        source: Box<kube::Error>,
    },
}

/// A client for the kubeconfig that `flag` names; `None` means the environment's, else the Pod's service account.
///
/// # Errors
/// If it cannot be read or used.
pub async fn client(flag: &'static str, kubeconfig: Option<&Path>) -> Result<Client, ControlError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let unusable = |source| ControlError::Kubeconfig { flag, source };
            let kubeconfig = Kubeconfig::read_from(path).map_err(unusable)?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .map_err(unusable)?
        }
        None => Config::infer().await.map_err(ControlError::Environment)?,
    };
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(10));
    Client::try_from(config).map_err(|source| ControlError::Client { flag, source: Box::new(source) })
}
