//! Exec plugins of a kubeconfig, which return credentials: `client.authentication.k8s.io` of client-go.
//!
//! kube can also run exec plugins. But it has no timeout, runs a plugin twice for a certificate, does not report when the
//! credentials expire, and prints the output of the plugin in errors. This module uses only kube's configuration types.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kube::config::{Cluster, ExecAuthCluster, ExecConfig, ExecInteractiveMode};
use rustix::process::{Pid, Signal, kill_process_group};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde_json::json;
use thiserror::Error;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use crate::api::time::Timestamp;
use crate::process::expiry;
use crate::transport::credentials::{BearerToken, ClientCertificate, CredentialsError, UserCredentials};

const PLUGIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum bytes of the plugin's output that are read.
const MAX_OUTPUT: u64 = 1024 * 1024;

/// A program that returns the user's credentials for a cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct ExecPlugin {
    command: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    /// The value of `KUBERNETES_EXEC_INFO`, the input of the plugin.
    info: String,
}

/// The credentials that a plugin returned.
pub struct PluginCredentials {
    pub user: UserCredentials,
    /// When the credentials expire; `None` if unknown.
    pub expires: Option<SystemTime>,
}

/// Why a plugin cannot be run.
#[derive(Debug, Error)]
pub enum PluginConfigError {
    /// The plugin has no command.
    #[error("its exec plugin has no command")]
    NoCommand,
    /// The plugin is interactive.
    #[error("its exec plugin needs a user at a terminal (interactiveMode: Always), which is not supported")]
    Interactive,
    /// The description of the cluster cannot be passed to the plugin.
    #[error("the cluster cannot be passed to its exec plugin (provideClusterInfo: true): {0}")]
    Cluster(String),
}

/// Why a plugin returned no valid credentials. No message contains the plugin's output, because the output may contain tokens.
#[derive(Debug, Error)]
pub enum PluginError {
    /// The program cannot be started.
    #[error("the exec plugin {command} cannot be run: {source}")]
    Start {
        /// The program.
        command: String,
        /// The reason.
        source: io::Error,
    },
    /// The program did not finish before the timeout.
    #[error("the exec plugin {0} did not finish within {PLUGIN_TIMEOUT:?}")]
    Timeout(String),
    /// The program exited with an error status.
    #[error("the exec plugin {command} has failed ({status}): run it by hand to see why")]
    Failed {
        /// The program.
        command: String,
        status: ExitStatus,
    },
    /// The output is not an `ExecCredential` with credentials.
    #[error("the exec plugin {0} printed no ExecCredential with a token, or a certificate and its key")]
    Output(String),
    /// The token or the certificate in its output is malformed.
    #[error("the output of the exec plugin {command} cannot be used: {source}")]
    Credentials {
        /// The program.
        command: String,
        /// The reason.
        source: CredentialsError,
    },
}

impl ExecPlugin {
    /// The plugin in `exec` of a user, for a cluster.
    ///
    /// # Errors
    /// If the plugin cannot be run.
    pub fn new(exec: &ExecConfig, cluster: &Cluster) -> Result<Self, PluginConfigError> {
        let command = exec.command.clone().filter(|command| !command.is_empty());
        if exec.interactive_mode == Some(ExecInteractiveMode::Always) {
            return Err(PluginConfigError::Interactive);
        }
        let mut spec = json!({"interactive": false});
        if exec.provide_cluster_info {
            let cluster = ExecAuthCluster::try_from(cluster);
            let cluster = cluster.map_err(|error| PluginConfigError::Cluster(error.to_string()))?;
            spec["cluster"] = json!(cluster);
        }
        let info = json!({"apiVersion": exec.api_version, "kind": "ExecCredential", "spec": spec});
        let variable = |entry: &std::collections::HashMap<String, String>| {
            Some((entry.get("name")?.clone(), entry.get("value")?.clone()))
        };
        Ok(Self {
            command: command.ok_or(PluginConfigError::NoCommand)?,
            args: exec.args.clone().unwrap_or_default(),
            env: exec.env.iter().flatten().filter_map(variable).collect(),
            info: info.to_string(),
        })
    }

    /// Runs the plugin, for 30 s at most. Dropping the future kills the plugin and its child processes.
    ///
    /// # Errors
    /// If the plugin returns no valid credentials.
    pub async fn run(&self) -> Result<PluginCredentials, PluginError> {
        let command = || self.command.clone();
        let output =
            timeout(PLUGIN_TIMEOUT, self.output()).await.map_err(|_| PluginError::Timeout(command()))?;
        let (status, output) = output.map_err(|source| PluginError::Start { command: command(), source })?;
        if !status.success() {
            return Err(PluginError::Failed { command: command(), status });
        }
        self.read(&output)
    }

    async fn output(&self) -> io::Result<(ExitStatus, Vec<u8>)> {
        let mut child = Command::new(&self.command)
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .env("KUBERNETES_EXEC_INFO", &self.info)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let group = ProcessGroup(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
        let mut output = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MAX_OUTPUT).read_to_end(&mut output).await?;
        }
        let status = child.wait().await?;
        group.keep();
        Ok((status, output))
    }

    fn read(&self, output: &[u8]) -> Result<PluginCredentials, PluginError> {
        #[derive(Deserialize)]
        struct ExecCredential {
            status: Option<ExecCredentialStatus>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ExecCredentialStatus {
            expiration_timestamp: Option<String>,
            token: Option<String>,
            client_certificate_data: Option<String>,
            client_key_data: Option<String>,
        }
        let no_credentials = || PluginError::Output(self.command.clone());
        let malformed = |source| PluginError::Credentials { command: self.command.clone(), source };
        // Some plugins print YAML, and client-go accepts it.
        let credential: ExecCredential = serde_saphyr::from_slice(output).map_err(|_| no_credentials())?;
        let status = credential.status.ok_or_else(no_credentials)?;
        let token = status.token.filter(|token| !token.is_empty());
        let mut expires = match status.expiration_timestamp.as_deref() {
            None | Some("") => None,
            Some(text) => Some(text.parse::<Timestamp>().map_err(|_| no_credentials())?.unix_seconds()),
        };
        let certificate = match (status.client_certificate_data, status.client_key_data) {
            (Some(chain), Some(key)) => {
                let leaf = CertificateDer::from_pem_slice(chain.as_bytes()).ok();
                expires = expires.or_else(|| expiry::not_after(&leaf?));
                Some(ClientCertificate::parse(chain.into(), key.into()).map_err(malformed)?)
            }
            (None, None) if token.is_some() => None,
            _ => return Err(no_credentials()),
        };
        let token = token.map(|token| BearerToken::parse(token.as_bytes())).transpose().map_err(malformed)?;
        let from_unix = |seconds| UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?));
        Ok(PluginCredentials {
            user: UserCredentials { token, certificate },
            expires: expires.and_then(from_unix),
        })
    }
}

/// Omits arguments and environment, because they may contain secrets.
impl std::fmt::Debug for ExecPlugin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Plugin").field("command", &self.command).finish_non_exhaustive()
    }
}

/// Kills the plugin and its child processes when dropped. Killing only a shell would leave its children running.
struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    /// Kills nothing: the plugin has exited.
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
