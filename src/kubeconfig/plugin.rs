//! Plugins that a kubeconfig names for logging in: `client.authentication.k8s.io` of client-go.
//!
//! kube runs them too, but with no bound on their time, twice for a certificate, without telling when what they say
//! ends, and it shows their output in errors. What it knows of their configuration is used here.

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

/// How long a plugin may take.
const PLUGIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of its output is read.
const OUTPUT: u64 = 1024 * 1024;

/// A program that says whom a cluster is asked as.
#[derive(Clone, PartialEq, Eq)]
pub struct ExecPlugin {
    command: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    /// `KUBERNETES_EXEC_INFO`: what it is told.
    info: String,
}

/// What a plugin said, and until when that holds.
pub struct PluginCredentials {
    /// Whom the cluster is asked as.
    pub login: UserCredentials,
    /// `None`: nothing says that it ends.
    pub until: Option<SystemTime>,
}

/// Why there is nothing to run.
#[derive(Debug, Error)]
pub enum PluginConfigError {
    /// There is no command.
    #[error("its exec plugin has no command")]
    NoCommand,
    /// It asks a person.
    #[error("its exec plugin wants to ask a person (interactiveMode: Always), and there is none")]
    Interactive,
    /// The cluster cannot be told to it.
    #[error("its exec plugin wants to know the cluster: {0}")]
    Cluster(String),
}

/// Why a plugin said nothing that is of use. Its output is in no message, since tokens may be in it.
#[derive(Debug, Error)]
pub enum PluginError {
    /// It does not start.
    #[error("the exec plugin {command} cannot be run: {source}")]
    Start {
        /// The program.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// It takes too long.
    #[error("the exec plugin {0} has not ended within {PLUGIN_TIMEOUT:?}")]
    Timeout(String),
    /// It says itself that it has failed.
    #[error("the exec plugin {command} has failed ({status}): run it by hand to see why")]
    Failed {
        /// The program.
        command: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// Its output is something else.
    #[error("the exec plugin {0} printed no ExecCredential with a token, or a certificate and its key")]
    Output(String),
    /// The token or the certificate in its output is malformed.
    #[error("what the exec plugin {command} printed cannot be used: {source}")]
    Credentials {
        /// The program.
        command: String,
        /// Why.
        source: CredentialsError,
    },
}

impl ExecPlugin {
    /// What `exec` of a user says, for a cluster.
    ///
    /// # Errors
    /// If it cannot be run here.
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

    /// Runs it. Dropping the future kills it.
    ///
    /// # Errors
    /// If it says nothing that is of use.
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
            stdout.take(OUTPUT).read_to_end(&mut output).await?;
        }
        let status = child.wait().await?;
        group.ended();
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
        let nothing = || PluginError::Output(self.command.clone());
        let malformed = |source| PluginError::Credentials { command: self.command.clone(), source };
        // Some print YAML, and client-go takes it.
        let credential: ExecCredential = serde_saphyr::from_slice(output).map_err(|_| nothing())?;
        let status = credential.status.ok_or_else(nothing)?;
        let token = status.token.filter(|token| !token.is_empty());
        let mut until = match status.expiration_timestamp.as_deref() {
            None | Some("") => None,
            Some(text) => Some(text.parse::<Timestamp>().map_err(|_| nothing())?.unix_seconds()),
        };
        let certificate = match (status.client_certificate_data, status.client_key_data) {
            (Some(chain), Some(key)) => {
                let leaf = CertificateDer::from_pem_slice(chain.as_bytes()).ok();
                until = until.or_else(|| expiry::end(&leaf?));
                Some(ClientCertificate::parse(chain.into(), key.into()).map_err(malformed)?)
            }
            (None, None) if token.is_some() => None,
            _ => return Err(nothing()),
        };
        let token = token.map(|token| BearerToken::parse(token.as_bytes())).transpose().map_err(malformed)?;
        let since = |seconds| UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?));
        Ok(PluginCredentials { login: UserCredentials { token, certificate }, until: until.and_then(since) })
    }
}

/// Shows neither arguments nor environment, in which secrets may be.
impl std::fmt::Debug for ExecPlugin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Plugin").field("command", &self.command).finish_non_exhaustive()
    }
}

/// A plugin and what it has started: a shell that is killed leaves its own children behind.
struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    fn ended(mut self) {
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
